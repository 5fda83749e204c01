//! Half precision: the formulas, rounded once a step.

use rstest::rstest;
use spiketrace::train::{Adam, AdamConfig, Optimizer, Sgd, SgdConfig};
use tch::{Kind, Tensor};

use super::{set_grad, ADAM, MOMENTUM};
use crate::common::numbers;

/// On both sides of each width of libtorch's vectors, and enough for several threads.
const SIZES: [i64; 9] = [1, 7, 8, 16, 31, 32, 33, 1000, 70_001];

const STEPS: usize = 4;

/// The distance of two numbers near 1.
fn unit(kind: Kind) -> f64 {
    match kind {
        Kind::Half => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// What a tensor of `kind` keeps of `values`.
fn kept(values: &Tensor, kind: Kind) -> Tensor {
    values.to_kind(kind).to_kind(Kind::Double)
}

fn assert_near(got: &Tensor, formula: &Tensor, kind: Kind) {
    let apart = (got.detach().to_kind(Kind::Double) - formula).abs();
    let most = (apart - formula.abs() * unit(kind)).max().double_value(&[]);
    assert!(most < 0.02 * unit(kind), "{most} apart in {kind:?}");
}

/// Where in its run each step is taken: value and gradient of a parameter, the same for library and formula.
fn case(size: i64, kind: Kind) -> (Tensor, Vec<Tensor>) {
    let grads = (0..STEPS).map(|t| numbers(&[size], t + 2).to_kind(kind)).collect();
    (numbers(&[size], 1).to_kind(kind), grads)
}

#[rstest]
fn sgd_moves_as_the_formula_says(
    #[values(Kind::Half, Kind::BFloat16)] kind: Kind,
    #[values(
        MOMENTUM,
        SgdConfig { momentum: 0.0, ..MOMENTUM },
        SgdConfig { dampening: 0.5, ..MOMENTUM },
        SgdConfig { nesterov: true, ..MOMENTUM },
    )]
    config: SgdConfig,
) {
    let SgdConfig { lr, momentum, dampening, weight_decay, nesterov } = config;
    for size in SIZES {
        let (start, grads) = case(size, kind);
        let parameter = start.copy().set_requires_grad(true);
        let mut sgd = Sgd::new([&parameter], config).unwrap();
        let mut b = Tensor::new();
        for (t, grad) in grads.iter().enumerate() {
            // Each step from what the library had kept, so that roundings do not add up.
            let p = parameter.detach().to_kind(Kind::Double);
            set_grad(&parameter, grad);
            sgd.step().unwrap();
            let g = grad.to_kind(Kind::Double) + &p * weight_decay;
            let new = match t {
                0 => g.copy(),
                _ if momentum == 0.0 => g.copy(),
                _ => b * momentum + &g * (1.0 - dampening),
            };
            let pull = if nesterov { g + &new * momentum } else { new.copy() };
            assert_near(&parameter, &(p - pull * lr), kind);
            b = Tensor::new();
            if momentum != 0.0 {
                let buffer = sgd.momentum_buffers()[0].as_ref().unwrap();
                assert_eq!(buffer.kind(), kind);
                assert_near(buffer, &new, kind);
                b = buffer.to_kind(Kind::Double);
            }
        }
        assert!(parameter.detach().ne_tensor(&start).any().int64_value(&[]) != 0, "nothing moved");
    }
}

#[rstest]
fn adam_moves_as_the_formula_says(
    #[values(Kind::Half, Kind::BFloat16)] kind: Kind,
    #[values(ADAM, AdamConfig { decoupled_weight_decay: true, ..ADAM })] config: AdamConfig,
) {
    let AdamConfig { lr, betas: (beta1, beta2), eps, weight_decay, decoupled_weight_decay } = config;
    for size in SIZES {
        let (start, grads) = case(size, kind);
        let parameter = start.copy().set_requires_grad(true);
        let mut adam = Adam::new([&parameter], config).unwrap();
        for (t, grad) in grads.iter().enumerate() {
            let state = &adam.states()[0];
            let [m, v, mut p] =
                [&state.exp_avg, &state.exp_avg_sq, &parameter].map(|x| x.detach().to_kind(Kind::Double));
            set_grad(&parameter, grad);
            adam.step().unwrap();
            let mut g = grad.to_kind(Kind::Double);
            match decoupled_weight_decay {
                true => p *= 1.0 - lr * weight_decay,
                false => g += &p * weight_decay,
            }
            let m = m * beta1 + &g * (1.0 - beta1);
            let v = v * beta2 + &g * &g * (1.0 - beta2);
            let at = t as i32 + 1;
            let denominator = (&v / (1.0 - beta2.powi(at))).sqrt() + eps;
            p -= &m / denominator * (lr / (1.0 - beta1.powi(at)));
            let state = &adam.states()[0];
            assert_eq!((state.exp_avg.kind(), state.step.double_value(&[])), (kind, f64::from(at)));
            assert_near(&state.exp_avg, &m, kind);
            // A half-precision number has few digits below 6e-5.
            assert_near(&state.exp_avg_sq, &kept(&v, kind), kind);
            assert_near(&parameter, &p, kind);
        }
    }
}

/// Its eps is 0 in half precision, and 0 / 0 no number.
#[test]
fn adam_leaves_a_half_precision_weight_without_gradient_where_it_is() {
    let parameter = numbers(&[40], 1).to_kind(Kind::Half).set_requires_grad(true);
    let before = parameter.copy();
    let mut adam = Adam::new([&parameter], AdamConfig { weight_decay: 0.0, ..ADAM }).unwrap();
    set_grad(&parameter, &Tensor::zeros_like(&parameter));
    adam.step().unwrap();
    assert_eq!(parameter, before);
}
