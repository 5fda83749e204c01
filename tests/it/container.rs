//! `OtttSequential`: which wrapper, which signal, whose state, which parameters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use rstest::rstest;
use spiketrace::train::{ottt_online_training, repeat_over_time, Update};
use spiketrace::{
    with_parameters, ws_conv2d, ws_linear, AvgPool2d, Dropout, Flatten, GradWithTrace, Identity, Layer,
    Memory, OnlineModule, OtttLifNode, OtttSequential, Part, Pass, Result, Scale, Signal, SlttLifNode,
    SpikeTraceOp, Variable,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, FLOAT};

fn ottt() -> OtttLifNode {
    OtttLifNode::new(Default::default()).unwrap()
}

fn linear(vs: &VarStore, name: i64, from: i64, to: i64) -> nn::Linear {
    nn::linear(vs.root() / name, from, to, Default::default())
}

/// A spike with its trace, of the given shape.
fn pair(shape: &[i64]) -> (Tensor, Tensor) {
    let spike = Tensor::full(shape, 0.4, FLOAT).bernoulli();
    let trace = &spike + Tensor::rand(shape, FLOAT);
    (spike, trace)
}

fn signal((spike, trace): &(Tensor, Tensor)) -> Signal {
    Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() }
}

fn boxed(module: impl OnlineModule + 'static) -> Box<dyn OnlineModule> {
    Box::new(module)
}

/// Modules that know no trace: for each the input's shape and whether it has parameters.
#[rstest]
#[case::linear(&[3, 4], true, |vs: &VarStore| boxed(nn::linear(vs.root(), 4, 2, Default::default())))]
#[case::conv1d(&[3, 2, 6], true, |vs: &VarStore| boxed(nn::conv1d(vs.root(), 2, 3, 3, Default::default())))]
#[case::conv2d(&[3, 2, 6, 6], true, |vs: &VarStore| boxed(nn::conv2d(vs.root(), 2, 3, 3, Default::default())))]
#[case::conv3d(&[3, 2, 5, 5, 5], true, |vs: &VarStore| boxed(nn::conv3d(vs.root(), 2, 3, 3, Default::default())))]
#[case::conv_transpose1d(&[3, 2, 6], true, |vs: &VarStore| {
    boxed(nn::conv_transpose1d(vs.root(), 2, 3, 3, Default::default()))
})]
#[case::conv_transpose2d(&[3, 2, 6, 6], true, |vs: &VarStore| {
    boxed(nn::conv_transpose2d(vs.root(), 2, 3, 3, Default::default()))
})]
#[case::conv_transpose3d(&[3, 2, 5, 5, 5], true, |vs: &VarStore| {
    boxed(nn::conv_transpose3d(vs.root(), 2, 3, 3, Default::default()))
})]
#[case::batch_norm1d(&[5, 3], true, |vs: &VarStore| boxed(nn::batch_norm1d(vs.root(), 3, Default::default())))]
#[case::batch_norm2d(&[3, 2, 6, 6], true, |vs: &VarStore| boxed(nn::batch_norm2d(vs.root(), 2, Default::default())))]
#[case::batch_norm3d(&[3, 2, 4, 4, 4], true, |vs: &VarStore| boxed(nn::batch_norm3d(vs.root(), 2, Default::default())))]
#[case::layer_norm(&[3, 4], true, |vs: &VarStore| boxed(nn::layer_norm(vs.root(), vec![4], Default::default())))]
#[case::group_norm(&[3, 4, 5], true, |vs: &VarStore| boxed(nn::group_norm(vs.root(), 2, 4, Default::default())))]
#[case::ws_linear(&[3, 4], true, |vs: &VarStore| boxed(ws_linear(vs.root(), 4, 2, Default::default()).unwrap()))]
#[case::ws_conv2d(&[3, 2, 6, 6], true, |vs: &VarStore| {
    boxed(ws_conv2d(vs.root(), 2, 3, 3, Default::default()).unwrap())
})]
#[case::other_module(&[3, 4], true, |vs: &VarStore| {
    let linear = nn::linear(vs.root(), 4, 2, Default::default());
    let parameters = vec![Variable::parameter("weight", &linear.ws)];
    boxed(with_parameters("Block", nn::seq().add(linear).add_fn(Tensor::tanh), parameters))
})]
#[case::closure(&[3, 4], false, |_: &VarStore| boxed(nn::func(|x| x.tanh())))]
#[case::closure_t(&[3, 4], false, |_: &VarStore| boxed(nn::func_t(|x, train| if train { x * 2.0 } else { x * 1.0 })))]
#[case::scale(&[3, 4], false, |_: &VarStore| boxed(Scale(2.5)))]
#[case::pool(&[3, 2, 6, 6], false, |_: &VarStore| boxed(AvgPool2d::new(2, Default::default()).unwrap()))]
#[case::dropout(&[3, 4], false, |_: &VarStore| boxed(Dropout::new(0.5).unwrap()))]
#[case::flatten(&[3, 2, 2], false, |_: &VarStore| boxed(Flatten::default()))]
#[case::identity(&[3, 4], false, |_: &VarStore| boxed(Identity))]
fn a_module_is_wrapped_as_its_parameters_ask(
    #[case] shape: &[i64],
    #[case] weighted: bool,
    #[case] make: fn(&VarStore) -> Box<dyn OnlineModule>,
) {
    let vs = VarStore::new(Device::Cpu);
    let mut module = make(&vs);
    let table = OtttSequential::new().add(make(&VarStore::new(Device::Cpu))).to_string();
    assert!(table.contains(if weighted { "GradWithTrace" } else { "SpikeTraceOp" }), "{table}");
    let parameters = module.parameters();
    assert_eq!(parameters.is_empty(), !weighted);

    let (spike, trace) = pair(shape);
    let spike = spike.set_requires_grad(true);
    // The same module on dense tensors: its value on the spike, its gradients on the trace.
    let dense = |module: &mut dyn OnlineModule, x: &Tensor| {
        module.step(&Signal::Dense(x.shallow_clone()), true).unwrap().into_value()
    };
    let value = tch::no_grad(|| dense(&mut *module, &spike));
    let leaf = trace.copy().set_requires_grad(true);
    let on_trace = dense(&mut *module, &leaf);
    let upstream = Tensor::rand(value.size(), FLOAT);
    let wanted: Vec<&Tensor> = parameters.iter().map(|p| &p.tensor).chain([&leaf]).collect();
    let loss = (&on_trace * &upstream).sum(Kind::Float);
    let expected = Tensor::run_backward(&[loss], &wanted, false, false);

    let out = module.step(&signal(&(spike.shallow_clone(), trace.copy())), true).unwrap();
    assert!(out.value().allclose(&value, 1e-6, 1e-7, false), "the value is the spike's");
    (out.value() * &upstream).sum(Kind::Float).backward();
    if weighted {
        assert!(out.trace().is_none(), "a dense signal leaves a weighted layer");
        for (p, expected) in parameters.iter().zip(&expected) {
            assert!(p.tensor.grad().allclose(expected, 1e-5, 1e-6, false), "gradient of {}", p.name);
        }
        assert!(spike.grad().allclose(expected.last().unwrap(), 1e-5, 1e-6, false), "gradient of the spike");
    } else {
        let out_trace = out.trace().expect("a pair leaves a layer without weights");
        assert!(out_trace.allclose(&on_trace, 1e-6, 1e-7, false));
        assert!(!out_trace.requires_grad());
        assert!(spike.grad().defined());
    }
}

#[test]
fn an_embedding_takes_indices() {
    let vs = VarStore::new(Device::Cpu);
    let embedding = nn::embedding(vs.root(), 10, 4, Default::default());
    let mut net = OtttSequential::new().add(embedding).add(ottt()).add(linear(&vs, 2, 4, 2));
    let y = net.step(&Tensor::from_slice(&[3i64, 9]).into(), true).unwrap().into_value();
    y.sum(Kind::Float).backward();
    assert!(net.parameters().iter().all(|p| p.tensor.grad().defined()));
}

#[test]
fn a_frozen_parameter_counts() {
    let mut vs = VarStore::new(Device::Cpu);
    let frozen = linear(&vs, 0, 4, 2);
    vs.freeze();
    let input = pair(&[3, 4]);
    let mut net = OtttSequential::new().add(frozen);
    assert!(net.to_string().contains("GradWithTrace"));
    let out = net.step(&signal(&input), true).unwrap();
    assert!(out.trace().is_none());
}

/// Counts its calls, and what it was given.
#[derive(Debug)]
struct Counter(Arc<AtomicUsize>);

impl Part for Counter {}

impl OnlineModule for Counter {
    fn pass(&mut self, x: &Signal, _: &Pass<'_>) -> Result<Signal> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let spike = x.value().ge(0.5).to_kind(Kind::Float);
        Ok(Signal::SpikeTrace { trace: spike.copy(), spike })
    }
}

#[test]
fn a_neuron_is_called_once_a_step_and_on_the_spike() {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut net = OtttSequential::new().add(ottt()).add(Scale(1.0)).add(Counter(Arc::clone(&calls)));
    let x = Tensor::from_slice(&[1.5f32, 0.0]);
    for _ in 0..3 {
        // The trace of the first node grows beyond 1, its spike does not.
        let out = net.step(&(&x).into(), true).unwrap();
        assert_eq!(out.value(), &Tensor::from_slice(&[1f32, 0.0]));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[test]
fn a_dense_input_goes_through_plainly_until_a_neuron_makes_it_a_pair() {
    let vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new()
        .add(Scale(2.0))
        .add(linear(&vs, 1, 4, 6))
        .add(ottt())
        .add(Scale(2.0))
        .add(linear(&vs, 4, 6, 2))
        .add(SlttLifNode::new(Default::default()).unwrap())
        .add(linear(&vs, 6, 2, 2));
    let mut pairs = Vec::new();
    let x = Tensor::rand([3, 4], FLOAT).into();
    net.step_inspected(&x, true, |_, _, signal| pairs.push(signal.trace().is_some())).unwrap();
    assert_eq!(pairs, [false, false, true, true, false, false, false]);
    net.reset();
    pairs.clear();
    net.step_inspected(&x, false, |_, _, signal| pairs.push(signal.trace().is_some())).unwrap();
    assert_eq!(pairs, [false; 7], "evaluation carries no trace");
}

/// Six modules in a row, or the same ones in nested containers.
fn six(vs: &VarStore, nested: bool) -> OtttSequential {
    let (a, b, c) = (linear(vs, 0, 4, 6), linear(vs, 3, 6, 5), linear(vs, 5, 5, 2));
    if nested {
        let inner = OtttSequential::new().add(Scale(1.5)).add(b);
        let middle = OtttSequential::new().add(ottt()).add(inner).add(ottt());
        OtttSequential::new().add(a).add(middle).add(c)
    } else {
        OtttSequential::new().add(a).add(ottt()).add(Scale(1.5)).add(b).add(ottt()).add(c)
    }
}

#[rstest]
fn a_nested_container_equals_a_flat_one(#[values(Update::EveryStep, Update::EndOfSequence)] update: Update) {
    let stores = [VarStore::new(Device::Cpu), VarStore::new(Device::Cpu)];
    let mut nets = [six(&stores[0], false), six(&stores[1], true)];
    tch::no_grad(|| {
        for (flat, nested) in nets[0].parameters().iter().zip(nets[1].parameters()) {
            nested.tensor.shallow_clone().copy_(&flat.tensor);
        }
    });
    let (x, target) = (Tensor::randn([2, 5, 4], FLOAT) * 2.0, Tensor::randn([2, 5, 2], FLOAT));
    let results: Vec<(Tensor, Vec<Tensor>)> = nets
        .iter_mut()
        .zip(&stores)
        .map(|(net, vs)| {
            let mut sgd = nn::Sgd::default().build(vs, 0.1).unwrap();
            let out = ottt_online_training(net, &mut sgd, &x, &target, mse, update).unwrap();
            (out.outputs, net.parameters().into_iter().map(|p| p.tensor).collect())
        })
        .collect();
    assert_eq!(results[0], results[1]);
}

#[test]
fn parameters_carry_pytorchs_names() {
    let vs = VarStore::new(Device::Cpu);
    let names: Vec<String> = six(&vs, true).parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["0.weight", "0.bias", "1.1.1.weight", "1.1.1.bias", "2.weight", "2.bias"]);
}

#[test]
fn a_module_may_have_a_name_of_its_own() {
    let vs = VarStore::new(Device::Cpu);
    let part = OtttSequential::new().add(linear(&vs, 0, 4, 3)).add(ottt());
    let net = OtttSequential::new().add_named("features", part).unwrap();
    let mut net = net.add_named("fc", linear(&vs, 1, 3, 2)).unwrap();
    let names: Vec<String> = net.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["features.0.weight", "features.0.bias", "fc.weight", "fc.bias"]);
    let error = net.step(&Tensor::ones([1, 5], FLOAT).into(), true).unwrap_err().to_string();
    assert!(
        error.starts_with("layer features: OtttSequential(2 modules): layer 0: Linear(4 -> 3)"),
        "{error}"
    );
}

#[rstest]
#[case("")]
#[case("fc")]
#[case("7")]
#[case("a.b")]
fn a_name_that_is_empty_or_dotted_or_anothers_is_refused(#[case] name: &str) {
    let net = OtttSequential::new().add_named("fc", Identity).unwrap();
    let error = net.add_named(name, Identity).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "a module's name is {name:?}, expected a name without a dot that no other"
        )),
        "{error}"
    );
}

#[test]
fn the_table_shows_the_plan() {
    let vs = VarStore::new(Device::Cpu);
    let net = OtttSequential::new()
        .add(Flatten::default())
        .add(linear(&vs, 1, 4, 2))
        .add(ottt())
        .add(Scale(2.5))
        .add(nn::func(|x| x.shallow_clone()));
    let table = "   module                                         wrapper        plan                       parameters
0  Flatten(1, -1)                                 SpikeTraceOp   a constant once
1  Linear(4 -> 2)                                 GradWithTrace  one pass, a constant once  weight [2, 4], bias [2]
2  OtttLifNode(tau 2, v_threshold 1, soft reset)
3  Scale(2.5)                                     SpikeTraceOp   by the neuron
4  Func                                           SpikeTraceOp   step by step
";
    let squeeze = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(squeeze(&net.to_string()), squeeze(table));
}

#[test]
fn reset_forgets_everything() {
    let mut net = OtttSequential::new().add(OtttSequential::new().add(ottt()));
    let x = Tensor::from_slice(&[0.6f32, 0.4]);
    let run = |net: &mut OtttSequential| -> Vec<Tensor> {
        (0..4).map(|_| net.step(&(&x).into(), true).unwrap().into_value().detach()).collect()
    };
    let (first, second) = (run(&mut net), run(&mut net));
    net.reset();
    assert_eq!(run(&mut net), first);
    assert_ne!(first, second, "without a reset the state is carried on");
}

#[test]
fn state_can_be_read_and_set_and_the_run_goes_on_from_it() {
    let x: Vec<Tensor> = (0..6).map(|_| Tensor::randn([3, 4], FLOAT)).collect();
    let mut node = ottt();
    let step = |node: &mut OtttLifNode, x: &Tensor| node.step(&x.into(), true).unwrap();
    x[..3].iter().for_each(|x| drop(step(&mut node, x)));
    let mut copy = ottt();
    copy.set_v(&node.v().unwrap().copy());
    copy.set_trace(&node.trace().unwrap().copy());
    for x in &x[3..] {
        let (a, b) = (step(&mut node, x), step(&mut copy, x));
        assert_eq!(a.value(), b.value());
        assert_eq!(a.trace(), b.trace());
        assert_eq!(node.v(), copy.v());
    }
}

#[test]
fn a_wrapper_by_hand_equals_the_containers_choice() {
    let vs = VarStore::new(Device::Cpu);
    let (a, b) = (linear(&vs, 0, 4, 2), linear(&vs, 1, 4, 2));
    tch::no_grad(|| {
        b.ws.shallow_clone().copy_(&a.ws);
        b.bs.as_ref().unwrap().shallow_clone().copy_(a.bs.as_ref().unwrap())
    });
    let input = pair(&[3, 4]);
    let mut by_hand = OtttSequential::new().add(SpikeTraceOp::new(Scale(3.0))).add(GradWithTrace::new(a));
    let mut chosen = OtttSequential::new().add(Scale(3.0)).add(b);
    let grads = |net: &mut OtttSequential| -> Vec<Tensor> {
        net.step(&signal(&input), true).unwrap().value().square().sum(Kind::Float).backward();
        net.parameters().iter().map(|p| p.tensor.grad()).collect()
    };
    assert_eq!(grads(&mut by_hand), grads(&mut chosen));
}

#[test]
fn one_dropout_mask_serves_spike_and_trace_and_the_whole_sequence() {
    let mut net = OtttSequential::new().add(Dropout::new(0.5).unwrap());
    let ones = Tensor::ones([4, 50], FLOAT);
    let input = Signal::SpikeTrace { spike: ones.copy(), trace: ones.copy() };
    let step = |net: &mut OtttSequential| net.step(&input, true).unwrap();
    let first = step(&mut net);
    assert_eq!(Some(first.value()), first.trace());
    assert_eq!(step(&mut net).value(), first.value());
    net.reset();
    assert_ne!(step(&mut net).value(), first.value());
}

#[test]
fn a_users_own_layer_with_weights_and_memory_takes_part() {
    /// y = w (x + the x before).
    #[derive(Debug)]
    struct Delayed {
        weight: Tensor,
        before: Memory,
    }

    impl Layer for Delayed {
        fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
            let sum = match self.before.get() {
                Some(before) => x.f_add(before)?,
                None => x.shallow_clone(),
            };
            self.before.set(&x.detach());
            Ok(sum.f_mul(&self.weight)?)
        }
    }

    impl Part for Delayed {
        fn variables(&self) -> Vec<Variable> {
            vec![Variable::parameter("weight", &self.weight)]
        }

        fn memories(&mut self) -> Vec<&mut Memory> {
            vec![&mut self.before]
        }
    }

    let weight = Tensor::from(2.0f32).set_requires_grad(true);
    let mut net =
        OtttSequential::new().add(Delayed { weight: weight.shallow_clone(), before: Memory::default() });
    let x: Signal = Tensor::from_slice(&[1f32]).into();
    let values: Vec<f64> = (0..2).map(|_| net.step(&x, true).unwrap().value().double_value(&[0])).collect();
    assert_eq!(values, [2.0, 4.0]);
    net.reset();
    assert_eq!(net.step(&x, true).unwrap().value().double_value(&[0]), 2.0);
    assert!(net.to_string().contains("Delayed"));
}

#[test]
fn the_network_moves_to_another_thread() {
    let vs = VarStore::new(Device::Cpu);
    let mut net = six(&vs, true);
    let x = repeat_over_time(&Tensor::rand([2, 4], FLOAT), 3).unwrap();
    let answer = std::thread::spawn(move || spiketrace::train::evaluate(&mut net, &x).unwrap());
    assert_eq!(answer.join().unwrap().size(), [2, 2]);
}
