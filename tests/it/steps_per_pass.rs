//! Several time steps in one pass: the same numbers as one after another.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{ottt_online_training, repeat_over_time, OtttTrainingConfig, SequenceOutput, Update};
use spiketrace::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Flatten,
    Identity, Layer, MaxPool2d, Memory, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, Pass,
    Properties, Result, Scale, Signal, SlttLifConfig, SlttLifNode, Variable, WsConv2dConfig,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, numbers, FLOAT};

/// Every layer of the crate, both nodes, tch's layers, a nested container.
fn everything(vs: &VarStore) -> OtttSequential {
    let p = vs.root();
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let conv = nn::ConvConfig { padding: 1, ..Default::default() };
    let hard = OtttLifConfig {
        v_reset: Some(-0.25),
        tau: 3.0,
        decay_input: true,
        v_threshold: 0.2,
        ..Default::default()
    };
    let relu = with_parameters("relu", nn::func(|x| x.relu()), Vec::new()).samplewise();
    let block = OtttSequential::new()
        .add(nn::conv2d(&p / "inner", 6, 6, 3, conv))
        .add(nn::group_norm(&p / "norm", 2, 6, Default::default()))
        .add(OtttLifNode::new(hard).unwrap());
    let (mut channels, mut elements) = (Dropout2d::new(0.2).unwrap(), Dropout::new(0.3).unwrap());
    channels.set_mask(&(numbers(&[3, 6, 1, 1], 1).ge(-0.6).to_kind(Kind::Double) / 0.8));
    elements.set_mask(&(numbers(&[3, 6, 4, 4], 2).ge(-0.4).to_kind(Kind::Double) / 0.7));
    OtttSequential::new()
        .add(ws_conv2d(&p / "0", 2, 6, 3, same).unwrap())
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.74))
        .add(channels)
        .add(MaxPool2d::new(2, Default::default()).unwrap())
        .add(block)
        .add(elements)
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(AdaptiveAvgPool2d::new([2, 2]).unwrap())
        .add(Identity)
        .add(Flatten::default())
        .add(ws_linear(&p / "1", 24, 7, Default::default()).unwrap())
        .add(nn::layer_norm(&p / "2", vec![7], Default::default()))
        .add(SlttLifNode::new(SlttLifConfig { v_threshold: 0.1, ..Default::default() }).unwrap())
        .add(relu)
        .add(nn::linear(&p / "3", 7, 3, Default::default()))
}

/// Gradients, what training returned, and the state afterwards.
fn train(
    config: OtttTrainingConfig,
    paths: FastPaths,
    constant: bool,
) -> (Vec<Tensor>, SequenceOutput, Vec<Tensor>) {
    let mut vs = VarStore::new(Device::Cpu);
    let mut net = everything(&vs);
    vs.double();
    for (i, parameter) in net.parameters().into_iter().enumerate() {
        let values = numbers(&parameter.tensor.size(), 3 + i) * 0.5 + 0.2;
        tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&values));
    }
    let x = numbers(&[3, 7, 2, 8, 8], 100) + 1.0;
    let x = if constant { repeat_over_time(&x.select(1, 0), 7).unwrap() } else { x };
    let target = numbers(&[3, 7, 3], 101);
    let mut optimizer = nn::Sgd::default().build(&vs, 0.0).unwrap();
    // A second sequence goes on where the first one ended.
    let train = |net: &mut OtttSequential, optimizer: &mut nn::Optimizer| {
        ottt_online_training(net, optimizer, &x, &target, mse, config).unwrap()
    };
    let out = with_fast_paths(paths, || {
        train(&mut net, &mut optimizer);
        train(&mut net, &mut optimizer)
    });
    let grads = net.parameters().iter().map(|p| p.tensor.grad()).collect();
    let state = net.memories().into_iter().map(|memory| memory.get().unwrap().copy()).collect();
    (grads, out, state)
}

fn assert_close(got: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let difference = (got - expected).abs().max().double_value(&[]);
    let scale = expected.abs().max().double_value(&[]);
    assert!(difference <= 1e-10 * scale, "{what}: {difference:e} of {scale:e}");
}

#[rstest]
fn k_steps_in_one_pass_give_the_gradients_of_single_steps(
    #[values(1, 2, 3, 4, 6, 7, 50)] steps_per_pass: i64,
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
    #[values(false, true)] constant: bool,
) {
    let update = Update::EndOfSequence;
    let (grads, out, state) = train(update.into(), FastPaths::NONE, constant);
    let config = OtttTrainingConfig { update, steps_per_pass };
    let (k_grads, k_out, k_state) = train(config, paths, constant);
    assert_close(&k_out.outputs, &out.outputs, "outputs");
    assert_close(&k_out.loss, &out.loss, "loss");
    assert_eq!(grads.len(), k_grads.len());
    for (i, (k, one)) in k_grads.iter().zip(&grads).enumerate() {
        assert!(one.abs().max().double_value(&[]) > 0.0, "gradient {i} says nothing");
        assert_close(k, one, &format!("gradient {i}"));
    }
    assert_eq!(state.len(), k_state.len());
    for (i, (k, one)) in k_state.iter().zip(&state).enumerate() {
        assert_close(k, one, &format!("state {i}"));
    }
}

#[test]
fn weights_get_what_was_gathered_before_the_loss_failed_and_none_move() {
    let vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new().add(ws_linear(vs.root(), 4, 2, Default::default()).unwrap());
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let (x, target) = (Tensor::rand([3, 5, 4], FLOAT), Tensor::rand([3, 5, 2], FLOAT));
    let weight = vs.variables()["weight"].copy();
    for (broken, message) in [(true, "no luck"), (false, "")] {
        let calls = Cell::new(0);
        let loss = |y: &Tensor, t: &Tensor| {
            calls.set(calls.get() + 1);
            assert!(!broken || calls.get() < 4, "{message}");
            mse(y, t)
        };
        let out = ottt_online_training(&mut net, &mut optimizer, &x, &target, loss, Update::EndOfSequence);
        assert_eq!(out.is_err(), broken);
        assert!(vs.variables()["weight"].grad().abs().max().double_value(&[]) > 0.0);
        assert_eq!(vs.variables()["weight"] == weight, broken);
    }
}

/// Counts its forward passes.
#[derive(Debug)]
struct Runs(nn::Linear, Arc<AtomicUsize>);

impl Layer for Runs {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.forward(x, train)
    }
}

impl Part for Runs {
    fn variables(&self) -> Vec<Variable> {
        self.0.variables()
    }

    fn properties(&self) -> Properties {
        Properties::default().affine()
    }
}

#[rstest]
#[case::weights_stand_still(Update::EndOfSequence, 1, true, 1)]
#[case::two_passes(Update::EndOfSequence, 3, true, 1)]
#[case::weights_move(Update::EveryStep, 1, true, 6)]
#[case::the_input_changes(Update::EndOfSequence, 1, false, 6)]
fn a_constant_input_goes_through_the_first_layer_once(
    #[case] update: Update,
    #[case] steps_per_pass: i64,
    #[case] constant: bool,
    #[case] expected: usize,
) {
    let (vs, runs) = (VarStore::new(Device::Cpu), Arc::new(AtomicUsize::new(0)));
    let first = nn::linear(vs.root() / 0, 4, 4, Default::default());
    let mut net = OtttSequential::new()
        .add(Identity)
        .add(Runs(first, runs.clone()))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(nn::linear(vs.root() / 2, 4, 2, Default::default()));
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let x = repeat_over_time(&Tensor::rand([3, 4], (Kind::Float, Device::Cpu)), 6).unwrap();
    let x = if constant { x } else { x.contiguous() };
    let target = Tensor::rand([3, 6, 2], (Kind::Float, Device::Cpu));
    let config = OtttTrainingConfig { update, steps_per_pass };
    let before = vs.variables()["0.weight"].copy();
    ottt_online_training(&mut net, &mut optimizer, &x, &target, mse, config).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), expected);
    assert_ne!(vs.variables()["0.weight"], before, "the first layer learned");
}

#[derive(Debug)]
struct Leaky(Memory);

impl OnlineModule for Leaky {
    fn pass(&mut self, x: &Signal, _: &Pass<'_>) -> Result<Signal> {
        let y = x.value() + self.0.get().map_or(Tensor::from(0.0), |memory| memory * 0.5);
        self.0.set(&y.detach());
        Ok(y.into())
    }
}

impl Part for Leaky {
    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.0]
    }
}

/// Says that it is samplewise, and keeps a state.
#[derive(Debug)]
struct Liar(Memory);

impl Layer for Liar {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.shallow_clone())
    }
}

impl Part for Liar {
    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.0]
    }

    fn properties(&self) -> Properties {
        Properties::default().samplewise()
    }
}

#[rstest]
#[case::batch_norm(|p: &nn::Path| OtttSequential::new().add(nn::batch_norm1d(p / "b", 4, Default::default())), "BatchNorm(4)")]
#[case::closure(|_: &nn::Path| OtttSequential::new().add(nn::func(|x| x - x.mean(Kind::Float))), "Func")]
#[case::stateful(|_: &nn::Path| OtttSequential::new().add(Leaky(Memory::default())), "Leaky")]
#[case::stateful_layer(|_: &nn::Path| OtttSequential::new().add(Liar(Memory::default())), "Liar")]
#[case::nested(|_: &nn::Path| OtttSequential::new().add(OtttSequential::new().add(Leaky(Memory::default()))), "Leaky")]
#[case::flatten(|_: &nn::Path| OtttSequential::new().add(Flatten { start_dim: 0, end_dim: 0 }), "Flatten")]
fn a_module_that_cannot_take_several_steps_is_named(
    #[case] build: fn(&nn::Path) -> OtttSequential,
    #[case] name: &str,
) {
    let vs = VarStore::new(Device::Cpu);
    let mut net = build(&vs.root()).add(nn::linear(vs.root() / "l", 4, 2, Default::default()));
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let x = Tensor::rand([3, 5, 4], (Kind::Float, Device::Cpu));
    let target = Tensor::rand([3, 5, 2], (Kind::Float, Device::Cpu));
    let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 2 };
    let error = ottt_online_training(&mut net, &mut optimizer, &x, &target, mse, config).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(name) && text.contains("set steps_per_pass to 1"), "{text}");
    ottt_online_training(&mut net, &mut optimizer, &x, &target, mse, Update::EndOfSequence).unwrap();
}

#[rstest]
#[case(Update::EveryStep, 2, "steps_per_pass is 2, expected 1 with Update::EveryStep")]
#[case(Update::EveryStep, 0, "steps_per_pass is 0, expected 1")]
#[case(Update::EndOfSequence, 0, "steps_per_pass is 0, expected at least 1")]
#[case(Update::EndOfSequence, -3, "steps_per_pass is -3, expected at least 1")]
fn steps_per_pass_out_of_range_is_an_error(
    #[case] update: Update,
    #[case] steps_per_pass: i64,
    #[case] message: &str,
) {
    let vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new().add(nn::linear(vs.root(), 4, 2, Default::default()));
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let x = Tensor::rand([3, 5, 4], (Kind::Float, Device::Cpu));
    let config = OtttTrainingConfig { update, steps_per_pass };
    let error = ottt_online_training(&mut net, &mut optimizer, &x, &x, mse, config).unwrap_err();
    assert!(error.to_string().starts_with(message), "{error}");
}

#[test]
fn a_neuron_refuses_a_batch_that_steps_do_not_divide() {
    let mut node = OtttLifNode::new(Default::default()).unwrap();
    let x = Tensor::rand([7, 2], (Kind::Float, Device::Cpu));
    let error = node.pass(&x.into(), &Pass::new(true).steps(2)).unwrap_err().to_string();
    assert!(error.contains("expected [2 * N, ...]"), "{error}");
}
