//! tch's own modules as layers.

use tch::nn::{self, ModuleT};
use tch::Tensor;

use super::cast::expect_kind_of;
use super::ws::expect_features;
use crate::error::{catch_panic, expect_defined, Error, Result};
use crate::module::{Layer, Layout, Parameter};

/// Weight and bias under PyTorch's names.
fn weight_and_bias(weight: Option<&Tensor>, bias: Option<&Tensor>) -> Vec<Parameter> {
    let named = [("weight", weight), ("bias", bias)];
    named.into_iter().filter_map(|(name, tensor)| Some(Parameter::new(name, tensor?))).collect()
}

/// tch's modules panic where libtorch refuses: here that is an error.
fn forward(module: &(impl ModuleT + ?Sized), name: &str, x: &Tensor, train: bool) -> Result<Tensor> {
    expect_defined(&format!("{name}'s input"), x)?;
    catch_panic(name, || module.forward_t(x, train))
}

impl Layer for nn::Linear {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        expect_features(&self.name(), x, &self.ws)?;
        Ok(x.f_linear(&self.ws, self.bs.as_ref())?)
    }

    fn parameters(&self) -> Vec<Parameter> {
        weight_and_bias(Some(&self.ws), self.bs.as_ref())
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        format!("Linear({} -> {})", self.ws.size()[1], self.ws.size()[0])
    }
}

/// Errors unless `x` is a batch (or one sample) with as many spatial dimensions as the kernel.
fn expect_convolvable(layer: &str, x: &Tensor, weight: &Tensor, channels: Option<i64>) -> Result<()> {
    let what = format!("{layer}'s input");
    let spatial = weight.dim() - 2;
    let wrong = |channels: String| {
        let expected = format!("[N, {channels}] and {spatial} spatial dimensions");
        Err(Error::shape(&what, expected, x, "compare with the layer below"))
    };
    if x.dim() != spatial + 2 && x.dim() != spatial + 1 {
        return wrong("C".to_owned());
    }
    let got = x.size()[x.dim() - spatial - 1];
    match channels {
        Some(channels) if got != channels => return wrong(channels.to_string()),
        // tch hides the groups: a multiple may be right.
        None if got % weight.size()[1] != 0 => return wrong(weight.size()[1].to_string()),
        _ => {}
    }
    expect_kind_of(&what, x, weight)
}

impl<ND: std::fmt::Debug + Send> Layer for nn::Conv<ND>
where
    nn::Conv<ND>: ModuleT,
{
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_convolvable(&self.name(), x, &self.ws, None)?;
        forward(self, &self.name(), x, train)
    }

    fn parameters(&self) -> Vec<Parameter> {
        weight_and_bias(Some(&self.ws), self.bs.as_ref())
    }

    fn layout(&self) -> Layout {
        Layout::ChannelsLast
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        let size = self.ws.size();
        format!("Conv{}d({} -> {}, {:?})", size.len() - 2, size[1], size[0], &size[2..])
    }
}

impl<ND: std::fmt::Debug + Send> Layer for nn::ConvTransposeND<ND>
where
    nn::ConvTransposeND<ND>: ModuleT,
{
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_convolvable(&self.name(), x, &self.ws, Some(self.ws.size()[0]))?;
        forward(self, &self.name(), x, train)
    }

    fn parameters(&self) -> Vec<Parameter> {
        weight_and_bias(Some(&self.ws), self.bs.as_ref())
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        let size = self.ws.size();
        format!("ConvTranspose{}d({} -> {}, {:?})", size.len() - 2, size[0], size[1], &size[2..])
    }
}

/// Modules whose weights may be absent and whose forward is tch's.
macro_rules! normalizations {
    ($($module:ty, samplewise $samplewise:literal, buffers [$($buffer:ident),*]: |$m:ident| $name:expr;)*) => {$(
        impl Layer for $module {
            fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
                forward(self, &self.name(), x, train)
            }

            fn parameters(&self) -> Vec<Parameter> {
                weight_and_bias(self.ws.as_ref(), self.bs.as_ref())
            }

            fn buffers(&self) -> Vec<Parameter> {
                vec![$(Parameter::new(stringify!($buffer), &self.$buffer)),*]
            }

            fn is_samplewise(&self) -> bool {
                $samplewise
            }

            fn layout(&self) -> Layout {
                Layout::Any
            }

            fn name(&self) -> String {
                let $m = self;
                $name
            }
        }
    )*};
}

normalizations! {
    nn::BatchNorm, samplewise false, buffers [running_mean, running_var]: |m| format!("BatchNorm({})", m.running_mean.size()[0]);
    nn::LayerNorm, samplewise true, buffers []: |m| format!("LayerNorm({:?})", m.normalized_shape);
    nn::GroupNorm, samplewise true, buffers []: |m| format!("GroupNorm({} groups, {})", m.num_groups, m.num_channels);
}

impl Layer for nn::Embedding {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, &self.name(), x, train)
    }

    fn parameters(&self) -> Vec<Parameter> {
        weight_and_bias(Some(&self.ws), None)
    }

    fn is_samplewise(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        format!("Embedding({}, {})", self.ws.size()[0], self.ws.size()[1])
    }
}

impl Layer for nn::Func<'_> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, "Func", x, train)
    }
}

impl Layer for nn::FuncT<'_> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, "FuncT", x, train)
    }
}

/// Any tch module, together with the list of its parameters.
///
/// ```
/// use spiketrace::{with_parameters, OtttSequential, Parameter};
/// use tch::{nn, Device};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let linear = nn::linear(vs.root() / "fc", 4, 2, Default::default());
/// let parameters = vec![Parameter::new("fc.weight", &linear.ws)];
/// let block = nn::seq().add(linear).add_fn(|x| x.relu());
/// let net = OtttSequential::new().add(with_parameters("Block", block, parameters));
/// assert!(net.to_string().contains("GradWithTrace"));
/// ```
#[derive(Debug)]
pub struct WithParameters<M> {
    name: String,
    module: M,
    parameters: Vec<Parameter>,
    samplewise: bool,
}

/// Makes a layer of a tch module that no impl here knows.
pub fn with_parameters<M: ModuleT>(
    name: impl Into<String>,
    module: M,
    parameters: Vec<Parameter>,
) -> WithParameters<M> {
    WithParameters { name: name.into(), module, parameters, samplewise: false }
}

impl<M> WithParameters<M> {
    /// Says that the module treats each sample of a batch by itself: then it takes several time steps in one
    /// pass. A module of relu and linear layers does, one with batch statistics does not.
    pub fn samplewise(self) -> Self {
        Self { samplewise: true, ..self }
    }
}

impl<M: ModuleT> Layer for WithParameters<M> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(&self.module, &self.name, x, train)
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.parameters.iter().map(|p| Parameter::new(p.name.clone(), &p.tensor)).collect()
    }

    fn is_samplewise(&self) -> bool {
        self.samplewise
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
