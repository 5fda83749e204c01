//! The parts of a training step, each beside what it is measured against.
//!
//! `scripts/with-libtorch cargo bench --bench parts` prints times by criterion and, at the end, the ratios.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use criterion::{criterion_group, Criterion};
use spiketrace::setting::{keep_freed_memory, with_fast_paths, FastPaths};
use spiketrace::surrogate::*;
use spiketrace::train::{ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update};
use spiketrace::{
    ws_conv2d, Context, Function, GradWithTrace, OnlineModule, OtttLifConfig, OtttLifNode, Part, Result,
    Signal, Tensors, WsConv2dConfig,
};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[path = "compare/networks.rs"]
mod networks;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
/// A layer of the VGG, batch 16.
const SHAPE: [i64; 4] = [16, 128, 16, 16];

/// A loss whose gradient is a given tensor.
struct Upstream(Mutex<Tensor>);

impl Function for Upstream {
    fn forward(&self, _: &mut Context, x: &Tensors) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::zeros([], (x[0].kind(), x[0].device()))])
    }

    fn backward(&self, _: &mut Context, _: &Tensors) -> Result<Vec<Option<Tensor>>> {
        Ok(self.0.lock().map(|grad| vec![Some(grad.shallow_clone())]).unwrap_or_default())
    }
}

fn with_gradient(y: &Tensor, grad: &Tensor) -> Tensor {
    Upstream(Mutex::new(grad.shallow_clone())).apply(&[y]).expect("applies").remove(0)
}

fn backward(y: &Tensor, grad: &Tensor) {
    with_gradient(y, grad).backward();
}

/// Copies half as many elements as a kernel reads and writes: the same bytes.
struct Copies(Vec<(Tensor, Tensor)>);

impl Copies {
    fn of(arrays: i64) -> Self {
        let count: i64 = SHAPE.iter().product();
        let pair = |count| (Tensor::rand([count], FLOAT), Tensor::empty([count], FLOAT));
        let whole = (0..arrays / 2).map(|_| pair(count));
        let half = (arrays % 2 == 1).then(|| pair(count / 2));
        Self(whole.chain(half).collect())
    }

    fn run(&mut self) {
        for (from, to) in &mut self.0 {
            to.copy_(from);
        }
    }
}

/// Steps of a node on an input that asks for gradients, and backwards of its spikes.
struct Neuron {
    node: OtttLifNode,
    x: Tensor,
    grad: Tensor,
}

impl Neuron {
    fn new(surrogate: Arc<dyn Surrogate>) -> Self {
        let node = OtttLifNode::new(OtttLifConfig { surrogate, ..Default::default() }).expect("a node");
        let x = (Tensor::randn(SHAPE, FLOAT) * 2.0).set_requires_grad(true);
        Self { node, x, grad: Tensor::randn(SHAPE, FLOAT) }
    }

    fn forward(&mut self) -> Signal {
        self.node.step(&(&self.x).into(), true).expect("a step")
    }

    fn both(&mut self) {
        let loss = with_gradient(self.forward().value(), &self.grad);
        black_box(Tensor::run_backward(&[&loss], &[&self.x], false, false));
    }
}

fn neuron(c: &mut Criterion) {
    let mut group = c.benchmark_group("neuron step, 16x128x16x16");
    let mut neuron = Neuron::new(Arc::new(Sigmoid::default()));
    group.bench_function("forward", |b| b.iter(|| neuron.forward()));
    let mut copies = Copies::of(7);
    group.bench_function("forward, its bytes copied", |b| b.iter(|| copies.run()));
    group.bench_function("forward and backward", |b| b.iter(|| neuron.both()));
    let mut copies = Copies::of(10);
    group.bench_function("forward and backward, their bytes copied", |b| b.iter(|| copies.run()));
    group.bench_function("forward and backward, composed", |b| {
        b.iter(|| with_fast_paths(FastPaths::NONE, || neuron.both()))
    });
    group.finish();
}

fn surrogates(c: &mut Criterion) {
    let mut group = c.benchmark_group("neuron step with");
    group.sample_size(20);
    let all: [Arc<dyn Surrogate>; 6] = [
        Arc::new(Sigmoid::default()),
        Arc::new(ATan::default()),
        Arc::new(PiecewiseQuadratic::default()),
        Arc::new(SoftSign::default()),
        Arc::new(QPseudoSpike::default()),
        Arc::new(SquarewaveFourierSeries::default()),
    ];
    for surrogate in all {
        let mut neuron = Neuron::new(surrogate.clone());
        group.bench_function(format!("{surrogate:?}"), |b| b.iter(|| neuron.both()));
    }
    group.finish();
}

/// One training step of a convolution behind spikes.
struct Convolution {
    layer: GradWithTrace<spiketrace::WsConv2d>,
    x: Signal,
    grad: Tensor,
}

impl Convolution {
    fn new() -> Self {
        let vs = VarStore::new(Device::Cpu);
        let same = WsConv2dConfig { padding: 1, ..Default::default() };
        let layer = ws_conv2d(vs.root(), 128, 128, 3, same).expect("a layer");
        let spike = Tensor::rand(SHAPE, FLOAT).ge(0.8).to_kind(Kind::Float).set_requires_grad(true);
        let x = Signal::SpikeTrace { spike, trace: Tensor::rand(SHAPE, FLOAT) };
        Self { layer: GradWithTrace::new(layer), x, grad: Tensor::randn(SHAPE, FLOAT) }
    }

    fn run(&mut self) {
        let y = self.layer.step(&self.x, true).expect("a step");
        backward(y.value(), &self.grad);
    }
}

fn one_pass(c: &mut Criterion) {
    let mut group = c.benchmark_group("WsConv2d 128 -> 128, forward and backward");
    group.sample_size(20);
    let mut convolution = Convolution::new();
    group.bench_function("one pass", |b| b.iter(|| convolution.run()));
    let two = FastPaths { one_pass: false, ..Default::default() };
    group.bench_function("two passes", |b| b.iter(|| with_fast_paths(two, || convolution.run())));
    group.finish();
}

criterion_group!(benches, neuron, surrogates, one_pass);

/// Median seconds of both in turn, so that a slow moment meets both.
fn alternating(rounds: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64) {
    let clock = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    a();
    b();
    let (mut first, mut second): (Vec<f64>, Vec<f64>) =
        (0..rounds).map(|_| (clock(&mut a), clock(&mut b))).unzip();
    first.sort_by(f64::total_cmp);
    second.sort_by(f64::total_cmp);
    (first[rounds / 2], second[rounds / 2])
}

fn ratio(what: &str, (ours, measure): (f64, f64)) {
    println!("{what:60} {:.2}", ours / measure);
}

/// The VGG's convolutions alone: forward, and backward to input and weight, six times.
struct Kernels(Vec<(Tensor, Tensor, Tensor)>);

impl Kernels {
    fn new() -> Self {
        let layers =
            [(3, 64, 32), (64, 128, 32), (128, 256, 16), (256, 256, 16), (256, 512, 8), (512, 512, 8)];
        let layers = layers.into_iter().chain([(512, 512, 4); 2]).enumerate();
        Self(
            layers
                .map(|(i, (from, to, size))| {
                    let x = Tensor::rand([16, from, size, size], FLOAT).set_requires_grad(i > 0);
                    let w = Tensor::rand([to, from, 3, 3], FLOAT).set_requires_grad(true);
                    (x, w, Tensor::rand([16, to, size, size], FLOAT))
                })
                .collect(),
        )
    }

    fn run(&mut self) {
        for (x, w, grad) in self.0.iter().cycle().take(6 * self.0.len()) {
            let y = x.conv2d(w, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let loss = with_gradient(&y, grad);
            let inputs = if x.requires_grad() { vec![x, w] } else { vec![w] };
            black_box(Tensor::run_backward(&[&loss], &inputs, false, false));
        }
    }
}

fn ratios() -> Result<()> {
    println!("\nratios, medians of alternating runs");
    let mut node = Neuron::new(Arc::new(Sigmoid::default()));
    let mut copies = Copies::of(7);
    let forward = alternating(200, || drop(black_box(node.forward())), || copies.run());
    ratio("neuron step forward / its bytes copied", forward);
    let mut copies = Copies::of(10);
    ratio(
        "neuron step forward and backward / their bytes copied",
        alternating(200, || node.both(), || copies.run()),
    );
    let (mut one, mut two) = (Convolution::new(), Convolution::new());
    let plain = FastPaths { one_pass: false, ..Default::default() };
    let passes = alternating(20, || one.run(), || with_fast_paths(plain, || two.run()));
    ratio("WsConv2d, one pass / two passes", passes);

    let vs = VarStore::new(Device::Cpu);
    let mut net = networks::build("vgg", &vs.root()).expect("a network");
    let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig { momentum: 0.9, ..Default::default() })?;
    let x_seq = repeat_over_time(&Tensor::randn([16, 3, 32, 32], FLOAT), 6)?;
    let label_seq = repeat_over_time(&Tensor::zeros([16], (Kind::Int64, Device::Cpu)), 6)?;
    let loss = OtttLoss::new(0.05, 6)?;
    let sequence = || {
        let forward = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        let update = Update::EndOfSequence;
        ottt_online_training(&mut net, &mut sgd, &x_seq, &label_seq, forward, update).expect("trains");
        net.reset();
    };
    let mut kernels = Kernels::new();
    ratio("vgg-k1 / its convolutions alone", alternating(5, sequence, || kernels.run()));
    Ok(())
}

fn main() -> Result<()> {
    keep_freed_memory();
    benches();
    ratios()
}
