//! A neuron's state is its own: no step changes a tensor that somebody else holds, and none is changed by others.

use std::sync::Arc;

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::surrogate::Surrogate;
use spiketrace::{
    Error, NdotLifNode, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, Pass, Result, Scale,
    Signal, SlttLifNode,
};
use tch::Tensor;

use crate::common::{numbers, FLOAT};

/// A derivative that only libtorch's operations know: steps of its neurons are composed.
#[derive(Debug)]
struct Triangle;

impl Surrogate for Triangle {
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_abs()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?)
    }
}

fn ottt() -> OtttLifNode {
    OtttLifNode::new(Default::default()).unwrap()
}

fn nodes() -> [Box<dyn OnlineModule>; 5] {
    let composed = OtttLifConfig { surrogate: Arc::new(Triangle), ..Default::default() };
    [
        Box::new(ottt()),
        Box::new(SlttLifNode::new(Default::default()).unwrap()),
        Box::new(NdotLifNode::new(Default::default()).unwrap()),
        Box::new(OtttLifNode::new(composed).unwrap()),
        // A trace that goes out scaled has memory of its own, which is written in place.
        Box::new(OtttSequential::new().add(ottt()).add(Scale(2.5))),
    ]
}

fn input(t: usize) -> Tensor {
    numbers(&[4, 3], t).to_kind(tch::Kind::Float) + 0.75
}

fn step(node: &mut (impl OnlineModule + ?Sized), t: usize) -> Signal {
    node.step(&input(t).into(), true).unwrap()
}

#[test]
fn a_handle_of_the_state_keeps_its_values() {
    for mut node in nodes() {
        let mut held: Vec<(Tensor, Tensor)> = Vec::new();
        for t in 0..5 {
            let signal = step(&mut *node, t);
            let memories =
                node.memories().into_iter().filter_map(|m| m.get()).map(|memory| memory.shallow_clone());
            let tensors = memories.chain([signal.value().shallow_clone()]);
            held.extend(tensors.chain(signal.trace().map(Tensor::shallow_clone)).map(|t| (t.copy(), t)));
        }
        held.iter().for_each(|(copy, tensor)| assert_eq!(copy, tensor, "{node:?}"));
    }
}

#[test]
fn a_state_that_was_set_is_never_written_to() {
    for mut node in nodes() {
        step(&mut *node, 0);
        let set: Vec<Tensor> = (0..node.memories().len()).map(|i| input(10 + i)).collect();
        node.memories().into_iter().zip(&set).for_each(|(memory, t)| memory.set(t));
        (1..4).for_each(|t| drop(step(&mut *node, t)));
        set.iter().enumerate().for_each(|(i, tensor)| assert_eq!(tensor, &input(10 + i), "{node:?}"));
    }
}

#[test]
fn two_neurons_may_share_a_state_that_was_set() {
    let (mut giver, mut taker) = (ottt(), ottt());
    step(&mut giver, 0);
    taker.set_v(giver.v().unwrap());
    taker.set_trace(giver.trace().unwrap());
    let before = (taker.v().unwrap().copy(), taker.trace().unwrap().copy());
    (1..4).for_each(|t| drop(step(&mut giver, t)));
    assert_eq!((taker.v().unwrap(), taker.trace().unwrap()), (&before.0, &before.1));
}

#[test]
fn a_spike_changed_in_place_does_not_change_the_state() {
    for mut node in nodes() {
        let signal = step(&mut *node, 0);
        let copies = |node: &mut dyn OnlineModule| -> Vec<Tensor> {
            node.memories().into_iter().filter_map(|m| m.get()).map(|memory| memory.copy()).collect()
        };
        let before = copies(&mut *node);
        let _ = signal.into_value().detach().fill_(7.0);
        assert_eq!(copies(&mut *node), before, "{node:?}");
    }
}

/// Its own potential, and a part of a tensor that the potential is another part of.
#[rstest]
fn a_neurons_potential_may_be_its_input(#[values(false, true)] part: bool) {
    let run = |paths| {
        with_fast_paths(paths, || {
            let mut node = ottt();
            let whole = numbers(&[6], 1).to_kind(tch::Kind::Float);
            node.set_v(&whole.narrow(0, 0, 4));
            let x = if part { whole.narrow(0, 2, 4) } else { node.v().unwrap().shallow_clone() };
            let spike = node.step(&x.into(), true)?.into_value();
            assert_eq!(whole, numbers(&[6], 1).to_kind(tch::Kind::Float));
            Ok::<_, Error>((spike, node.v().unwrap().copy()))
        })
    };
    assert_eq!(run(FastPaths::default()).unwrap(), run(FastPaths::NONE).unwrap());
}

/// Memory is used again where nobody else sees it: this is what online steps live on.
#[test]
fn a_potential_that_nobody_else_holds_stays_in_its_place() {
    let mut node = ottt();
    step(&mut node, 0);
    let place = node.v().unwrap().data_ptr();
    for t in 1..4 {
        step(&mut node, t);
        node.detach();
        assert_eq!(node.v().unwrap().data_ptr(), place);
    }
}

#[rstest]
fn no_steps_are_refused_and_leave_no_state(#[values(0, -1)] count: i64, #[values(false, true)] train: bool) {
    for signal in [Signal::Dense(Tensor::rand([4, 3], FLOAT)), Signal::Constant(Tensor::rand([4, 3], FLOAT))]
    {
        for mut node in nodes() {
            let error = node.pass(&signal, &Pass::new(train).steps(count)).unwrap_err().to_string();
            let words = [format!("count of time steps is {count}"), "one time step at a time".to_owned()];
            assert!(words.iter().any(|words| error.contains(words)), "{error}");
            assert!(node.memories().into_iter().all(|memory| memory.get().is_none()), "{node:?}");
        }
        let error = Scale(2.0).pass(&signal, &Pass::new(train).steps(count)).unwrap_err().to_string();
        assert!(error.contains("Scale(2)'s count of time steps is"), "{error}");
    }
}

/// A tensor over memory of the caller's, which libtorch does not count the owners of.
#[test]
#[allow(unsafe_code)]
fn memory_that_is_not_libtorchs_is_not_written_to() {
    let mine = [0.5f32, 0.25];
    let mut node = ottt();
    // SAFETY: two numbers that outlive the tensor, which nobody writes to: that is what the test is about.
    let v =
        unsafe { Tensor::from_blob(mine.as_ptr().cast(), &[2], &[1], tch::Kind::Float, tch::Device::Cpu) };
    node.set_v(&v);
    drop(v);
    node.step(&Tensor::from_slice(&[2.0f32, 3.0]).into(), true).unwrap();
    assert_eq!(std::hint::black_box(&mine), &[0.5, 0.25]);
}

/// libtorch keeps the negative of a tensor as a flag where it can.
#[test]
fn a_negated_view_is_taken_by_its_values() {
    let x = Tensor::from_slice(&[-2.0f32, 3.0, -4.0]).internal_neg_view();
    let run = |paths| with_fast_paths(paths, || ottt().step(&(&x).into(), true).unwrap().into_value());
    assert_eq!(run(FastPaths::NONE), run(FastPaths::default()));
}

#[test]
fn ndot_leaves_its_state_where_a_memory_does_not_fit() {
    let mut node = NdotLifNode::new(Default::default()).unwrap();
    (0..2).for_each(|t| drop(step(&mut node, t)));
    let v = node.v().unwrap().copy();
    node.memories()[2].set(&Tensor::from_slice(&[1.0f32, 2.0, 3.0]));
    let error = node.step(&input(2).into(), true).unwrap_err().to_string();
    assert!(error.contains("NdotLifNode's ratio of potentials was left by an input"), "{error}");
    assert_eq!(node.v().unwrap(), &v);
}
