//! Collectives and averaged gradients, number by number.

use spiketrace::distributed::{Collectives, DataParallel, ReduceOp};
use spiketrace::train::{Optimizer, Sgd, SgdConfig};
use spiketrace::{with_parameters, OtttSequential, Result, Variable};
use tch::{nn, Device, Kind, Tensor};

use super::processes::Processes;

const N: usize = 3;

#[test]
fn collectives_join_the_numbers_of_all_processes() {
    Processes::start(N, "collectives").succeed();
}

pub fn job(group: &dyn Collectives) -> Result<()> {
    let rank = group.rank();
    assert_eq!(group.world_size(), N as i64);
    for (op, expected) in
        [(ReduceOp::Sum, 9.0), (ReduceOp::Product, 24.0), (ReduceOp::Min, 2.0), (ReduceOp::Max, 4.0)]
    {
        for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::Int64, Kind::Int, Kind::Int8, Kind::Uint8] {
            let mut x = Tensor::from_slice(&[rank + 2; 5]).to_kind(kind);
            group.all_reduce(&mut x, op)?;
            assert_eq!(
                Vec::<f64>::try_from(&x.to_kind(Kind::Double)).unwrap(),
                [expected; 5],
                "{op:?} {kind:?}"
            );
        }
    }
    // Other strides on another rank: the elements meet, not the bytes.
    let values = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
    let mut x = if rank == 1 { values.transpose(0, 1).contiguous().transpose(0, 1) } else { values.copy() };
    group.all_reduce(&mut x, ReduceOp::Sum)?;
    assert_eq!(x, &values * N as f64);
    let mut part = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
    group.all_reduce(&mut part.narrow(1, rank, 1).fill_(1.0), ReduceOp::Sum)?;
    assert_eq!(part.sum(Kind::Float).double_value(&[]), 4.0 * N as f64);
    for root in 0..N as i64 {
        let mut x = Tensor::from_slice(&[rank as f64; 3]);
        group.broadcast(&mut x, root)?;
        assert_eq!(Vec::<f64>::try_from(&x).unwrap(), [root as f64; 3]);
    }
    assert_eq!(group.sum(&[1.0, rank as f64])?, [3.0, 3.0]);
    // A weight: the values move, the graph does not notice.
    let mut weight = Tensor::from_slice(&[rank as f32]).set_requires_grad(true);
    group.broadcast(&mut weight, 2)?;
    assert!(weight.is_leaf() && weight.requires_grad() && weight.double_value(&[0]) == 2.0);
    let error = group.broadcast(&mut part, 3).unwrap_err().to_string();
    assert!(error.starts_with("broadcast's root is 3, expected a rank from 0 to 2"), "{error}");
    assert!(group.all_reduce(&mut Tensor::new(), ReduceOp::Sum).is_err());
    group.barrier()
}

#[test]
fn gradients_are_averaged_over_samples_whoever_has_them() {
    Processes::start(2, "gradients").succeed();
}

/// Rank 0 has 3 samples, rank 1 has 1.
pub fn gradients(group: &dyn Collectives) -> Result<()> {
    let rank = group.rank();
    let leaf = |x: Tensor| x.set_requires_grad(true);
    let ones = |kind| leaf(Tensor::ones([2, 3, 2, 2], (kind, Device::Cpu)));
    let last = leaf(Tensor::ones([2, 2, 2, 3], (Kind::Float, Device::Cpu)).permute([0, 3, 1, 2]).detach());
    let parameters = [
        ones(Kind::Float),
        ones(Kind::Double),
        ones(Kind::Half),
        last,
        ones(Kind::Float),
        ones(Kind::Double),
    ];
    let named = parameters.iter().enumerate().map(|(i, p)| Variable::parameter(i.to_string(), p)).collect();
    let net = OtttSequential::new().add(with_parameters("all", nn::func(|x| x.shallow_clone()), named));
    let sgd = Sgd::new(&parameters, SgdConfig { lr: 1.0, ..Default::default() })?;
    let mut optimizer = DataParallel::new(group, &net, sgd)?;
    // Twice: what the first step left behind must not show in the second.
    for round in 0..2 {
        optimizer.zero_grad()?;
        optimizer.set_samples(if rank == 0 { 3 } else { 1 });
        let slope = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 2, 2]);
        // 0 to 3: on both ranks. 4: on rank 1 alone. 5: on none.
        for (i, p) in parameters.iter().enumerate().take(if rank == 0 { 4 } else { 5 }) {
            let factor = (rank + 1) as f64 * (i + 1) as f64;
            (p * (&slope * factor).to_kind(p.kind())).sum(p.kind()).backward();
        }
        let before: Vec<Tensor> = parameters.iter().map(|p| p.detach().copy()).collect();
        optimizer.step()?;
        for (i, (p, before)) in parameters.iter().zip(&before).enumerate() {
            // (3 * 1 + 1 * 2) / 4, or (3 * 0 + 1 * 2) / 4.
            let share = [1.25, 0.5][usize::from(i == 4)] * (i + 1) as f64;
            if i == 5 {
                assert!(!p.grad().defined() && p.detach() == *before, "{round}");
                continue;
            }
            let expected = (&slope * share).to_kind(p.kind());
            assert_eq!(p.grad(), expected, "gradient {i}, round {round}");
            assert_eq!(p.grad().stride(), p.stride(), "as fused optimizers want them");
            // PyTorch 2.13's fused SGD does not move half-precision parameters on the CPU.
            if p.kind() != Kind::Half {
                assert_eq!(p.detach(), before - &expected, "parameter {i}, round {round}");
            }
        }
    }
    optimizer.expect_identical()?;

    // Nobody has samples.
    let error = optimizer.sit_out(1).unwrap_err().to_string();
    assert!(error.starts_with("the count of samples in a step is 0"), "{error}");
    // Rank 1 sits out, and has as many samples as before in the step behind.
    let expected = [3.0, 1.5];
    for (step, expected) in expected.into_iter().enumerate() {
        if (rank, step) == (1, 0) {
            optimizer.sit_out(1)?;
        } else {
            optimizer.zero_grad()?;
            (parameters[0].sum(Kind::Float) * if rank == 0 { 3.0 } else { -3.0 }).backward();
            optimizer.step()?;
        }
        assert_eq!(parameters[0].grad().mean(Kind::Float).double_value(&[]), expected, "step {step}");
    }
    // Something else changed a weight.
    if rank == 1 {
        let _ = tch::no_grad(|| parameters[3].narrow(0, 0, 1).fill_(7.0));
    }
    let error = optimizer.expect_identical().unwrap_err().to_string();
    let expected =
        format!("comparing values failed on rank {rank} of 2: 0.3 has other values on rank 1 than on rank 0");
    assert!(error.starts_with(&expected), "{error}");
    Ok(())
}
