//! Weighted layers in bfloat16: near the full result, with everything else in f32.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, with_precision, FastPaths, Precision};
use spiketrace::train::{ottt_online_training, OtttTrainingConfig, Update};
use spiketrace::{
    ws_conv2d, AvgPool2d, Flatten, GradWithTrace, OnlineModule, OtttLifNode, OtttSequential, Part, Signal,
    WsConv2dConfig,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, FLOAT};

/// max |a - b| over max |b|.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / b.abs().max()).double_value(&[])
}

#[rstest]
fn a_weighted_layer_is_near_and_learns_from_the_trace(
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
) {
    let vs = VarStore::new(Device::Cpu);
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let mut layer = GradWithTrace::new(ws_conv2d(vs.root(), 8, 16, 3, same).unwrap());
    let spike = Tensor::rand([4, 8, 9, 9], FLOAT).ge(0.7).to_kind(Kind::Float).set_requires_grad(true);
    let trace = Tensor::rand([4, 8, 9, 9], FLOAT);
    let upstream = Tensor::randn([4, 16, 9, 9], FLOAT);
    let mut run = |precision| {
        let mut spike = spike.shallow_clone();
        spike.zero_grad();
        layer.parameters().iter_mut().for_each(|p| p.tensor.zero_grad());
        let x = Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() };
        let y = with_fast_paths(paths, || with_precision(precision, || layer.step(&x, true))).unwrap();
        assert_eq!(y.value().kind(), Kind::Float);
        (y.value() * &upstream).sum(Kind::Float).backward();
        let grads = layer.parameters().into_iter().map(|p| p.tensor.grad().copy());
        [y.value().detach(), spike.grad().copy()].into_iter().chain(grads).collect::<Vec<_>>()
    };
    let (full, rounded) = (run(Precision::Full), run(Precision::BFloat16));
    for (i, (rounded, full)) in rounded.iter().zip(&full).enumerate() {
        let distance = distance(rounded, full);
        assert!(rounded.kind() == Kind::Float && distance < 0.03, "tensor {i}: {distance}");
        assert!(distance > 1e-5, "tensor {i} was not rounded");
    }
}

#[rstest]
fn a_network_keeps_weights_states_and_gradients_in_f32(
    #[values(Update::EveryStep, Update::EndOfSequence)] update: Update,
    #[values(1, 4)] steps_per_pass: i64,
) {
    if update == Update::EveryStep && steps_per_pass > 1 {
        return;
    }
    let vs = VarStore::new(Device::Cpu);
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let mut net = OtttSequential::new()
        .add(ws_conv2d(vs.root() / 0, 3, 8, 3, same).unwrap())
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(nn::conv2d(vs.root() / 1, 8, 8, 3, Default::default()))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Flatten::default())
        .add(nn::linear(vs.root() / 2, 8 * 14 * 14, 4, Default::default()));
    let mut optimizer = nn::Sgd::default().build(&vs, 0.05).unwrap();
    let x = Tensor::rand([8, 5, 3, 32, 32], FLOAT);
    let target = Tensor::rand([8, 5, 4], FLOAT);
    let mut losses = Vec::new();
    for _ in 0..10 {
        let config = OtttTrainingConfig { update, steps_per_pass };
        let out = with_precision(Precision::BFloat16, || {
            ottt_online_training(&mut net, &mut optimizer, &x, &target, mse, config)
        });
        let out = out.unwrap();
        assert_eq!(out.outputs.kind(), Kind::Float);
        losses.push(f64::try_from(&out.loss).unwrap());
        for memory in net.memories().into_iter().filter_map(|m| m.get()) {
            assert_eq!(memory.kind(), Kind::Float);
        }
        net.reset();
    }
    assert!(losses[9] < 0.8 * losses[0], "it does not learn: {losses:?}");
    for p in net.parameters() {
        assert_eq!((p.tensor.kind(), p.tensor.grad().kind()), (Kind::Float, Kind::Float));
    }
}
