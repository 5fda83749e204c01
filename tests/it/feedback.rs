//! Connections one step back, against gradients by explicit sums and against the network unrolled.

use rstest::rstest;
use spiketrace::surrogate::{spike, Sigmoid};
use spiketrace::train::{
    bptt_training, evaluate, ottt_online_training, repeat_over_time, sltt_k_training, OtttTrainingConfig,
    Sgd, SgdConfig, Update,
};
use spiketrace::{
    with_fast_paths, with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, FastPaths,
    Feedback, Flatten, NdotLifConfig, NdotLifNode, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential,
    Result, Scale, Signal, SlttLifConfig, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

use crate::parity::fixture::relative_difference;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);
const TIME_STEPS: i64 = 7;
const BATCH: i64 = 4;

fn mse(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(y.f_mse_loss(target, Reduction::Mean)?)
}

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
    let x = Tensor::randn([BATCH, TIME_STEPS, 5], DOUBLE) * 2.0;
    let target = Tensor::randn([BATCH, TIME_STEPS, 3], DOUBLE);
    // Strong enough that what comes back matters.
    for p in net.parameters() {
        let _ = tch::no_grad(|| p.tensor.shallow_clone().g_mul_scalar_(1.5));
    }
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

/// The derivative of the sigmoid surrogate, alpha 4.
fn slope(over: &Tensor) -> Tensor {
    let s = (over * 4.0).sigmoid();
    &s * (1.0 - &s) * 4.0
}

/// One LIF layer by hand: potential and trace.
struct Cell {
    rule: Rule,
    v: Tensor,
    a: Tensor,
    /// What the trace is multiplied by on its way to the next step.
    fading: Tensor,
}

impl Cell {
    fn new(rule: Rule, size: i64) -> Self {
        let [v, a, fading] = [0.0, 0.0, 0.5].map(|value| Tensor::full([BATCH, size], value, DOUBLE));
        Self { rule, v, a, fading: if rule == Rule::Sltt { fading * 0.0 } else { fading } }
    }

    /// Spike, and how far the potential was over the threshold.
    fn step(&mut self, u: &Tensor) -> (Tensor, Tensor) {
        let over = &self.v * 0.5 + u - 0.5;
        let s = over.ge(0.0).to_kind(Kind::Double);
        let v = &over + 0.5 - &s * 0.5;
        self.a = &self.a * &self.fading + &s;
        if self.rule == Rule::Ndot {
            let rests = self.v.eq(0.0);
            self.fading = (&v / &self.v).clamp(-0.5, 0.5).masked_fill(&rests, 0.5);
        }
        self.v = v;
        (s, over)
    }
}

/// Sums over the time steps `learned` of outer products of explicit gradients and traces.
fn explicit_sums(s: &Setting, rule: Rule, learned: &[i64]) -> Vec<(&'static str, Tensor, Tensor)> {
    let of = s.weights();
    let layer = |name: &str, x: &Tensor| x.linear(&of(name).0.detach(), Some(of(name).1.detach()));
    let w = |name: &str| of(name).0.detach();
    let (mut first, mut second) = (Cell::new(rule, 8), Cell::new(rule, 6));
    let mut grads: Vec<_> = s
        .layers()
        .into_iter()
        .map(|name| (name, of(name).0.detach().zeros_like(), of(name).1.detach().zeros_like()))
        .collect();
    let mut before: Option<(Tensor, Tensor)> = None;
    for t in 0..TIME_STEPS {
        let x = s.x.select(1, t);
        let mut u = layer("in", &x);
        if let Some((spike, _)) = &before {
            u += layer("back", spike);
        }
        let (mut spikes, over) = first.step(&u);
        let mut trace = first.a.shallow_clone();
        let mut over_2 = None;
        if s.deep {
            let (deeper, over) = second.step(&layer("between", &spikes));
            (spikes, trace, over_2) = (deeper, second.a.shallow_clone(), Some(over));
        }
        let y = layer("out", &spikes);
        let g_out = (&y - s.target.select(1, t)) * (2.0 / y.numel() as f64);
        let mut g = g_out.matmul(&w("out"));
        let mut add = |name: &str, g: &Tensor, a: &Tensor| {
            if !learned.contains(&t) {
                return;
            }
            let (_, weight, bias) = grads.iter_mut().find(|entry| entry.0 == name).unwrap();
            *weight += g.tr().matmul(a);
            *bias += g.sum_dim_intlist(0i64, false, Kind::Double);
        };
        add("out", &g_out, &trace);
        if let Some(over_2) = over_2 {
            g *= slope(&over_2);
            add("between", &g, &first.a);
            g = g.matmul(&w("between"));
        }
        g *= slope(&over);
        add("in", &g, &x);
        if let Some((_, trace)) = &before {
            add("back", &g, trace);
        }
        before = Some((spikes, trace));
    }
    grads
}

#[rstest]
fn gradients_are_the_explicit_sums(
    #[values(false, true)] deep: bool,
    #[values(Rule::Ottt, Rule::Ndot, Rule::Sltt)] rule: Rule,
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
) {
    let mut s = setting(deep, rule);
    let expected = explicit_sums(&s, rule, &Vec::from_iter(0..TIME_STEPS));
    let mut sgd = s.sgd(0.0);
    let update = Update::EndOfSequence;
    with_fast_paths(paths, || {
        ottt_online_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, update).unwrap()
    });
    let variables = s.vs.variables();
    for (name, weight, bias) in expected {
        assert!(weight.abs().max().double_value(&[]) > 0.0, "{name} says nothing");
        for (part, expected) in [("weight", weight), ("bias", bias)] {
            let difference = relative_difference(&variables[&format!("{name}.{part}")].grad(), &expected);
            assert!(difference < 1e-10, "{name}.{part} differs by {difference:e}");
        }
    }
}

#[rstest]
fn sltt_k_goes_on_through_the_steps_it_leaves_out(#[values(false, true)] deep: bool) {
    let mut s = setting(deep, Rule::Sltt);
    let mut sgd = s.sgd(0.0);
    for _ in 0..4 {
        sltt_k_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, 1).unwrap();
        s.net.reset();
        let variables = s.vs.variables();
        let fits = |t: &i64| {
            explicit_sums(&s, Rule::Sltt, &[*t]).into_iter().all(|(name, weight, _)| {
                let grad = variables[&format!("{name}.weight")].grad();
                // Nothing comes back at the first step.
                if grad.defined() {
                    relative_difference(&grad, &weight) < 1e-10
                } else {
                    *t == 0
                }
            })
        };
        assert_eq!((0..TIME_STEPS).filter(fits).count(), 1, "the gradient is that of one step");
    }
}

#[rstest]
fn backpropagation_through_time_goes_through_the_feedback(#[values(false, true)] deep: bool) {
    let mut s = setting(deep, Rule::Ottt);
    let of = s.weights();
    let layer = |name: &str, x: &Tensor| x.linear(&of(name).0, Some(of(name).1));
    let fire = |v: &mut Tensor, u: Tensor| {
        let h = &*v * 0.5 + u;
        let spikes = spike(&(&h - 0.5), Sigmoid::default()).unwrap();
        *v = h - spikes.detach() * 0.5;
        spikes
    };
    let (mut u, mut v) = (Tensor::zeros([BATCH, 8], DOUBLE), Tensor::zeros([BATCH, 6], DOUBLE));
    let (mut loss, mut before) = (Tensor::zeros([], DOUBLE), None);
    for t in 0..TIME_STEPS {
        let mut x = layer("in", &s.x.select(1, t));
        if let Some(before) = &before {
            x += layer("back", before);
        }
        let mut spikes = fire(&mut u, x);
        if deep {
            spikes = fire(&mut v, layer("between", &spikes));
        }
        loss += mse(&layer("out", &spikes), &s.target.select(1, t)).unwrap();
        before = Some(spikes);
    }
    loss.backward();
    let mut sgd = s.sgd(0.0);
    let out = bptt_training(&mut s.net, &mut sgd, &s.x, &s.target, mse).unwrap();
    assert!(relative_difference(&out.loss, &loss) < 1e-12);
    for name in s.layers() {
        let grad = s.vs.variables()[&format!("{name}.weight")].grad();
        let difference = relative_difference(&grad, &of(name).0.grad());
        assert!(difference < 1e-10, "{name} differs by {difference:e}");
    }
    assert!(s.net.memories().into_iter().flatten().all(|memory| !memory.requires_grad()));
}

#[rstest]
#[case::online(Some(Update::EveryStep))]
#[case::accumulated(Some(Update::EndOfSequence))]
#[case::through_time(None)]
fn a_constant_image_learns_as_its_repetition(#[case] update: Option<Update>) {
    let run = |constant: bool| {
        tch::manual_seed(3);
        let mut vs = VarStore::new(Device::Cpu);
        let p = vs.root();
        let back = nn::linear(&p / "back", 8, 8, Default::default());
        let mut net = OtttSequential::new()
            .add(ws_linear(&p / "in", 5, 8, Default::default()).unwrap())
            .add(Feedback::new(back, node()))
            .add(nn::linear(&p / "out", 8, 3, Default::default()));
        vs.double();
        for p in net.parameters() {
            let count = p.tensor.numel() as i64;
            let values = (Tensor::arange(count, DOUBLE) * 12.9898 + 0.5).sin().view_as(&p.tensor);
            tch::no_grad(|| p.tensor.shallow_clone().copy_(&values));
        }
        let x = (Tensor::arange(BATCH * 5, DOUBLE) * 7.3).cos().view([BATCH, 5]);
        let x = repeat_over_time(&x, TIME_STEPS).unwrap();
        let x = if constant { x } else { x.contiguous() };
        let target = Tensor::ones([BATCH, TIME_STEPS, 3], DOUBLE);
        let config = SgdConfig { lr: 0.1, ..Default::default() };
        let mut sgd = Sgd::new(&vs.trainable_variables(), config).unwrap();
        match update {
            Some(update) => ottt_online_training(&mut net, &mut sgd, &x, &target, mse, update).unwrap(),
            None => bptt_training(&mut net, &mut sgd, &x, &target, mse).unwrap(),
        };
        net.reset();
        let weights: Vec<Tensor> = net.parameters().iter().map(|p| p.tensor.detach()).collect();
        (weights, evaluate(&mut net, &x).unwrap())
    };
    let ((weights, answer), (expected, expected_answer)) = (run(true), run(false));
    assert!(relative_difference(&answer, &expected_answer) < 1e-10);
    for (got, expected) in weights.iter().zip(&expected) {
        assert!(relative_difference(got, expected) < 1e-10);
    }
}

/// Convolutions, pooled, whose output comes back enlarged: the shape of VGG-F.
fn images() -> (VarStore, OtttSequential) {
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let conv = nn::ConvConfig { padding: 1, ..Default::default() };
    let enlarge = nn::func(|x| x.upsample_nearest2d([32, 32], None, None));
    let back = OtttSequential::new()
        .add(with_parameters("Upsample", enlarge, Vec::new()).samplewise())
        .add(nn::conv2d(&p / "back", 5, 3, 3, conv));
    let block = OtttSequential::new()
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.74))
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(ws_conv2d(&p / "2", 3, 5, 3, same).unwrap())
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.74));
    let net = OtttSequential::new()
        .add(ws_conv2d(&p / "1", 2, 3, 3, same).unwrap())
        .add(Feedback::new(back, block))
        .add(AdaptiveAvgPool2d::new([1, 1]).unwrap())
        .add(Flatten::default())
        .add(nn::linear(&p / "out", 5, 3, Default::default()));
    (vs, net)
}

#[rstest]
fn images_feed_back_the_same_on_every_path(
    #[values(Update::EveryStep, Update::EndOfSequence)] update: Update,
) {
    // Large enough for channels to lie last.
    let float = (Kind::Float, Device::Cpu);
    let x =
        repeat_over_time(&((Tensor::arange(4 * 2048, float) * 12.99).sin() * 2.0).view([4, 2, 32, 32]), 3);
    let target = Tensor::ones([4, 3, 3], float);
    let moves = [FastPaths::default(), FastPaths::NONE].map(|paths| {
        let (vs, mut net) = images();
        for p in net.parameters() {
            let values =
                (Tensor::arange(p.tensor.numel() as i64, float) * 7.77 + 0.3).sin().view_as(&p.tensor);
            tch::no_grad(|| p.tensor.shallow_clone().copy_(&values));
        }
        let config = SgdConfig { lr: 0.01, ..Default::default() };
        let mut sgd = Sgd::new(&vs.trainable_variables(), config).unwrap();
        let x = x.as_ref().unwrap();
        let before: Vec<Tensor> = net.parameters().iter().map(|p| p.tensor.detach().copy()).collect();
        with_fast_paths(paths, || ottt_online_training(&mut net, &mut sgd, x, &target, mse, update).unwrap());
        let moved = net.parameters().into_iter().zip(before);
        moved.map(|(p, before)| (p.name, p.tensor.detach() - before)).collect::<Vec<_>>()
    });
    for ((name, fast), (_, plain)) in moves[0].iter().zip(&moves[1]) {
        // Rounding may flip a spike or two of ten thousands.
        let difference = relative_difference(fast, plain);
        assert!(plain.abs().max().double_value(&[]) > 0.0, "{name} did not move");
        assert!(difference < 1e-2, "{name} differs by {difference:e}");
    }
}

#[test]
fn reset_forgets_what_would_come_back() {
    let mut s = setting(true, Rule::Ottt);
    let first = s.net.step(&s.x.select(1, 0).into(), true).unwrap().into_value();
    s.net.step(&s.x.select(1, 1).into(), true).unwrap();
    s.net.reset();
    assert!(s.net.memories().into_iter().all(|memory| memory.is_none()));
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
    let names: Vec<_> = net.buffers().into_iter().map(|buffer| buffer.name).collect();
    let expected =
        ["connection", "block.0"].map(|part| ["mean", "var"].map(|of| format!("{part}.running_{of}")));
    assert_eq!(names, expected.concat());
}
