//! Parts and rules of a user's own, in the company of ours.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{ottt_online_training, OtttTrainingConfig, Sgd, SgdConfig, Update};
use spiketrace::{
    GradWithTrace, LifConfig, LifNode, LifStep, Memory, NdotLifNode, OnlineModule, OtttLifNode,
    OtttSequential, Part, Pass, Properties, Residual, Result, Rule, Scale, Signal, SlttLifNode, Trace,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, numbers, FLOAT};

fn ottt() -> OtttLifNode {
    OtttLifNode::new(Default::default()).unwrap()
}

/// The readout's gradient after two steps of a firing neuron and `between`, with and without fast paths.
fn gradients(between: impl Fn(OtttSequential) -> OtttSequential) -> [f64; 2] {
    [FastPaths::default(), FastPaths::NONE].map(|paths| {
        with_fast_paths(paths, || {
            let vs = VarStore::new(Device::Cpu);
            let readout = nn::linear(vs.root(), 1, 1, Default::default());
            let weight = readout.ws.shallow_clone();
            let mut net = between(OtttSequential::new()).add(readout);
            let x: Signal = Tensor::from_slice(&[1.5f32]).view([1, 1]).into();
            net.step(&x, true).unwrap();
            net.step(&x, true).unwrap().value().sum(Kind::Float).backward();
            weight.grad().double_value(&[0, 0])
        })
    })
}

/// A neuron that is watched: what it is, it is as before.
#[derive(Debug)]
struct Logged(OtttLifNode);

impl Part for Logged {
    fn memories(&mut self) -> Vec<&mut Memory> {
        self.0.memories()
    }

    fn properties(&self) -> Properties {
        self.0.properties()
    }
}

impl OnlineModule for Logged {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        self.0.step(x, pass.train)
    }
}

#[test]
fn what_multiplies_by_hand_or_inside_a_users_module_is_not_left_out() {
    assert_eq!(gradients(|net| net.add(ottt()).add(Scale(2.0))), [3.0, 3.0]);
    // A dense signal leaves the wrapper: the readout learns from the spike.
    assert_eq!(gradients(|net| net.add(ottt()).add(GradWithTrace::new(Scale(2.0)))), [2.0, 2.0]);
    assert_eq!(gradients(|net| net.add(Logged(ottt())).add(Scale(2.0))), [3.0, 3.0]);
}

/// Counts its steps, in no tensor.
#[derive(Debug, Default)]
struct Clock(i64);

impl Part for Clock {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

impl OnlineModule for Clock {
    fn pass(&mut self, x: &Signal, _: &Pass<'_>) -> Result<Signal> {
        self.0 += 1;
        Ok(Signal::Dense(x.value() * self.0 as f64))
    }
}

#[rstest]
#[case::in_a_container(|| Box::new(OtttSequential::new().add(Clock::default())) as Box<dyn OnlineModule>)]
#[case::in_a_skip_connection(|| Box::new(Residual::with_shortcut(Clock::default(), Scale(0.0))) as Box<dyn OnlineModule>)]
#[case::in_feedback(|| Box::new(spiketrace::Feedback::new(Scale(0.0), Clock::default())) as Box<dyn OnlineModule>)]
#[case::boxed(|| Box::new(Clock::default()) as Box<dyn OnlineModule>)]
fn a_state_that_is_no_tensor_is_reset_too(#[case] build: fn() -> Box<dyn OnlineModule>) {
    let (mut net, x) = (build(), Signal::from(Tensor::ones([1, 1], FLOAT)));
    let value = |net: &mut Box<dyn OnlineModule>| net.step(&x, true).unwrap().value().double_value(&[0, 0]);
    assert_eq!([value(&mut net), value(&mut net)], [1.0, 2.0]);
    net.reset();
    assert_eq!(value(&mut net), 1.0);
}

/// Takes each sample by itself, and says so.
#[derive(Debug)]
struct Doubles;

impl Part for Doubles {
    fn properties(&self) -> Properties {
        Properties::default().samplewise()
    }
}

impl OnlineModule for Doubles {
    fn pass(&mut self, x: &Signal, _: &Pass<'_>) -> Result<Signal> {
        Ok(Signal::Dense(x.value() * 2.0))
    }
}

#[test]
fn a_samplewise_module_takes_several_steps_by_itself_and_in_a_container() {
    let w = Tensor::zeros([1], FLOAT).set_requires_grad(true);
    let mut sgd = Sgd::new([&w], SgdConfig::default()).unwrap();
    let (x, target) = (Tensor::rand([2, 4, 3], FLOAT), Tensor::rand([2, 4, 3], FLOAT));
    let loss = |y: &Tensor, t: &Tensor| mse(&(y + &w), t);
    let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 2 };
    let mut outputs = |net: &mut dyn OnlineModule| {
        ottt_online_training(net, &mut sgd, &x, &target, loss, config).unwrap().outputs
    };
    assert_eq!(outputs(&mut Doubles), outputs(&mut OtttSequential::new().add(Doubles)));
    let constant = Residual::new(Doubles).pass(&Signal::Constant(x.select(1, 0)), &Pass::new(true).steps(3));
    assert_eq!(constant.unwrap().value().size(), [6, 3]);
}

/// Keeps a rate, and answers as it is told.
#[derive(Debug)]
struct Rate {
    rate: Memory,
    answer: fn(&Tensor) -> Tensor,
}

impl Rule for Rate {
    const NODE: &'static str = "RateLifNode";

    fn trace(&self, _: &LifConfig) -> Trace {
        Trace::Own
    }

    fn next_trace(&mut self, step: &LifStep<'_>) -> Result<Tensor> {
        self.rate.set(&step.spike.f_mean(Kind::Float)?);
        Ok((self.answer)(step.spike))
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.rate]
    }
}

fn rate(answer: fn(&Tensor) -> Tensor) -> LifNode<Rate> {
    LifNode::with_rule(Rate { rate: Memory::default(), answer }, LifConfig::default()).unwrap()
}

#[test]
fn a_rule_may_keep_a_state_of_any_shape() {
    let (mut node, x) = (rate(Tensor::copy), (numbers(&[4, 3], 1) + 0.8).into());
    let traces = (0..3).map(|_| node.step(&x, true).unwrap().trace().unwrap().size());
    assert_eq!(traces.collect::<Vec<_>>(), [[4, 3]; 3]);
}

#[test]
fn a_trace_of_another_shape_or_none_is_named_and_leaves_the_state() {
    for answer in [|s: &Tensor| s.sum(Kind::Float), |_: &Tensor| Tensor::new()] {
        let (mut node, x) = (rate(answer), Signal::from(Tensor::ones([2, 3], FLOAT)));
        let error = node.step(&x, true).unwrap_err().to_string();
        assert!(error.starts_with("RateLifNode's next trace"), "{error}");
        assert!(node.memories().into_iter().all(|memory| memory.get().is_none()), "{node:?}");
    }
}

/// A potential and a trace that somebody computed: they are data.
#[test]
fn no_graph_goes_from_step_to_step_by_a_state_that_was_set() {
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let mut node = NdotLifNode::new(Default::default()).unwrap();
    let computed = || (numbers(&[3, 8], 1).to_kind(Kind::Float).set_requires_grad(true) * 0.5).abs();
    node.set_v(&computed());
    node.set_trace(&computed());
    let mut net = OtttSequential::new()
        .add(nn::linear(&p / 0, 4, 8, Default::default()))
        .add(node)
        .add(nn::linear(&p / 2, 8, 2, Default::default()));
    let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default()).unwrap();
    let (x, target) = (Tensor::rand([3, 5, 4], FLOAT), Tensor::rand([3, 5, 2], FLOAT));
    ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EveryStep).unwrap();
    assert!(net.memories().into_iter().all(|memory| !memory.get().unwrap().requires_grad()));
}

#[test]
fn a_trace_set_where_the_rule_has_none_is_nobodys() {
    let mut node = SlttLifNode::new(Default::default()).unwrap();
    node.set_trace(&Tensor::zeros([5], FLOAT));
    node.step(&Tensor::zeros([3], FLOAT).into(), true).unwrap();
}
