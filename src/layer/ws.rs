//! Weight-standardized layers.
//!
//! Each output channel's weights are shifted and scaled before use:
//!
//! ```text
//! w' = gain (w - mean) / sqrt(var * fan_in + eps)
//! ```
//!
//! with the mean and the unbiased variance over the channel's fan_in weights. Activations keep their
//! scale without batch statistics, which online training cannot have.
//!
//! Source: Brock et al., *Characterizing signal propagation to close the performance gap in unnormalized
//! ResNets*, ICLR 2021, arXiv 2101.08692, as used by OTTT; SpikingJelly's `WSLinear` and `WSConv2d`.

use std::borrow::Borrow;

use tch::nn::{Init, Path};
use tch::Tensor;

use super::check::{expect_features, expect_images};
use super::standardize::standardize;
use crate::autograd::{Cut, Owner};
use crate::check::Named;
use crate::error::{guarded, Error, Result};
use crate::ffi::shape;
use crate::module::{Layer, Part, Pass, Properties, Variable};

/// The weights that both layers share.
#[derive(Debug)]
struct WsWeight {
    weight: Tensor,
    gain: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f64,
    owner: Owner,
}

impl WsWeight {
    fn new(layer: &str, vs: &Path<'_>, size: &[i64], init: WsLinearConfig) -> Result<Self> {
        // 0 where the product is too large for any memory.
        let fan_in = size[1..].iter().try_fold(1i64, |n, &dim| n.checked_mul(dim)).unwrap_or(0);
        if size[0] < 1 || fan_in < 2 {
            let expected = "at least 1 output and 2 weights an output, whose variance it divides by";
            return Err(Error::argument(&format!("{layer}'s weight"), expected, format!("{size:?}")));
        }
        if !(init.eps >= 0.0 && init.eps.is_finite()) {
            return Err(Error::argument(&format!("{layer}'s eps"), "a finite number from 0 on", init.eps));
        }
        // PyTorch's default for linear and convolution layers.
        let bound = 1.0 / (fan_in as f64).sqrt();
        let uniform = Init::Uniform { lo: -bound, up: bound };
        let mut gain_size = vec![1; size.len()];
        gain_size[0] = size[0];
        let gain = init.gain.then(|| vs.f_var("gain", &gain_size, Init::Const(1.0))).transpose()?;
        let bias = init.bias.then(|| vs.f_var("bias", &size[..1], init.bs_init.unwrap_or(uniform)));
        let weight = vs.f_var("weight", size, init.ws_init.unwrap_or(uniform))?;
        Ok(Self { weight, gain, bias: bias.transpose()?, eps: init.eps, owner: Owner::default() })
    }

    /// What forward computes with: w', made once for as long as the weights stand still.
    fn current(&self, pass: &Pass<'_>) -> Result<Tensor> {
        let Some(hold) = pass.hold else { return self.standardized() };
        hold.value(self.owner.key(), || {
            let sources = [Some(&self.weight), self.gain.as_ref()].into_iter().flatten();
            Cut::new(self.standardized()?, sources.map(Tensor::shallow_clone))
        })
    }

    /// w', differentiable in the weight and the gain.
    fn standardized(&self) -> Result<Tensor> {
        guarded("weight standardization", || standardize(&self.weight, self.gain.as_ref(), self.eps))
    }

    fn variables(&self) -> Vec<Variable> {
        let named =
            [("weight", Some(&self.weight)), ("bias", self.bias.as_ref()), ("gain", self.gain.as_ref())];
        named.into_iter().filter_map(|(name, tensor)| Some(Variable::parameter(name, tensor?))).collect()
    }
}

/// Options of [`ws_linear`].
#[derive(Debug, Clone, Copy)]
pub struct WsLinearConfig {
    /// Whether there is a bias. Default: true.
    pub bias: bool,
    /// Whether there is a learned gain per output. Default: true.
    pub gain: bool,
    /// Added under the root. Default: 1e-4.
    pub eps: f64,
    /// Of the weight; uniform in ±1/√fan_in if not given.
    pub ws_init: Option<Init>,
    /// Of the bias; uniform in ±1/√fan_in if not given.
    pub bs_init: Option<Init>,
}

impl Default for WsLinearConfig {
    fn default() -> Self {
        Self { bias: true, gain: true, eps: 1e-4, ws_init: None, bs_init: None }
    }
}

/// A linear layer with standardized weights, y = x W'^T + b.
///
/// # Shapes
/// `[.., in]` to `[.., out]`; `weight` `[out, in]`, `gain` `[out, 1]`, `bias` `[out]`.
#[doc(alias = "WSLinear")]
#[derive(Debug)]
pub struct WsLinear(WsWeight);

/// Makes a [`WsLinear`] with its variables under `vs`.
///
/// # Errors
/// When a size is below 1, the input has a single feature, or eps is out of range.
pub fn ws_linear<'a>(
    vs: impl Borrow<Path<'a>>,
    in_dim: i64,
    out_dim: i64,
    config: WsLinearConfig,
) -> Result<WsLinear> {
    WsWeight::new("WsLinear", vs.borrow(), &[out_dim, in_dim], config).map(WsLinear)
}

impl WsLinear {
    /// The standardized weight W'.
    pub fn standardized_weight(&self) -> Result<Tensor> {
        self.0.standardized()
    }
}

impl Part for WsLinear {
    fn name(&self) -> String {
        let size = self.0.weight.size();
        format!("WsLinear({} -> {})", size[1], size[0])
    }

    fn variables(&self) -> Vec<Variable> {
        self.0.variables()
    }

    fn properties(&self) -> Properties {
        Properties::default().affine().any_layout()
    }
}

impl Layer for WsLinear {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_pass(x, &Pass::new(train))
    }

    fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        expect_features(Named(|| self.name()), x, &self.0.weight)?;
        Ok(x.f_linear(&self.0.current(pass)?, self.0.bias.as_ref())?)
    }
}

/// Options of [`ws_conv2d`].
#[derive(Debug, Clone, Copy)]
pub struct WsConv2dConfig {
    /// Distance between windows. Default: 1.
    pub stride: i64,
    /// Zeros added on each side. Default: 0.
    pub padding: i64,
    /// Distance between a window's taps. Default: 1.
    pub dilation: i64,
    /// Independent groups of channels. Default: 1.
    pub groups: i64,
    /// Whether there is a bias. Default: true.
    pub bias: bool,
    /// Whether there is a learned gain per channel. Default: true.
    pub gain: bool,
    /// Added under the root. Default: 1e-4.
    pub eps: f64,
    /// Of the weight; uniform in ±1/√fan_in if not given.
    pub ws_init: Option<Init>,
    /// Of the bias; uniform in ±1/√fan_in if not given.
    pub bs_init: Option<Init>,
}

impl Default for WsConv2dConfig {
    fn default() -> Self {
        let WsLinearConfig { bias, gain, eps, ws_init, bs_init } = WsLinearConfig::default();
        Self { stride: 1, padding: 0, dilation: 1, groups: 1, bias, gain, eps, ws_init, bs_init }
    }
}

/// A 2-dimensional convolution with standardized weights.
///
/// # Shapes
/// `[N, in, H, W]` to `[N, out, H', W']`, H' = floor((H + 2 padding - dilation (k - 1) - 1) / stride) + 1;
/// `weight` `[out, in / groups, k, k]`, `gain` `[out, 1, 1, 1]`, `bias` `[out]`.
#[doc(alias = "WSConv2d")]
#[derive(Debug)]
pub struct WsConv2d {
    weight: WsWeight,
    config: WsConv2dConfig,
}

/// Makes a [`WsConv2d`] with a square kernel and its variables under `vs`.
///
/// # Errors
/// When a size is below 1, a channel has a single weight, groups do not divide the channels, or an
/// option is out of range.
pub fn ws_conv2d<'a>(
    vs: impl Borrow<Path<'a>>,
    in_dim: i64,
    out_dim: i64,
    ksize: i64,
    config: WsConv2dConfig,
) -> Result<WsConv2d> {
    let WsConv2dConfig { stride, padding, dilation, groups, bias, gain, eps, ws_init, bs_init } = config;
    let least =
        [("ksize", ksize, 1), ("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)];
    for (name, value, least) in least {
        if value < least {
            return Err(Error::argument(&format!("WsConv2d's {name}"), &format!("at least {least}"), value));
        }
    }
    if groups < 1 || in_dim % groups != 0 || out_dim % groups != 0 {
        let expected = format!("a divisor of both {in_dim} and {out_dim}");
        return Err(Error::argument("WsConv2d's groups", &expected, groups));
    }
    let init = WsLinearConfig { bias, gain, eps, ws_init, bs_init };
    let size = [out_dim, in_dim / groups, ksize, ksize];
    Ok(WsConv2d { weight: WsWeight::new("WsConv2d", vs.borrow(), &size, init)?, config })
}

impl WsConv2d {
    /// The standardized weight.
    pub fn standardized_weight(&self) -> Result<Tensor> {
        self.weight.standardized()
    }

    fn in_channels(&self) -> i64 {
        shape(&self.weight.weight)[1] * self.config.groups
    }
}

impl Part for WsConv2d {
    fn name(&self) -> String {
        let size = self.weight.weight.size();
        format!("WsConv2d({} -> {}, {}x{})", self.in_channels(), size[0], size[2], size[3])
    }

    fn variables(&self) -> Vec<Variable> {
        self.weight.variables()
    }

    fn properties(&self) -> Properties {
        Properties::default().affine().channels_last()
    }
}

impl Layer for WsConv2d {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_pass(x, &Pass::new(train))
    }

    fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        expect_images(Named(|| self.name()), x, &self.weight.weight, self.in_channels())?;
        let WsConv2dConfig { stride, padding, dilation, groups, .. } = self.config;
        let (w, b) = (self.weight.current(pass)?, self.weight.bias.as_ref());
        Ok(x.f_conv2d(&w, b, [stride; 2], [padding; 2], [dilation; 2], groups)?)
    }
}
