//! What a container asks of its parts: once, when they are added.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use spiketrace::{
    Layer, Memory, OnlineModule, OtttLifNode, OtttSequential, Part, Properties, Result, Scale, Variable,
};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

use crate::common::FLOAT;

/// A layer that counts how often it is asked what it is.
#[derive(Debug)]
struct Asked(Tensor, Arc<AtomicUsize>);

impl Asked {
    fn count(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

impl Part for Asked {
    fn name(&self) -> String {
        self.count();
        "Asked".to_owned()
    }

    fn variables(&self) -> Vec<Variable> {
        self.count();
        vec![Variable::parameter("weight", &self.0)]
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        self.count();
        Vec::new()
    }

    fn properties(&self) -> Properties {
        self.count();
        Properties::default().samplewise()
    }
}

impl Layer for Asked {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.f_mul(&self.0)?)
    }
}

#[test]
fn no_step_asks_a_part_what_it_is() {
    let asked = Arc::new(AtomicUsize::new(0));
    let weight = Tensor::ones([4], FLOAT).set_requires_grad(true);
    let inner = OtttSequential::new()
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Asked(weight, asked.clone()));
    let mut net = OtttSequential::new().add(inner);
    let before = asked.load(Ordering::Relaxed);
    assert!(before > 0);
    let x = (Tensor::rand([3, 4], FLOAT) + 0.5).into();
    (0..3).for_each(|_| drop(net.step(&x, true).unwrap()));
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[test]
fn a_step_in_evaluation_allocates_nothing_of_its_own() {
    let vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new()
        .add(nn::linear(vs.root() / 0, 4, 6, Default::default()))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.5))
        .add(OtttSequential::new().add(nn::linear(vs.root() / 1, 6, 2, Default::default())));
    let x = Tensor::rand([1, 4], FLOAT).into();
    let _no_grad = tch::no_grad_guard();
    drop(net.step(&x, false).unwrap());
    let allocated = allocation_counter::measure(|| (0..10).for_each(|_| drop(net.step(&x, false).unwrap())));
    assert_eq!(allocated.count_total, 0);
}

/// A program that uses tch's modules imports these.
#[test]
fn tchs_traits_beside_ours_leave_no_call_ambiguous() {
    use tch::nn::{Module, ModuleT};
    let vs = VarStore::new(Device::Cpu);
    let (mut plain, x) = (nn::linear(vs.root() / 0, 4, 2, Default::default()), Tensor::rand([3, 4], FLOAT));
    let sequence = nn::seq().add(nn::linear(vs.root() / 1, 4, 2, Default::default()));
    let norm = nn::batch_norm1d(vs.root() / 2, 4, Default::default());
    assert_eq!(plain.forward(&x), plain.forward_t(&x, true));
    assert_eq!((norm.forward_t(&x, false).size(), sequence.forward(&x).size()), (vec![3, 4], vec![3, 2]));
    let ours = plain.step(&(&x).into(), true).unwrap().into_value();
    assert_eq!((plain.name(), ours), ("Linear(4 -> 2)".to_owned(), plain.forward(&x)));
    assert_eq!(Layer::forward(&mut plain, &x, true).unwrap(), plain.forward(&x));
}
