//! Weights that stand still for a while: what is made once meanwhile loses no gradient and is never out of date.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{
    bptt_training, evaluate, ottt_online_training, repeat_over_time, sltt_k_training, Optimizer, Sgd,
    SgdConfig, Update,
};
use spiketrace::{
    ws_linear, Feedback, Layer, Memory, OnlineModule, OtttSequential, Part, Pass, Properties, Result, Scale,
    Signal, SlttLifConfig, SlttLifNode, Variable,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, mse, numbers};

/// Layers in front of containers, standardized and plain, two levels deep: all see a constant input.
fn nested(vs: &VarStore) -> OtttSequential {
    let p = vs.root();
    let lively = SlttLifConfig { v_threshold: -0.5, decay_input: false, ..Default::default() };
    let innermost = OtttSequential::new()
        .add(ws_linear(&p / "innermost", 6, 5, Default::default()).unwrap())
        .add(Feedback::new(ws_linear(&p / "back", 4, 5, Default::default()).unwrap(), {
            OtttSequential::new()
                .add(nn::linear(&p / "block", 5, 4, Default::default()))
                .add(SlttLifNode::new(lively).unwrap())
        }));
    let inner = OtttSequential::new()
        .add(Scale(1.5))
        .add(nn::linear(&p / "inner", 8, 6, Default::default()))
        .add(innermost)
        .add(nn::linear(&p / "readout", 4, 2, Default::default()));
    OtttSequential::new().add(ws_linear(&p / "stem", 4, 8, Default::default()).unwrap()).add(inner)
}

fn network() -> (VarStore, OtttSequential) {
    let mut vs = VarStore::new(Device::Cpu);
    let net = nested(&vs);
    vs.double();
    fill(&net, 1.0);
    (vs, net)
}

fn sgd(vs: &VarStore, lr: f64) -> Sgd {
    Sgd::new(&vs.trainable_variables(), SgdConfig { lr, ..Default::default() }).unwrap()
}

/// One image, shown for five steps, and a target.
fn sequence(seed: usize) -> (Tensor, Tensor) {
    (repeat_over_time(&(numbers(&[3, 4], seed) * 2.0 + 1.0), 5).unwrap(), numbers(&[3, 5, 2], seed + 1))
}

fn grads(net: &OtttSequential) -> Vec<Tensor> {
    net.parameters().into_iter().map(|p| p.tensor.grad()).collect()
}

fn assert_alike(got: &[Tensor], expected: &[Tensor], net: &OtttSequential) {
    for ((got, expected), p) in got.iter().zip(expected).zip(net.parameters()) {
        assert_eq!(got.defined(), expected.defined(), "{} has a gradient in one way only", p.name);
        assert!(expected.abs().max().double_value(&[]) > 0.0, "the gradient of {} says nothing", p.name);
        assert!(got.allclose(expected, 1e-10, 1e-12, false), "{}: {got} instead of {expected}", p.name);
    }
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Ottt,
    Bptt,
    SlttK,
}

#[rstest]
fn layers_in_front_of_nested_containers_learn_from_a_repeated_input(
    #[values(Rule::Ottt, Rule::Bptt, Rule::SlttK)] rule: Rule,
) {
    let run = |paths| {
        let (vs, mut net) = network();
        let (mut sgd, (x, target)) = (sgd(&vs, 0.0), sequence(1));
        tch::manual_seed(7);
        with_fast_paths(paths, || match rule {
            Rule::Ottt => ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EndOfSequence),
            Rule::Bptt => bptt_training(&mut net, &mut sgd, &x, &target, mse),
            Rule::SlttK => sltt_k_training(&mut net, &mut sgd, &x, &target, mse, 4),
        })
        .unwrap();
        (grads(&net), net)
    };
    // The drawn steps of SLTT-K are those of the generator, which other tests draw from too.
    if let Rule::SlttK = rule {
        let (found, net) = run(FastPaths::default());
        return found
            .iter()
            .zip(net.parameters())
            .for_each(|(grad, p)| assert!(grad.defined(), "{}", p.name));
    }
    let ((plain, net), (fast, _)) = (run(FastPaths::NONE), run(FastPaths::default()));
    assert_alike(&fast, &plain, &net);
}

/// Something done to a network before its n-th step.
type Meddling = Box<dyn FnMut(&mut OtttSequential, usize) + Send>;

/// A network that has something done to it in the middle of a sequence.
struct Meddled {
    net: OtttSequential,
    step: usize,
    meddle: Meddling,
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.net.fmt(f)
    }
}

impl Part for Meddled {
    fn variables(&self) -> Vec<Variable> {
        self.net.variables()
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        self.net.memories()
    }

    fn properties(&self) -> Properties {
        self.net.properties()
    }
}

impl OnlineModule for Meddled {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        self.step += 1;
        (self.meddle)(&mut self.net, self.step);
        self.net.pass(x, pass)
    }
}

/// Trains a network on a sequence of an image that is shown for five steps, with and without fast paths, while `meddle`
/// does something to it, and compares the gradients that come of it.
fn assert_as_without_fast_paths<M>(meddle: impl Fn(&VarStore, Tensor) -> M)
where
    M: FnMut(&mut OtttSequential, usize) + Send + 'static,
{
    let run = |paths| {
        let (vs, net) = network();
        let (mut sgd, (x, target)) = (sgd(&vs, 0.0), sequence(1));
        let meddle = Box::new(meddle(&vs, x.shallow_clone()));
        let mut net = OtttSequential::new().add(Meddled { net, step: 0, meddle });
        with_fast_paths(paths, || {
            ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EndOfSequence).unwrap()
        });
        (grads(&net), net)
    };
    let ((plain, net), (fast, _)) = (run(FastPaths::NONE), run(FastPaths::default()));
    assert_alike(&fast, &plain, &net);
}

#[test]
fn evaluation_inside_a_sequence_keeps_what_was_gathered_and_what_is_to_come() {
    assert_as_without_fast_paths(|_, _| {
        |net: &mut OtttSequential, step| {
            if step % 2 == 0 {
                let _ = evaluate(net, &sequence(5).0).unwrap();
            }
        }
    });
}

#[rstest]
fn training_inside_a_sequence_learns(#[values(Update::EveryStep, Update::EndOfSequence)] update: Update) {
    assert_as_without_fast_paths(|vs, _| {
        let mut own = sgd(vs, 1e-3);
        move |net: &mut OtttSequential, step| {
            // Before the sequence has gathered anything: after that, its weights stand still.
            if step == 1 {
                let (x, target) = sequence(9);
                ottt_online_training(net, &mut own, &x, &target, mse, update).unwrap();
                own.zero_grad().unwrap();
                net.reset();
            }
        }
    });
}

#[test]
fn an_input_changed_in_place_is_another_input() {
    assert_as_without_fast_paths(|_, x| {
        move |_: &mut OtttSequential, step| {
            if step == 3 {
                let _ = x.select(1, 0).g_mul_scalar_(-0.75);
            }
        }
    });
}

#[test]
fn another_input_inside_a_sequence_keeps_what_was_gathered() {
    assert_as_without_fast_paths(|_, _| {
        |net: &mut OtttSequential, step| {
            let other = Signal::Constant(numbers(&[3, 4], step) * 2.0 + 1.0);
            let y = net.step(&other, true).unwrap().into_value();
            (&y * numbers(&y.size(), step)).sum(Kind::Double).backward();
        }
    });
}

/// A value that was made of frozen weights has no graph to learn by.
#[test]
fn weights_that_are_thawed_inside_a_sequence_learn() {
    assert_as_without_fast_paths(|vs, _| {
        // The readout learns from the beginning, or the loss would depend on nothing.
        let first: Vec<Tensor> = vs
            .variables()
            .into_iter()
            .filter(|(name, _)| !name.starts_with("readout"))
            .map(|(_, w)| w)
            .collect();
        move |_: &mut OtttSequential, step| {
            first.iter().for_each(|w| drop(w.set_requires_grad(step > 2)));
        }
    });
}

/// A layer that changes its input in place, as `x.relu_()` would.
#[derive(Debug)]
struct InPlace;

impl Layer for InPlace {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        let mut y = x.shallow_clone();
        let _ = y.f_add_scalar_(0.25)?;
        Ok(y)
    }
}

impl Part for InPlace {}

/// The held answer of the first modules is not theirs to change, in the container or in one inside it.
#[rstest]
fn a_layer_that_works_in_place_after_a_held_head_changes_nothing(
    #[values(false, true)] frozen: bool,
    #[values(false, true)] inside: bool,
) {
    let run = |paths| {
        let mut vs = VarStore::new(Device::Cpu);
        let p = vs.root();
        let first = nn::linear(&p / "first", 4, 6, Default::default());
        let lively = SlttLifConfig { v_threshold: 0.2, ..Default::default() };
        let rest = OtttSequential::new().add(InPlace).add(SlttLifNode::new(lively).unwrap());
        let net = OtttSequential::new().add(first);
        let net = if inside { net.add(rest) } else { net.add(InPlace).add(rest) };
        let mut net = net.add(nn::linear(&p / "readout", 6, 2, Default::default()));
        vs.double();
        fill(&net, 1.0);
        for (name, w) in vs.variables() {
            let _ = w.set_requires_grad(!(frozen && name.starts_with("first")));
        }
        let (mut sgd, (x, target)) = (sgd(&vs, 0.0), sequence(1));
        let train = || ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EndOfSequence);
        with_fast_paths(paths, train).unwrap().outputs
    };
    let (fast, plain) = (run(FastPaths::default()), run(FastPaths::NONE));
    assert!(fast.allclose(&plain, 1e-10, 1e-12, false), "{fast} instead of {plain}");
}
