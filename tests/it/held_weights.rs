//! Weights that stand still for a while: what is made once meanwhile loses no gradient and is never out of date.

use rstest::rstest;
use spiketrace::train::{
    bptt_training, evaluate, ottt_online_training, repeat_over_time, sltt_k_training, Optimizer, Sgd,
    SgdConfig, Update,
};
use spiketrace::{
    with_fast_paths, ws_linear, FastPaths, Feedback, Layer, OnlineModule, OtttSequential, Result, Scale,
    Signal, SlttLifConfig, SlttLifNode,
};
use tch::nn::{self, OptimizerConfig, VarStore};
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

/// Steps with backward, by hand.
fn learn(net: &mut OtttSequential, x: &Signal, steps: usize) {
    for t in 0..steps {
        let y = net.step(x, true).unwrap().into_value();
        (&y * numbers(&y.size(), t)).sum(Kind::Double).backward();
    }
}

fn constant(seed: usize) -> Signal {
    Signal::Constant(numbers(&[3, 4], seed) * 2.0 + 1.0)
}

/// Runs `body` on two networks, one of them without fast paths, and compares the gradients that come of it.
fn assert_as_without_fast_paths(body: impl Fn(&VarStore, &mut OtttSequential)) {
    let run = |paths| {
        let (vs, mut net) = network();
        with_fast_paths(paths, || body(&vs, &mut net));
        (grads(&net), net)
    };
    let ((plain, net), (fast, _)) = (run(FastPaths::NONE), run(FastPaths::default()));
    assert_alike(&fast, &plain, &net);
}

#[test]
fn a_hold_inside_a_hold_keeps_what_was_gathered() {
    assert_as_without_fast_paths(|_, net| {
        let x = constant(1);
        net.hold_weights().unwrap();
        learn(net, &x, 2);
        net.hold_weights().unwrap();
        learn(net, &x, 1);
        net.release_weights().unwrap();
        learn(net, &x, 1);
        net.release_weights().unwrap();
    });
}

#[test]
fn evaluation_inside_a_hold_keeps_what_was_gathered_and_what_is_to_come() {
    assert_as_without_fast_paths(|_, net| {
        let x = constant(1);
        net.hold_weights().unwrap();
        learn(net, &x, 3);
        let y = net.step(&x, true).unwrap().into_value();
        let _ = evaluate(net, &sequence(5).0).unwrap();
        y.sum(Kind::Double).backward();
        learn(net, &x, 2);
        net.release_weights().unwrap();
    });
}

#[test]
fn inputs_that_change_inside_a_hold_keep_what_was_gathered() {
    assert_as_without_fast_paths(|_, net| {
        net.hold_weights().unwrap();
        learn(net, &constant(1), 2);
        learn(net, &constant(2), 2);
        let y = net.step(&constant(3), true).unwrap().into_value();
        learn(net, &constant(1), 1);
        y.sum(Kind::Double).backward();
        net.release_weights().unwrap();
    });
}

#[test]
fn an_input_changed_in_place_is_another_input() {
    assert_as_without_fast_paths(|_, net| {
        let x = numbers(&[3, 4], 1) * 2.0 + 1.0;
        net.hold_weights().unwrap();
        for _ in 0..3 {
            learn(net, &Signal::Constant(x.shallow_clone()), 2);
            let _ = x.shallow_clone().g_mul_scalar_(-0.75);
        }
        net.release_weights().unwrap();
    });
}

/// tch's SGD moves weights without libtorch's count of versions.
#[rstest]
fn training_inside_a_hold_learns(
    #[values(Update::EveryStep, Update::EndOfSequence)] update: Update,
    #[values(false, true)] tchs: bool,
) {
    let run = |paths| {
        let (vs, mut net) = network();
        let (x, target) = sequence(1);
        let mut sgd: Box<dyn Optimizer> = match tchs {
            true => Box::new(nn::Sgd::default().build(&vs, 0.05).unwrap()),
            false => Box::new(sgd(&vs, 0.05)),
        };
        with_fast_paths(paths, || {
            net.hold_weights().unwrap();
            let mut losses = Vec::new();
            for _ in 0..3 {
                let out = ottt_online_training(&mut net, &mut *sgd, &x, &target, mse, update).unwrap();
                losses.push(out.loss);
            }
            net.release_weights().unwrap();
            losses.extend(net.parameters().into_iter().map(|p| p.tensor.detach()));
            losses
        })
    };
    for (fast, plain) in run(FastPaths::default()).iter().zip(run(FastPaths::NONE)) {
        assert!(fast.allclose(&plain, 1e-9, 1e-11, false), "{fast} instead of {plain}");
    }
}

#[test]
fn a_release_without_a_hold_and_one_too_many_do_nothing() {
    assert_as_without_fast_paths(|_, net| {
        net.release_weights().unwrap();
        net.hold_weights().unwrap();
        learn(net, &constant(1), 3);
        net.release_weights().unwrap();
        net.release_weights().unwrap();
    });
}

/// A value that was made of frozen weights has no graph to learn by.
#[test]
fn weights_that_are_thawed_inside_a_hold_learn() {
    assert_as_without_fast_paths(|vs, net| {
        let freezes = |frozen: bool| {
            vs.trainable_variables().iter().for_each(|w| drop(w.set_requires_grad(!frozen)));
        };
        freezes(true);
        net.hold_weights().unwrap();
        drop(net.step(&constant(1), true).unwrap());
        freezes(false);
        learn(net, &constant(1), 3);
        net.release_weights().unwrap();
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

#[test]
fn an_answer_that_its_owner_changes_is_made_again() {
    assert_as_without_fast_paths(|_, net| {
        let mut first = OtttSequential::new().add(Scale(2.0));
        first.hold_weights().unwrap();
        let x = constant(1);
        for _ in 0..3 {
            let y = first.step(&x, false).unwrap().into_value();
            learn(net, &Signal::Constant(y.shallow_clone()), 1);
            let _ = y.shallow_clone().fill_(7.0);
        }
    });
}
