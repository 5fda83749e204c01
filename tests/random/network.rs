//! A network from its description.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use spiketrace::surrogate::{ATan, Sigmoid, Surrogate};
use spiketrace::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Feedback,
    Flatten, GradWithTrace, Identity, InputTrace, MaxPool2d, Memory, NdotLifNode, OnlineModule,
    OtttLifConfig, OtttLifNode, OtttSequential, Part, Residual, Scale, ScriptModule, SlttLifConfig,
    SlttLifNode, SpikeTraceOp, WsConv2dConfig, WsLinearConfig,
};
use tch::nn::{self, ConvConfig, ConvTransposeConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::part::{self, Conv, ConvKind, Derivative, Neuron, Norm, Plain, Rule};
use crate::parts::{OwnAffine, OwnStateful, Triangle};

/// A network with its variables.
pub struct Network {
    pub vs: VarStore,
    pub net: OtttSequential,
    /// Whether several steps may go through together.
    pub steps_at_once: bool,
    /// Whether a batch normalization is in it, or a layer of neurons.
    pub batch_norm: bool,
    pub neurons: bool,
}

/// How many things an index may stand for.
pub const WORDS: i64 = 9;

/// Builds a network for inputs `[N, ...size]`, of indices where it is to begin with an embedding, which ends in a
/// readout `[N, classes]`.
pub fn build(parts: &[part::Part], size: &[i64], embeds: bool, classes: i64, kind: Kind) -> Network {
    let vs = VarStore::new(Device::Cpu);
    let mut builder = Builder {
        vs: &vs,
        kind,
        size: size.to_vec(),
        pair: false,
        places: 0,
        known: BTreeMap::new(),
        steps_at_once: true,
        batch_norm: false,
        neurons: false,
    };
    let mut net = OtttSequential::new();
    if embeds {
        let embedding = nn::embedding(vs.root() / "embedding", WORDS, 4, Default::default());
        builder.size.push(4);
        net = net.add(embedding);
    }
    let net = builder.fill(net, parts, false);
    let net = builder.flatten(net);
    let features = builder.size[0];
    let readout = nn::linear(vs.root() / "readout", features, classes, Default::default());
    let net = net.add_named("readout", readout).unwrap();
    let Builder { steps_at_once, batch_norm, neurons, .. } = builder;
    let mut network = Network { vs, net, steps_at_once, batch_norm, neurons };
    network.vs.set_kind(kind);
    network.set_weights();
    network
}

/// Numbers from -1 to 1.
pub fn numbers(size: &[i64], seed: usize) -> Tensor {
    let count: i64 = size.iter().product();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * (12.9898 + seed as f64) + 0.5).sin().view(size)
}

impl Network {
    /// Weights that keep the signal's scale, biases that wake neurons up.
    fn set_weights(&self) {
        for (i, p) in self.net.parameters().into_iter().enumerate() {
            let size = p.tensor.size();
            let fan_in: i64 = size.iter().skip(1).product();
            let values = numbers(&size, i + 1);
            let values = match p.name.rsplit('.').next() {
                Some("weight") if size.len() > 1 => values * (3.0 / (fan_in as f64).sqrt()) + 0.05,
                Some("weight" | "gain") => values * 0.2 + 1.0,
                _ => values * 0.3 + 0.1,
            };
            tch::no_grad(|| p.tensor.shallow_clone().copy_(&values));
        }
    }
}

impl Network {
    /// Changes each weight a little, to see how much that means.
    pub fn nudge(&self, share: f64) {
        for (i, p) in self.net.parameters().into_iter().enumerate() {
            let factor = numbers(&p.tensor.size(), i + 500) * share + 1.0;
            let _ = tch::no_grad(|| p.tensor.shallow_clone().g_mul_(&factor));
        }
    }
}

struct Builder<'a> {
    vs: &'a VarStore,
    kind: Kind,
    /// The size of one sample, so far.
    size: Vec<i64>,
    /// Whether a spike with its trace has come so far, in training.
    pair: bool,
    places: i64,
    /// Linear layers by their sizes.
    known: BTreeMap<(i64, i64), Tensor>,
    steps_at_once: bool,
    batch_norm: bool,
    neurons: bool,
}

impl Builder<'_> {
    fn place(&mut self) -> nn::Path<'_> {
        self.places += 1;
        self.vs.root() / self.places
    }

    fn last(&self) -> i64 {
        self.size[self.size.len() - 1]
    }

    fn set_last(&mut self, out: i64) {
        let last = self.size.len() - 1;
        self.size[last] = out;
        self.pair = false;
    }

    fn linear(&mut self, out: i64, bias: bool) -> nn::Linear {
        let features = self.last();
        let linear = nn::linear(self.place(), features, out, nn::LinearConfig { bias, ..Default::default() });
        self.known.insert((features, out), linear.ws.shallow_clone());
        self.set_last(out);
        linear
    }

    /// Adds all parts, under names of their own or by their places.
    fn fill(&mut self, mut net: OtttSequential, parts: &[part::Part], named: bool) -> OtttSequential {
        for part in parts {
            net = self.add(net, part, named);
        }
        net
    }

    fn push(net: OtttSequential, module: impl OnlineModule + 'static, named: bool) -> OtttSequential {
        match named {
            true => {
                let name = format!("part{}", net.len());
                net.add_named(&name, module).unwrap()
            }
            false => net.add(module),
        }
    }

    fn flatten(&mut self, net: OtttSequential) -> OtttSequential {
        if self.size.len() == 1 {
            return net;
        }
        self.size = vec![self.size.iter().product()];
        net.add(Flatten::default())
    }

    fn add(&mut self, net: OtttSequential, part: &part::Part, named: bool) -> OtttSequential {
        match part {
            part::Part::Linear { out, bias, frozen } => {
                let linear = self.linear(*out, *bias);
                let all = [Some(&linear.ws), linear.bs.as_ref()];
                all.into_iter().flatten().for_each(|w| drop(w.set_requires_grad(!frozen)));
                Self::push(net, linear, named)
            }
            part::Part::Shared => {
                let features = self.last();
                let same = self.known.iter().find(|(sizes, _)| sizes.0 == features);
                match same.map(|(sizes, ws)| (sizes.1, ws.shallow_clone())) {
                    Some((out, ws)) => {
                        self.set_last(out);
                        Self::push(net, nn::Linear { ws, bs: None }, named)
                    }
                    None => Self::push(net, self.linear(features, false), named),
                }
            }
            part::Part::WsLinear { out, gain } if self.last() > 1 => {
                let (features, config) = (self.last(), WsLinearConfig { gain: *gain, ..Default::default() });
                let layer = ws_linear(self.place(), features, *out, config).unwrap();
                self.set_last(*out);
                Self::push(net, layer, named)
            }
            part::Part::WsLinear { out, .. } => Self::push(net, self.linear(*out, true), named),
            part::Part::Conv(conv) => self.conv(net, *conv, named),
            part::Part::Norm(norm) => self.norm(net, *norm, named),
            part::Part::Neuron(neuron) => self.neuron(net, neuron, named),
            part::Part::Plain(plain) => self.plain(net, *plain, named),
            part::Part::OwnAffine { out } => {
                let features = self.last();
                let weight = self.place().var("weight", &[*out, features], nn::Init::Const(0.0));
                self.set_last(*out);
                Self::push(net, OwnAffine(weight), named)
            }
            part::Part::OwnStateful => {
                let weight = self.place().var("weight", &[1], nn::Init::Const(1.0));
                (self.steps_at_once, self.pair) = (false, false);
                Self::push(net, OwnStateful { weight, before: Memory::default() }, named)
            }
            part::Part::Script => {
                let net = self.flatten(net);
                let net = Self::push(net, self.linear(36, true), named);
                let suffix = if self.kind == Kind::Double { "f64" } else { "f32" };
                let file = format!("tests/fixtures/script_modules/mlp.{suffix}.pt");
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                let module = ScriptModule::load(self.place(), file, Default::default()).unwrap();
                self.steps_at_once = false;
                self.set_last(4);
                Self::push(net, module, named)
            }
            part::Part::ByHand { weighted: true } => {
                let linear = self.linear(4, true);
                Self::push(net, GradWithTrace::new(linear), named)
            }
            part::Part::ByHand { weighted: false } => Self::push(net, SpikeTraceOp::new(Scale(1.5)), named),
            part::Part::Nested { named: inside, parts } => {
                let inner = self.fill(OtttSequential::new(), parts, *inside);
                Self::push(net, inner, named)
            }
            part::Part::Residual { block, linear } => self.residual(net, block, *linear, named),
            part::Part::Feedback { connection, block } => self.feedback(net, connection, block, named),
        }
    }

    fn conv(&mut self, net: OtttSequential, conv: Conv, named: bool) -> OtttSequential {
        let Conv { out, kernel, stride, padding, grouped, kind, bias } = conv;
        let size = self.size.clone();
        if size.len() == 1 {
            return Self::push(net, self.linear(out, bias), named);
        }
        let kernel = size[1..].iter().copied().min().unwrap_or(1).min(kernel);
        let channels = size[0];
        // With as many outputs a channel as were asked for in all.
        let (groups, out) = if grouped { (channels, out * channels) } else { (1, out) };
        let transposed = matches!(kind, ConvKind::Transposed);
        let moved = |n: i64| match transposed {
            true => (n - 1) * stride + kernel,
            false => (n + 2 * padding - kernel) / stride + 1,
        };
        self.size = std::iter::once(out).chain(size[1..].iter().map(|&n| moved(n))).collect();
        self.pair = false;
        let p = self.place();
        let config = ConvConfig { stride, padding, groups, bias, ..Default::default() };
        let back = ConvTransposeConfig { stride, groups, bias, ..Default::default() };
        match (kind, size.len()) {
            (ConvKind::Standardized, 3) if channels / groups * kernel * kernel > 1 => {
                let config = WsConv2dConfig { stride, padding, groups, bias, ..Default::default() };
                Self::push(net, ws_conv2d(p, channels, out, kernel, config).unwrap(), named)
            }
            (ConvKind::Transposed, 2) => {
                Self::push(net, nn::conv_transpose1d(p, channels, out, kernel, back), named)
            }
            (ConvKind::Transposed, 3) => {
                Self::push(net, nn::conv_transpose2d(p, channels, out, kernel, back), named)
            }
            (ConvKind::Transposed, _) => {
                Self::push(net, nn::conv_transpose3d(p, channels, out, kernel, back), named)
            }
            (_, 2) => Self::push(net, nn::conv1d(p, channels, out, kernel, config), named),
            (_, 3) => Self::push(net, nn::conv2d(p, channels, out, kernel, config), named),
            _ => Self::push(net, nn::conv3d(p, channels, out, kernel, config), named),
        }
    }

    fn norm(&mut self, net: OtttSequential, norm: Norm, named: bool) -> OtttSequential {
        let size = self.size.clone();
        self.pair = false;
        match norm {
            Norm::Batch => {
                (self.steps_at_once, self.batch_norm) = (false, true);
                let config = nn::BatchNormConfig { eps: 1e-2, ..Default::default() };
                match size.len() {
                    3 => Self::push(net, nn::batch_norm2d(self.place(), size[0], config), named),
                    4 => Self::push(net, nn::batch_norm3d(self.place(), size[0], config), named),
                    _ => Self::push(net, nn::batch_norm1d(self.place(), size[0], config), named),
                }
            }
            Norm::Layer => {
                let config = nn::LayerNormConfig { eps: 1e-2, ..Default::default() };
                let features = vec![self.last()];
                Self::push(net, nn::layer_norm(self.place(), features, config), named)
            }
            Norm::Group => {
                let config = nn::GroupNormConfig { eps: 1e-2, ..Default::default() };
                Self::push(net, nn::group_norm(self.place(), 1, size[0], config), named)
            }
        }
    }

    fn neuron(&mut self, net: OtttSequential, neuron: &Neuron, named: bool) -> OtttSequential {
        let &Neuron { rule, tau, decay_input, v_threshold, v_reset, derivative } = neuron;
        let surrogate: Arc<dyn Surrogate> = match derivative {
            Derivative::Sigmoid => Arc::new(Sigmoid { alpha: 2.0 }),
            Derivative::ATan => Arc::new(ATan::default()),
            Derivative::Own => Arc::new(Triangle),
        };
        (self.neurons, self.pair) = (true, true);
        let config = OtttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate };
        match rule {
            Rule::Ottt => Self::push(net, OtttLifNode::new(config).unwrap(), named),
            Rule::Ndot => Self::push(net, NdotLifNode::new(config).unwrap(), named),
            Rule::Sltt => {
                self.pair = false;
                let OtttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate } = config;
                let config = SlttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate };
                Self::push(net, SlttLifNode::new(config).unwrap(), named)
            }
        }
    }

    fn plain(&mut self, net: OtttSequential, plain: Plain, named: bool) -> OtttSequential {
        let image = self.size.len() == 3;
        let divides = image && self.size[1] > 1 && self.size[2] > 1;
        match plain {
            Plain::Scale(factor) => Self::push(net, Scale(factor), named),
            Plain::Dropout => Self::push(net, Dropout::new(0.3).unwrap(), named),
            Plain::Dropout2d if image => Self::push(net, Dropout2d::new(0.2).unwrap(), named),
            Plain::AvgPool if divides => {
                self.size = vec![self.size[0], self.size[1] / 2, self.size[2] / 2];
                Self::push(net, AvgPool2d::new(2, Default::default()).unwrap(), named)
            }
            Plain::MaxPool if divides => {
                self.size = vec![self.size[0], self.size[1] / 2, self.size[2] / 2];
                Self::push(net, MaxPool2d::new(2, Default::default()).unwrap(), named)
            }
            Plain::AdaptivePool if image => {
                self.size = vec![self.size[0], 2, 1];
                Self::push(net, AdaptiveAvgPool2d::new([2, 1]).unwrap(), named)
            }
            Plain::Flatten => {
                self.size = vec![self.size.iter().product()];
                Self::push(net, Flatten::default(), named)
            }
            Plain::InputTrace if !self.pair => {
                self.pair = true;
                Self::push(net, InputTrace::new(2.5).unwrap(), named)
            }
            Plain::Tanh => {
                self.steps_at_once = false;
                Self::push(net, nn::func(|x| x.tanh()), named)
            }
            Plain::Samplewise => {
                let leaky = nn::func(|x| x.maximum(&(x * 0.25)));
                Self::push(net, with_parameters("leaky", leaky, Vec::new()).samplewise(), named)
            }
            _ => Self::push(net, Identity, named),
        }
    }

    fn residual(
        &mut self,
        net: OtttSequential,
        block: &[part::Part],
        linear: bool,
        named: bool,
    ) -> OtttSequential {
        let net = self.flatten(net);
        let features = self.last();
        let block = self.fill(OtttSequential::new(), block, false);
        let block = self.flatten(block);
        let block = block.add(self.linear(features, true));
        let residual = match linear {
            true => Residual::with_shortcut(block, self.linear(features, false)),
            false => Residual::new(block),
        };
        Self::push(net, residual, named)
    }

    fn feedback(
        &mut self,
        net: OtttSequential,
        connection: &[part::Part],
        block: &[part::Part],
        named: bool,
    ) -> OtttSequential {
        let mut net = self.flatten(net);
        if self.pair {
            net = net.add(self.linear(5, true));
        }
        let features = self.last();
        let block = self.fill(OtttSequential::new(), block, false);
        let (size, pair) = (self.size.clone(), self.pair);
        let connection = self.fill(OtttSequential::new(), connection, true);
        let connection = self.flatten(connection);
        let connection = connection.add_named("last", self.linear(features, false)).unwrap();
        (self.size, self.pair, self.steps_at_once) = (size, pair, false);
        Self::push(net, Feedback::new(connection, block), named)
    }
}
