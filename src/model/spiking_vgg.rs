//! The spiking VGG network of OTTT.

use std::borrow::Borrow;
use std::fmt;

use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::nn::{self, Init, Path};

use crate::error::{catch_panic, Error, Result};
use crate::layer::{
    ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Flatten, MaxPool2d, OtttSequential, Scale,
    WsConv2dConfig, WsLinearConfig,
};
use crate::module::{said_by, OnlineModule, Part, Pass, Properties};
use crate::neuron::{NdotLifConfig, NdotLifNode, OtttLifConfig, OtttLifNode, SlttLifConfig, SlttLifNode};
use crate::signal::Signal;

/// What spikes are multiplied by where weights are standardized: back to a variance of about 1.
const WS_SCALE: f64 = 2.74;

/// One entry of a VGG's list of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VggStage {
    /// A 3x3 convolution to so many channels, and a neuron after it.
    Conv(i64),
    /// `"M"`: the largest of each 2x2 window.
    MaxPool,
    /// `"A"`: the mean of each 2x2 window.
    AvgPool,
}

/// What makes classes of the last images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VggClassifier {
    /// The mean of `fc_hw` x `fc_hw` regions and one linear layer.
    Light,
    /// The mean of 7x7 regions, two linear layers of `hidden` neurons with dropout of 0.5, and a linear layer.
    Heavy {
        /// 4096 in the family.
        hidden: i64,
    },
}

/// The layers of an [`OtttSpikingVgg`]; the nine of SpikingJelly are its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VggArchitecture<'a> {
    /// Convolutions and poolings in order.
    pub cfg: &'a [VggStage],
    /// Whether weights are standardized, and spikes multiplied by 2.74.
    pub weight_standardization: bool,
    /// SpikingJelly's `light_classifier`.
    #[doc(alias = "light_classifier")]
    pub classifier: VggClassifier,
}

/// The neuron after each convolution.
#[derive(Debug, Clone)]
pub enum SpikingNeuron {
    /// Spikes with traces; [`OtttLifNode`].
    Ottt(OtttLifConfig),
    /// Plain spikes; [`SlttLifNode`]. SpikingJelly's plain `LIFNode` is the same in evaluation and in online
    /// training, and, with `detach_reset`, in [`bptt_training`](crate::train::bptt_training).
    #[doc(alias = "LIFNode")]
    Sltt(SlttLifConfig),
    /// Spikes with traces that fade as potentials do; [`NdotLifNode`]. SpikingJelly has none.
    Ndot(NdotLifConfig),
}

impl Default for SpikingNeuron {
    fn default() -> Self {
        Self::Ottt(OtttLifConfig::default())
    }
}

/// Options of the VGG networks, with SpikingJelly's names and defaults.
#[derive(Debug, Clone)]
pub struct OtttSpikingVggConfig {
    /// 1000.
    pub num_classes: i64,
    /// Channels of the input, 3; event cameras have 2. SpikingJelly has 3 only.
    pub in_channels: i64,
    /// An OTTT node with its defaults.
    pub spiking_neuron: SpikingNeuron,
    /// Probability of the dropout after each neuron of the convolutions; 0, which leaves the layer out.
    pub drop_rate: f64,
    /// Regions a side that the light classifier tells apart, 1. SpikingJelly meant to have it, and fails.
    pub fc_hw: i64,
    /// Whether weights are drawn as in the paper, convolutions by Kaiming and linear layers normal with
    /// deviation 0.01, biases 0; else as PyTorch's layers do, uniform in ±1/√fan_in. Default: true.
    pub init_weights: bool,
}

impl Default for OtttSpikingVggConfig {
    fn default() -> Self {
        Self {
            num_classes: 1000,
            in_channels: 3,
            spiking_neuron: SpikingNeuron::default(),
            drop_rate: 0.0,
            fc_hw: 1,
            init_weights: true,
        }
    }
}

/// A spiking VGG network.
///
/// Convolutions of 3x3, each with a neuron, poolings between them, and a classifier: an [`OtttSequential`] whose
/// modules bear SpikingJelly's names, such as `features.0.weight` and `classifier.2.bias`.
///
/// # Shapes
/// `[N, in_channels, H, W]` to `[N, num_classes]`, one step a call. Each pooling halves H and W.
///
/// # Source
/// Xiao et al., arXiv 2210.04195, section 5; SpikingJelly's `OTTTSpikingVGG`.
///
/// ```
/// use spiketrace::model::{OtttSpikingVgg, OtttSpikingVggConfig, VggArchitecture, VggClassifier, VggStage};
/// use spiketrace::{OnlineModule, Part};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let architecture = VggArchitecture {
///     cfg: &[VggStage::Conv(8), VggStage::AvgPool, VggStage::Conv(16)],
///     weight_standardization: true,
///     classifier: VggClassifier::Light,
/// };
/// let config = OtttSpikingVggConfig { num_classes: 11, in_channels: 2, ..Default::default() };
/// let mut net = OtttSpikingVgg::new(vs.root(), architecture, config)?;
/// let y = net.step(&Tensor::rand([3, 2, 16, 16], (Kind::Float, Device::Cpu)).into(), true)?;
/// assert_eq!(y.value().size(), [3, 11]);
/// assert_eq!(net.parameters()[0].name, "features.0.weight");
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "OTTTSpikingVGG")]
#[derive(Debug)]
pub struct OtttSpikingVgg(OtttSequential);

impl OtttSpikingVgg {
    /// A network with its variables under `vs`.
    ///
    /// # Errors
    /// When the architecture has no convolution, a size is below 1, or `drop_rate` is not in [0, 1).
    pub fn new<'a>(
        vs: impl Borrow<Path<'a>>,
        architecture: VggArchitecture<'_>,
        config: OtttSpikingVggConfig,
    ) -> Result<Self> {
        let VggArchitecture { cfg, weight_standardization: ws, classifier } = architecture;
        check(cfg, classifier, &config)?;
        let vs = vs.borrow();
        let mut features =
            Section { name: "features", vs, config: &config, ws, net: OtttSequential::new(), len: 0 };
        let mut channels = config.in_channels;
        for stage in cfg {
            match *stage {
                VggStage::MaxPool => features.add(MaxPool2d::new(2, Default::default())?),
                VggStage::AvgPool => features.add(AvgPool2d::new(2, Default::default())?),
                VggStage::Conv(out) => {
                    features.conv(channels, out)?;
                    features.neuron()?;
                    if ws {
                        features.add(Scale(WS_SCALE));
                    }
                    if config.drop_rate > 0.0 {
                        features.add(Dropout::new(config.drop_rate)?);
                    }
                    channels = out;
                }
            }
        }
        let mut last = Section { name: "classifier", len: 0, ..features };
        let (regions, hidden) = match classifier {
            VggClassifier::Light => (config.fc_hw, None),
            VggClassifier::Heavy { hidden } => (7, Some(hidden)),
        };
        last.add(AdaptiveAvgPool2d::new([regions; 2])?);
        last.add(Flatten::default());
        let mut inputs = channels * regions * regions;
        for hidden in hidden.into_iter().cycle().take(2) {
            last.linear(inputs, hidden, ws)?;
            last.neuron()?;
            last.add(Scale(if ws { WS_SCALE } else { 1.0 }));
            last.add(Dropout::new(0.5)?);
            inputs = hidden;
        }
        last.linear(inputs, config.num_classes, false)?;
        Ok(Self(last.net))
    }

    /// [`step`](OnlineModule::step), with the signal after each module shown to `inspect`.
    pub fn step_inspected(
        &mut self,
        x: &Signal,
        train: bool,
        inspect: impl FnMut(usize, &dyn OnlineModule, &Signal),
    ) -> Result<Signal> {
        self.0.step_inspected(x, train, inspect)
    }
}

fn check(cfg: &[VggStage], classifier: VggClassifier, config: &OtttSpikingVggConfig) -> Result<()> {
    if !cfg.iter().any(|stage| matches!(stage, VggStage::Conv(_))) {
        return Err(Error::argument("cfg", "at least one convolution", format!("{cfg:?}")));
    }
    let OtttSpikingVggConfig { num_classes, in_channels, fc_hw, drop_rate, .. } = *config;
    let channels = cfg.iter().filter_map(|stage| match stage {
        VggStage::Conv(channels) => Some(("a convolution's channels", *channels)),
        _ => None,
    });
    let sizes = [("num_classes", num_classes), ("in_channels", in_channels), ("fc_hw", fc_hw)];
    let hidden = match classifier {
        VggClassifier::Heavy { hidden } => Some(("the classifier's hidden", hidden)),
        VggClassifier::Light => None,
    };
    for (name, size) in sizes.into_iter().chain(channels).chain(hidden) {
        if size < 1 {
            return Err(Error::argument(name, "at least 1", size));
        }
    }
    if hidden.is_some() && fc_hw != 1 {
        return Err(Error::argument(
            "fc_hw",
            "1 with the heavy classifier, which tells 7x7 regions apart",
            fc_hw,
        ));
    }
    if !(0.0..1.0).contains(&drop_rate) {
        return Err(Error::argument("drop_rate", "a probability from 0 to below 1", drop_rate));
    }
    Ok(())
}

/// One of the two containers that the network has in SpikingJelly: a prefix of names here.
struct Section<'a, 'v> {
    name: &'static str,
    vs: &'a Path<'v>,
    config: &'a OtttSpikingVggConfig,
    ws: bool,
    net: OtttSequential,
    /// How many modules the part has.
    len: usize,
}

impl<'v> Section<'_, 'v> {
    fn add(&mut self, module: impl OnlineModule + 'static) {
        let name = format!("{}.{}", self.name, self.len);
        self.net = std::mem::take(&mut self.net).push(name, module);
        self.len += 1;
    }

    /// Where the variables of the next module lie.
    fn path(&self) -> Path<'v> {
        self.vs / self.name / self.len
    }

    fn neuron(&mut self) -> Result<()> {
        match self.config.spiking_neuron.clone() {
            SpikingNeuron::Ottt(config) => self.add(OtttLifNode::new(config)?),
            SpikingNeuron::Sltt(config) => self.add(SlttLifNode::new(config)?),
            SpikingNeuron::Ndot(config) => self.add(NdotLifNode::new(config)?),
        }
        Ok(())
    }

    fn conv(&mut self, channels: i64, out: i64) -> Result<()> {
        let kaiming = Init::Kaiming {
            dist: NormalOrUniform::Normal,
            fan: FanInOut::FanOut,
            non_linearity: NonLinearity::ReLU,
        };
        let (ws_init, bs_init) = self.inits(kaiming, channels * 9);
        if self.ws {
            let (ws_init, bs_init) = (Some(ws_init), Some(bs_init));
            let config = WsConv2dConfig { padding: 1, ws_init, bs_init, ..Default::default() };
            self.add(ws_conv2d(self.path(), channels, out, 3, config)?);
        } else {
            let config = nn::ConvConfig { padding: 1, ws_init, bs_init, ..Default::default() };
            self.add(catch_panic("conv2d", || nn::conv2d(self.path(), channels, out, 3, config))?);
        }
        Ok(())
    }

    fn linear(&mut self, inputs: i64, outputs: i64, ws: bool) -> Result<()> {
        let (ws_init, bs_init) = self.inits(Init::Randn { mean: 0.0, stdev: 0.01 }, inputs);
        if ws {
            let (ws_init, bs_init) = (Some(ws_init), Some(bs_init));
            let config = WsLinearConfig { ws_init, bs_init, ..Default::default() };
            self.add(ws_linear(self.path(), inputs, outputs, config)?);
        } else {
            let config = nn::LinearConfig { ws_init, bs_init: Some(bs_init), bias: true };
            self.add(catch_panic("linear", || nn::linear(self.path(), inputs, outputs, config))?);
        }
        Ok(())
    }

    /// How weight and bias are drawn.
    fn inits(&self, of_paper: Init, fan_in: i64) -> (Init, Init) {
        if self.config.init_weights {
            return (of_paper, Init::Const(0.0));
        }
        let bound = 1.0 / (fan_in as f64).sqrt();
        let uniform = Init::Uniform { lo: -bound, up: bound };
        (uniform, uniform)
    }
}

/// All is the container's.
impl Part for OtttSpikingVgg {
    said_by!(self => self.0);

    fn properties(&self) -> Properties {
        self.0.properties()
    }
}

impl OnlineModule for OtttSpikingVgg {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        self.0.pass(x, pass)
    }
}

/// The container's table.
impl fmt::Display for OtttSpikingVgg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
