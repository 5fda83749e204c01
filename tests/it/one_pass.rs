//! Affine layers run once and learn from the trace all the same: held to the two passes.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::{
    ws_conv2d, ws_linear, GradWithTrace, Layer, OnlineModule, Part, Properties, Result, Signal, Variable,
    WsConv2dConfig, WsLinearConfig,
};
use tch::nn::{self, ConvConfigND, ConvTransposeConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::numbers;
use crate::parity::fixture::relative_difference;

/// Counts how often a layer runs.
#[derive(Debug)]
struct Counted<'a> {
    layer: &'a mut dyn Layer,
    runs: i64,
}

impl Layer for Counted<'_> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.runs += 1;
        self.layer.forward(x, train)
    }
}

impl Part for Counted<'_> {
    fn variables(&self) -> Vec<Variable> {
        self.layer.variables()
    }

    fn properties(&self) -> Properties {
        self.layer.properties()
    }
}

/// A random spike and trace.
struct Input {
    spike: Tensor,
    trace: Tensor,
    /// Whether the spike asks for a gradient.
    wants_grad: bool,
}

impl Input {
    fn random(shape: &[i64], kind: Kind, wants_grad: bool) -> Self {
        let double = (Kind::Double, Device::Cpu);
        let spike = Tensor::full(shape, 0.4, double).bernoulli();
        let trace = &spike + Tensor::rand(shape, double);
        Self { spike: spike.to_kind(kind), trace: trace.to_kind(kind), wants_grad }
    }
}

/// Value, gradient of the spike, gradients of the parameters of one step, in `runs` runs of the layer.
fn step(layer: &mut dyn Layer, input: &Input, paths: FastPaths, runs: i64) -> Vec<Tensor> {
    let parameters = layer.parameters();
    parameters.iter().for_each(|p| p.tensor.shallow_clone().zero_grad());
    let spike = input.spike.detach().set_requires_grad(input.wants_grad);
    let mut module = GradWithTrace::new(Counted { layer, runs: 0 });
    let pair = Signal::SpikeTrace { spike: spike.shallow_clone(), trace: input.trace.shallow_clone() };
    let y = with_fast_paths(paths, || module.step(&pair, true)).unwrap().into_value();
    assert_eq!(module.get_ref().runs, runs);
    let upstream = (Tensor::arange(y.numel() as i64, (Kind::Double, Device::Cpu)) + 0.5).sin();
    (&y * upstream.view_as(&y).to_kind(y.kind())).sum(Kind::Double).backward();
    let grads = parameters.iter().map(|p| &p.tensor).chain([&spike]).filter(|x| x.requires_grad());
    [y.detach()].into_iter().chain(grads.map(|x| x.grad().copy())).collect()
}

fn compare(what: &str, layer: &mut dyn Layer, input: &Input, tolerance: f64) {
    let one = step(layer, input, FastPaths::default(), 1);
    // The rest as it is: how weights are standardized is another test's.
    let two = step(layer, input, FastPaths { one_pass: false, ..FastPaths::default() }, 2);
    assert_eq!(one.len(), two.len());
    for (i, (one, two)) in one.iter().zip(&two).enumerate() {
        let difference = relative_difference(one, two);
        assert!(difference <= tolerance, "{what}: tensor {i} differs by {difference:e}");
    }
}

fn store(kind: Kind) -> VarStore {
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(kind);
    vs
}

/// A random convolution of N dimensions.
fn convolution<const N: usize>(rng: &mut StdRng, kind: Kind, tolerance: f64)
where
    nn::Conv<[i64; N]>: Layer,
{
    let groups = rng.gen_range(1..4);
    let (from, to) = (groups * rng.gen_range(1..4), groups * rng.gen_range(1..4));
    let ksizes = [(); N].map(|()| rng.gen_range(1..4));
    let config = ConvConfigND {
        stride: [(); N].map(|()| rng.gen_range(1..4)),
        padding: [(); N].map(|()| rng.gen_range(0..2)),
        dilation: [(); N].map(|()| rng.gen_range(1..3)),
        groups,
        bias: rng.gen(),
        ws_init: nn::init::DEFAULT_KAIMING_UNIFORM,
        bs_init: nn::Init::Const(0.5),
        padding_mode: nn::PaddingMode::Zeros,
    };
    let input = Input::random(&image(rng, from, N), kind, rng.gen());
    let mut conv = nn::conv(store(kind).root(), from, to, ksizes, config);
    compare(&format!("{from} -> {to}, {ksizes:?}, {config:?}"), &mut conv, &input, tolerance);
}

/// A random transposed convolution, of the same configuration in all dimensions, as tch has them.
fn transposed_convolution<L: Layer>(
    rng: &mut StdRng,
    dims: usize,
    kind: Kind,
    tolerance: f64,
    make: impl Fn(nn::Path, i64, i64, i64, ConvTransposeConfig) -> L,
) {
    let groups = rng.gen_range(1..4);
    let (from, to) = (groups * rng.gen_range(1..4), groups * rng.gen_range(1..4));
    let config = ConvTransposeConfig {
        stride: rng.gen_range(1..4),
        padding: rng.gen_range(0..2),
        dilation: rng.gen_range(1..3),
        groups,
        bias: rng.gen(),
        bs_init: nn::Init::Const(0.5),
        ..Default::default()
    };
    let ksize = rng.gen_range(1..4);
    let input = Input::random(&image(rng, from, dims), kind, rng.gen());
    let mut layer = make(store(kind).root(), from, to, ksize, config);
    compare(&format!("{dims}d, {from} -> {to}, {ksize}, {config:?}"), &mut layer, &input, tolerance);
}

fn image(rng: &mut StdRng, channels: i64, dims: usize) -> Vec<i64> {
    let mut shape = vec![rng.gen_range(1..4), channels];
    shape.extend((0..dims).map(|_| rng.gen_range(6..10)));
    shape
}

#[rstest]
#[case::f32(Kind::Float, 1e-5)]
#[case::f64(Kind::Double, 1e-12)]
#[case::bf16(Kind::BFloat16, 1e-2)]
fn convolutions_of_any_configuration(#[case] kind: Kind, #[case] tolerance: f64) {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        convolution::<1>(&mut rng, kind, tolerance);
        convolution::<2>(&mut rng, kind, tolerance);
        convolution::<3>(&mut rng, kind, tolerance);
        transposed_convolution(&mut rng, 1, kind, tolerance, |p, i, o, k, c| {
            nn::conv_transpose1d(p, i, o, k, c)
        });
        transposed_convolution(&mut rng, 2, kind, tolerance, |p, i, o, k, c| {
            nn::conv_transpose2d(p, i, o, k, c)
        });
        transposed_convolution(&mut rng, 3, kind, tolerance, |p, i, o, k, c| {
            nn::conv_transpose3d(p, i, o, k, c)
        });
    }
}

#[rstest]
#[case::f32(Kind::Float, 1e-5)]
#[case::f64(Kind::Double, 1e-12)]
#[case::bf16(Kind::BFloat16, 1e-2)]
fn linear_layers_of_any_shape(#[case] kind: Kind, #[case] tolerance: f64) {
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..30 {
        let (from, to, bias) = (rng.gen_range(2..9), rng.gen_range(1..9), rng.gen());
        let mut shape: Vec<i64> = (0..rng.gen_range(1..4)).map(|_| rng.gen_range(1..5)).collect();
        shape.push(from);
        let input = Input::random(&shape, kind, rng.gen());
        let (vs, what) = (store(kind), format!("{shape:?} -> {to}, {bias}"));
        let config = nn::LinearConfig { bias, ..Default::default() };
        compare(&what, &mut nn::linear(vs.root() / 0, from, to, config), &input, tolerance);
        let config = WsLinearConfig { bias, gain: rng.gen(), ..Default::default() };
        compare(&what, &mut ws_linear(vs.root() / 1, from, to, config).unwrap(), &input, tolerance);
    }
}

#[rstest]
#[case::f32(Kind::Float, 1e-5)]
#[case::f64(Kind::Double, 1e-12)]
fn weight_standardized_convolutions(#[case] kind: Kind, #[case] tolerance: f64) {
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..20 {
        let groups = rng.gen_range(1..3);
        let (from, to) = (groups * rng.gen_range(1..4), groups * rng.gen_range(1..4));
        let config = WsConv2dConfig {
            stride: rng.gen_range(1..3),
            padding: rng.gen_range(0..3),
            dilation: rng.gen_range(1..3),
            groups,
            bias: rng.gen(),
            gain: rng.gen(),
            ..Default::default()
        };
        let input = Input::random(&[2, from, 8, 9], kind, rng.gen());
        let mut conv = ws_conv2d(store(kind).root(), from, to, 3, config).unwrap();
        compare(&format!("{from} -> {to}, {config:?}"), &mut conv, &input, tolerance);
    }
}

#[test]
fn what_does_not_see_the_spike_itself_takes_two_passes() {
    let vs = store(Kind::Double);
    let config = nn::ConvConfig { padding: 1, padding_mode: nn::PaddingMode::Reflect, ..Default::default() };
    let mut conv = nn::conv2d(vs.root(), 2, 3, 3, config);
    let input = Input::random(&[2, 2, 6, 6], Kind::Double, true);
    let fast = step(&mut conv, &input, FastPaths::default(), 2);
    assert_eq!(fast, step(&mut conv, &input, FastPaths::NONE, 2));
}

#[test]
fn a_frozen_weight_still_hands_the_gradient_on() {
    let mut vs = store(Kind::Double);
    let mut linear = nn::linear(vs.root(), 4, 3, Default::default());
    vs.freeze();
    compare("frozen", &mut linear, &Input::random(&[2, 4], Kind::Double, true), 1e-12);
}

#[test]
fn a_trace_changed_in_place_before_backward_is_an_error() {
    let linear = nn::linear(store(Kind::Double).root(), 4, 3, Default::default());
    let Input { spike, mut trace, .. } = Input::random(&[2, 4], Kind::Double, false);
    let pair = Signal::SpikeTrace { spike, trace: trace.shallow_clone() };
    let y = GradWithTrace::new(linear).step(&pair, true).unwrap().into_value();
    let _ = trace.f_add_scalar_(1.0).unwrap();
    let error = y.sum(Kind::Double).f_backward().unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}

/// How a layer's step depends on its spike and trace, in two passes and in one.
fn both_ways<T>(run: impl Fn() -> T) -> [T; 2] {
    let one_pass = FastPaths { one_pass: true, ..FastPaths::NONE };
    [FastPaths::NONE, one_pass].map(|paths| with_fast_paths(paths, &run))
}

/// dW = g a^T, where the trace a stands in the graph for the spike: its own derivative goes to the spike.
#[rstest]
#[case::linear(&[4, 3], |vs: &VarStore| Box::new(nn::linear(vs.root(), 3, 2, Default::default())) as Box<dyn Layer>)]
#[case::linear_over_time(&[5, 4, 3], |vs: &VarStore| Box::new(nn::linear(vs.root(), 3, 2, Default::default())) as Box<dyn Layer>)]
#[case::standardized(&[4, 3], |vs: &VarStore| Box::new(ws_linear(vs.root(), 3, 2, Default::default()).unwrap()) as Box<dyn Layer>)]
#[case::conv(&[2, 3, 5, 5], |vs: &VarStore| Box::new(nn::conv2d(vs.root(), 3, 2, 3, Default::default())) as Box<dyn Layer>)]
fn second_derivatives_are_those_of_two_passes(
    #[case] shape: &[i64],
    #[case] make: fn(&VarStore) -> Box<dyn Layer>,
    #[values(false, true)] leaf: bool,
) {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = std::cell::RefCell::new(make(&vs));
    vs.double();
    let weight = vs.variables()["weight"].shallow_clone();
    let [two, one] = both_ways(|| {
        let x = numbers(shape, 1).set_requires_grad(true);
        let spike = if leaf { x.shallow_clone() } else { &x * 2.0 };
        let pair = Signal::SpikeTrace { spike, trace: numbers(shape, 2) };
        let mut layer = layer.borrow_mut();
        let mut module = GradWithTrace::new(Counted { layer: &mut **layer, runs: 0 });
        let y = module.step(&pair, true).unwrap().into_value();
        let loss = (y.tanh() * numbers(&y.size(), 3)).sum(Kind::Double);
        let first = Tensor::run_backward(&[loss], &[&weight], true, true).remove(0);
        assert!(first.requires_grad());
        let again = (&first * numbers(&first.size(), 4)).sum(Kind::Double);
        Tensor::run_backward(&[again], &[&x, &weight], false, false)
    });
    for (one, two) in one.iter().zip(&two) {
        assert!(two.abs().max().double_value(&[]) > 0.0, "the test says nothing");
        let difference = relative_difference(one, two);
        assert!(difference <= 1e-12, "{difference:e}");
    }
}

/// A convolution on a view of its input in another order, which is not the input itself.
#[derive(Debug)]
struct OverTime(Tensor);

impl Layer for OverTime {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.f_transpose(1, 2)?.f_conv1d(&self.0, None::<Tensor>, [1], [0], [1], 1)?)
    }
}

impl Part for OverTime {
    fn variables(&self) -> Vec<Variable> {
        vec![Variable::parameter("weight", &self.0)]
    }

    fn properties(&self) -> Properties {
        Properties::default().affine()
    }
}

#[test]
fn a_layer_on_a_turned_view_of_its_input_takes_two_passes() {
    let w = numbers(&[2, 3, 2], 0).set_requires_grad(true);
    let [two, one] = both_ways(|| {
        w.shallow_clone().zero_grad();
        let pair = Signal::SpikeTrace { spike: numbers(&[4, 5, 3], 1), trace: numbers(&[4, 5, 3], 2) };
        let y = GradWithTrace::new(OverTime(w.shallow_clone())).step(&pair, true).unwrap().into_value();
        (&y * numbers(&y.size(), 3)).sum(Kind::Double).backward();
        w.grad().copy()
    });
    assert!(relative_difference(&one, &two) <= 1e-12, "{one} instead of {two}");
}

/// An affine layer of an operation that one pass does not know.
#[derive(Debug)]
struct Groups(Tensor);

impl Layer for Groups {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.f_bmm(&self.0)?)
    }
}

impl Part for Groups {
    fn variables(&self) -> Vec<Variable> {
        vec![Variable::parameter("weight", &self.0)]
    }

    fn properties(&self) -> Properties {
        Properties::default().affine()
    }
}

/// The layer below has a known one, and is not to be taken for it: frozen, it would seem to need no input.
#[rstest]
fn a_layer_of_another_operation_learns_from_the_trace(#[values(false, true)] frozen: bool) {
    let [two, one] = both_ways(|| {
        let below = numbers(&[6, 5], 1).set_requires_grad(!frozen);
        let x = numbers(&[2, 4, 6], 2).set_requires_grad(true);
        let spike = x.matmul(&below);
        let w = numbers(&[2, 5, 3], 3).set_requires_grad(true);
        let pair = Signal::SpikeTrace { trace: numbers(&spike.size(), 4), spike };
        let y = GradWithTrace::new(Groups(w.shallow_clone())).step(&pair, true).unwrap().into_value();
        (&y * numbers(&y.size(), 5)).sum(Kind::Double).backward();
        w.grad()
    });
    assert!(relative_difference(&one, &two) <= 1e-12, "{one} instead of {two}");
}
