//! Connections one step back, against gradients by explicit sums and against the network unrolled.

mod gradients;
mod paths;

use rstest::rstest;
use spiketrace::train::{ottt_online_training, OtttTrainingConfig, Sgd, SgdConfig, Update};
use spiketrace::{
    Feedback, NdotLifConfig, NdotLifNode, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part,
    Role, Signal, SlttLifConfig, SlttLifNode,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, mse, numbers, DOUBLE};

const TIME_STEPS: i64 = 7;
const BATCH: i64 = 4;

fn node() -> OtttLifNode {
    OtttLifNode::new(OtttLifConfig { v_threshold: 0.5, ..Default::default() }).unwrap()
}

/// Whose trace the weights learn from.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Ottt,
    Ndot,
    /// None: the spike is its own trace.
    Sltt,
}

impl Rule {
    /// `net` with a neuron, all of the same dynamics.
    fn fire(self, net: OtttSequential) -> OtttSequential {
        let (v_threshold, v_reset, decay_input) = (0.5, None, false);
        match self {
            Self::Ottt => net.add(node()),
            Self::Ndot => {
                net.add(NdotLifNode::new(NdotLifConfig { v_threshold, ..Default::default() }).unwrap())
            }
            Self::Sltt => {
                let config = SlttLifConfig { v_threshold, v_reset, decay_input, ..Default::default() };
                net.add(SlttLifNode::new(config).unwrap())
            }
        }
    }
}

/// Input 5, first layer 8 with feedback from a second layer of 6 (`deep`) or from itself, readout 3.
struct Setting {
    vs: VarStore,
    net: OtttSequential,
    deep: bool,
    x: Tensor,
    target: Tensor,
}

fn setting(deep: bool, rule: Rule) -> Setting {
    let mut vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let linear = |name: &str, from, to| nn::linear(&p / name, from, to, Default::default());
    let from = if deep { 6 } else { 8 };
    let mut block = rule.fire(OtttSequential::new());
    if deep {
        block = rule.fire(block.add(linear("between", 8, 6)));
    }
    let net = OtttSequential::new()
        .add(linear("in", 5, 8))
        .add(Feedback::new(linear("back", from, 8), block))
        .add(linear("out", from, 3));
    vs.double();
    // Strong enough that what comes back matters.
    fill(&net, 0.7);
    let (x, target) = (numbers(&[BATCH, TIME_STEPS, 5], 20) * 3.0, numbers(&[BATCH, TIME_STEPS, 3], 21));
    Setting { vs, net, deep, x, target }
}

impl Setting {
    /// Copies of the weights and biases by the layer's name, asking for gradients.
    fn weights(&self) -> impl Fn(&str) -> (Tensor, Tensor) {
        let variables = self.vs.variables();
        let copies: std::collections::HashMap<String, Tensor> = variables
            .into_iter()
            .map(|(name, v)| (name, v.detach().copy().set_requires_grad(true)))
            .collect();
        move |name| {
            let get = |part: &str| copies[&format!("{name}.{part}")].shallow_clone();
            (get("weight"), get("bias"))
        }
    }

    fn sgd(&self, lr: f64) -> Sgd {
        Sgd::new(&self.vs.trainable_variables(), SgdConfig { lr, ..Default::default() }).unwrap()
    }

    fn layers(&self) -> Vec<&'static str> {
        if self.deep {
            vec!["in", "back", "between", "out"]
        } else {
            vec!["in", "back", "out"]
        }
    }
}

#[test]
fn reset_forgets_what_would_come_back() {
    let mut s = setting(true, Rule::Ottt);
    let first = s.net.step(&s.x.select(1, 0).into(), true).unwrap().into_value();
    s.net.step(&s.x.select(1, 1).into(), true).unwrap();
    s.net.reset();
    assert!(s.net.memories().into_iter().all(|memory| memory.get().is_none()));
    assert_eq!(s.net.step(&s.x.select(1, 0).into(), true).unwrap().into_value(), first);
}

#[test]
fn several_steps_at_once_are_refused() {
    let mut s = setting(false, Rule::Ottt);
    let mut sgd = s.sgd(0.1);
    let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 2 };
    let error = ottt_online_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, config).unwrap_err();
    assert!(error.to_string().contains("takes one time step at a time"), "{error}");
}

#[rstest]
#[case::another_batch([2, 5].as_slice(), "call reset() between sequences")]
#[case::another_width([4, 6].as_slice(), "has shape [4, 6]")]
fn a_wrong_input_is_an_error_with_its_place(#[case] size: &[i64], #[case] words: &str) {
    let mut s = setting(false, Rule::Ottt);
    s.net.step(&s.x.select(1, 0).into(), true).unwrap();
    let error = s.net.step(&Tensor::ones(size, DOUBLE).into(), true).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_pair_and_a_connection_of_the_wrong_width_are_errors() {
    let vs = VarStore::new(Device::Cpu);
    let back = nn::linear(vs.root(), 8, 7, Default::default());
    let mut layer = Feedback::new(back, OtttLifNode::new(Default::default()).unwrap());
    let x = Tensor::ones([4, 8], (Kind::Float, Device::Cpu));
    let pair = Signal::SpikeTrace { spike: x.shallow_clone(), trace: x.shallow_clone() };
    let error = layer.step(&pair, true).unwrap_err().to_string();
    assert!(error.contains("expected a dense signal"), "{error}");
    layer.step(&(&x).into(), true).unwrap();
    let error = layer.step(&(&x).into(), true).unwrap_err().to_string();
    assert!(error.contains("what Feedback's connection gives has shape [4, 7], expected [4, 8]"), "{error}");
}

#[test]
fn running_statistics_on_both_ways_are_part_of_the_state() {
    let vs = VarStore::new(Device::Cpu);
    let block =
        OtttSequential::new().add(nn::batch_norm1d(vs.root() / "forth", 4, Default::default())).add(node());
    let net = Feedback::new(nn::batch_norm1d(vs.root() / "back", 4, Default::default()), block);
    let names: Vec<_> =
        net.variables().into_iter().filter(|v| v.role == Role::Buffer).map(|v| v.name).collect();
    let expected =
        ["connection", "block.0"].map(|part| ["mean", "var"].map(|of| format!("{part}.running_{of}")));
    assert_eq!(names, expected.concat());
}
