//! The input's trace: the gradient that it adds, and that it adds nothing else.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{bptt_training, ottt_online_training, OtttTrainingConfig, Sgd, SgdConfig, Update};
use spiketrace::{
    InputTrace, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, Pass, Result, Signal,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, numbers, DOUBLE, FLOAT};
use crate::parity::fixture::relative_difference;

const TIME_STEPS: i64 = 6;

/// An input `[3, T, 4]` that changes with time, and what each step's outputs `[3, 2]` are weighted by in the loss.
fn sequence(kind: Kind) -> (Tensor, Tensor) {
    (numbers(&[3, TIME_STEPS, 4], 1).to_kind(kind), numbers(&[3, TIME_STEPS, 2], 2).to_kind(kind))
}

fn weighted(y: &Tensor, weights: &Tensor) -> Result<Tensor> {
    Ok((y * weights).f_sum(y.kind())?)
}

/// dL/dW = Σ_t g_t a_t^T, with the sums written out.
#[rstest]
fn a_weighted_layer_after_it_learns_from_the_input_so_far(
    #[values((Kind::Float, 1e-5), (Kind::Double, 1e-12))] (kind, tolerance): (Kind, f64),
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
    #[values(1, 4, 6)] steps_per_pass: i64,
) {
    let (tau, (x, g)) = (3.0f64, sequence(kind));
    let mut vs = VarStore::new(Device::Cpu);
    let linear = nn::linear(vs.root(), 4, 2, Default::default());
    let mut net = OtttSequential::new().add(InputTrace::new(tau).unwrap()).add(linear);
    vs.set_kind(kind);
    fill(&net, 1.0);
    let [weight, bias] = ["weight", "bias"].map(|name| vs.variables()[name].shallow_clone());
    let mut sgd = Sgd::new([&weight, &bias], SgdConfig { lr: 0.0, ..Default::default() }).unwrap();
    let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
    let out = with_fast_paths(paths, || {
        ottt_online_training(&mut net, &mut sgd, &x, &g, weighted, config).unwrap().outputs
    });
    assert!(relative_difference(&out, &x.linear(&weight, Some(&bias)).detach()) <= tolerance, "y = W x + b");
    let mut expected = weight.detach().zeros_like();
    for t in 0..TIME_STEPS {
        let trace = (0..=t).map(|s| x.select(1, s) * (1.0 - 1.0 / tau).powi((t - s) as i32));
        expected += g.select(1, t).tr().matmul(&trace.reduce(|a, b| a + b).unwrap());
    }
    assert!(relative_difference(&weight.grad(), &expected) <= tolerance, "{}", weight.grad());
    assert!(
        relative_difference(&bias.grad(), &g.sum_dim_intlist([0i64, 1].as_slice(), false, kind)) <= tolerance
    );
    let last = net.memories().remove(0).get().unwrap().copy();
    net.reset();
    assert!(last.abs().max().double_value(&[]) > 0.0 && net.memories().remove(0).get().is_none());
}

/// Something happens at the first step, and at the last one the network is asked about it.
#[test]
fn an_event_that_is_over_teaches_the_first_layer_with_it_alone() {
    let gradient = |traces: bool, through_time: bool| {
        let mut vs = VarStore::new(Device::Cpu);
        let p = vs.root();
        let config = OtttLifConfig { tau: 4.0, v_threshold: 0.6, ..Default::default() };
        let net = if traces {
            OtttSequential::new().add(InputTrace::new(4.0).unwrap())
        } else {
            OtttSequential::new()
        };
        let mut net = net
            .add(nn::linear(&p / 0, 4, 8, nn::LinearConfig { bias: false, ..Default::default() }))
            .add(OtttLifNode::new(config).unwrap())
            .add(nn::linear(&p / 1, 8, 2, Default::default()));
        vs.double();
        fill(&net, 1.0);
        let (x, asked) = (Tensor::zeros([3, 4, 4], DOUBLE), Tensor::zeros([3, 4, 2], DOUBLE));
        x.select(1, 0).copy_(&(numbers(&[3, 4], 3) * 2.0));
        asked.select(1, 3).copy_(&numbers(&[3, 2], 4));
        let mut sgd =
            Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.0, ..Default::default() }).unwrap();
        match through_time {
            true => bptt_training(&mut net, &mut sgd, &x, &asked, weighted),
            false => ottt_online_training(&mut net, &mut sgd, &x, &asked, weighted, Update::EndOfSequence),
        }
        .unwrap();
        vs.variables()["0.weight"].grad()
    };
    let (without, with, exact) = (gradient(false, false), gradient(true, false), gradient(true, true));
    assert_eq!(without.abs().max().double_value(&[]), 0.0);
    // Resets take spikes as data, and one step's loss asks: there the online gradient is the exact one.
    assert!(exact.abs().max().double_value(&[]) > 1e-3);
    assert!(relative_difference(&with, &exact) <= 1e-10, "{with} instead of {exact}");
}

#[test]
fn evaluation_passes_the_input_on_and_leaves_the_trace() {
    let mut node = InputTrace::new(2.0).unwrap();
    let x = Tensor::rand([2, 3], FLOAT);
    let out = node.step(&(&x).into(), true).unwrap();
    assert_eq!((out.value(), out.trace().unwrap()), (&x, &x));
    assert_ne!(out.trace().unwrap().data_ptr(), x.data_ptr());
    assert!(matches!(node.step(&(&x * 2.0).into(), false).unwrap(), Signal::Dense(y) if y == &x * 2.0));
    assert_eq!(node.trace().unwrap(), &x);
    let constant = node.pass(&Signal::Constant(x.shallow_clone()), &Pass::new(true).steps(2)).unwrap();
    let expected = Tensor::cat(&[&x * 1.5, &x * 1.75], 0);
    assert!(relative_difference(constant.trace().unwrap(), &expected) <= 1e-6);
}

#[test]
fn wrong_use_is_named() {
    let error = InputTrace::new(0.5).unwrap_err().to_string();
    assert!(error.starts_with("InputTrace's tau is 0.5, expected a finite number of time steps"), "{error}");
    let mut node = InputTrace::new(2.0).unwrap();
    let pair = Signal::SpikeTrace { spike: Tensor::ones([2], FLOAT), trace: Tensor::ones([2], FLOAT) };
    let mut error = |x: &Signal| node.step(x, true).unwrap_err().to_string();
    assert!(error(&pair).starts_with("InputTrace's input is a spike with its trace"));
    assert!(error(&Tensor::ones([2], (Kind::Int64, Device::Cpu)).into())
        .starts_with("InputTrace's input holds Int64"));
    node.step(&Tensor::ones([2, 3], FLOAT).into(), true).unwrap();
    let stale = node.step(&Tensor::ones([4, 3], FLOAT).into(), true).unwrap_err().to_string();
    assert!(stale.starts_with("InputTrace's trace was left by an input of shape [2, 3]"), "{stale}");
}
