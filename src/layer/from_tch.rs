//! tch's own modules as layers.

use std::fmt::Debug;

use tch::nn::{self, ModuleT};
use tch::Tensor;

use super::check::{expect_convolvable, expect_features};
use crate::check::{expect_defined, Named};
use crate::error::{catch_panic, Result};
use crate::module::{Layer, Part, Properties, Variable};

/// Weight and bias under PyTorch's names.
fn weight_and_bias(weight: Option<&Tensor>, bias: Option<&Tensor>) -> Vec<Variable> {
    let named = [("weight", weight), ("bias", bias)];
    named.into_iter().filter_map(|(name, tensor)| Some(Variable::parameter(name, tensor?))).collect()
}

/// tch's modules panic where libtorch refuses: here that is an error.
fn forward(module: &(impl ModuleT + Part + ?Sized), x: &Tensor, train: bool) -> Result<Tensor> {
    expect_defined(Named(|| format!("{}'s input", module.name())), x)?;
    catch_panic(Named(|| module.name()), || module.forward_t(x, train))
}

/// Modules with a weight that is always there.
macro_rules! weighted {
    ($([$($generic:tt)*] $module:ty, $properties:expr, |$size:ident| $name:expr;)*) => {$(
        impl<$($generic)*> Part for $module {
            fn name(&self) -> String {
                let $size = self.ws.size();
                $name
            }

            fn variables(&self) -> Vec<Variable> {
                weight_and_bias(Some(&self.ws), self.bs.as_ref())
            }

            fn properties(&self) -> Properties {
                $properties
            }
        }
    )*};
}

weighted! {
    [] nn::Linear, Properties::default().affine().any_layout(),
        |size| format!("Linear({} -> {})", size[1], size[0]);
    [ND: Debug + Send] nn::Conv<ND>, Properties::default().affine().channels_last(),
        |size| format!("Conv{}d({} -> {}, {:?})", size.len() - 2, size[1], size[0], &size[2..]);
    [ND: Debug + Send] nn::ConvTransposeND<ND>, Properties::default().affine(),
        |size| format!("ConvTranspose{}d({} -> {}, {:?})", size.len() - 2, size[0], size[1], &size[2..]);
}

impl Layer for nn::Linear {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        expect_features(Named(|| self.name()), x, &self.ws)?;
        Ok(x.f_linear(&self.ws, self.bs.as_ref())?)
    }
}

impl<ND: Debug + Send> Layer for nn::Conv<ND>
where
    nn::Conv<ND>: ModuleT,
{
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_convolvable(Named(|| self.name()), x, &self.ws, None)?;
        forward(self, x, train)
    }
}

impl<ND: Debug + Send> Layer for nn::ConvTransposeND<ND>
where
    nn::ConvTransposeND<ND>: ModuleT,
{
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_convolvable(Named(|| self.name()), x, &self.ws, Some(self.ws.size()[0]))?;
        forward(self, x, train)
    }
}

/// Modules whose weights may be absent and whose forward is tch's.
macro_rules! normalizations {
    ($($module:ty, $properties:expr, buffers [$($buffer:ident),*]: |$m:ident| $name:expr;)*) => {$(
        impl Part for $module {
            fn name(&self) -> String {
                let $m = self;
                $name
            }

            fn variables(&self) -> Vec<Variable> {
                let mut variables = weight_and_bias(self.ws.as_ref(), self.bs.as_ref());
                variables.extend([$(Variable::buffer(stringify!($buffer), &self.$buffer)),*]);
                variables
            }

            fn properties(&self) -> Properties {
                $properties.any_layout()
            }
        }

        impl Layer for $module {
            fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
                forward(self, x, train)
            }
        }
    )*};
}

normalizations! {
    nn::BatchNorm, Properties::default(), buffers [running_mean, running_var]: |m| format!("BatchNorm({})", m.running_mean.size()[0]);
    nn::LayerNorm, Properties::default().samplewise(), buffers []: |m| format!("LayerNorm({:?})", m.normalized_shape);
    nn::GroupNorm, Properties::default().samplewise(), buffers []: |m| format!("GroupNorm({} groups, {})", m.num_groups, m.num_channels);
}

impl Part for nn::Embedding {
    fn name(&self) -> String {
        format!("Embedding({}, {})", self.ws.size()[0], self.ws.size()[1])
    }

    fn variables(&self) -> Vec<Variable> {
        weight_and_bias(Some(&self.ws), None)
    }

    fn properties(&self) -> Properties {
        Properties::default().samplewise()
    }
}

impl Layer for nn::Embedding {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

impl Part for nn::Func<'_> {}

impl Layer for nn::Func<'_> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

impl Part for nn::FuncT<'_> {}

impl Layer for nn::FuncT<'_> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// Any tch module, together with the list of its parameters.
///
/// ```
/// use spiketrace::{with_parameters, OtttSequential, Variable};
/// use tch::{nn, Device};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let linear = nn::linear(vs.root() / "fc", 4, 2, Default::default());
/// let parameters = vec![Variable::parameter("fc.weight", &linear.ws)];
/// let block = nn::seq().add(linear).add_fn(|x| x.relu());
/// let net = OtttSequential::new().add(with_parameters("Block", block, parameters));
/// assert!(net.to_string().contains("GradWithTrace"));
/// ```
#[derive(Debug)]
pub struct WithParameters<M> {
    name: String,
    module: M,
    parameters: Vec<Variable>,
    properties: Properties,
}

/// Makes a layer of a tch module that no impl here knows.
pub fn with_parameters<M: ModuleT>(
    name: impl Into<String>,
    module: M,
    parameters: Vec<Variable>,
) -> WithParameters<M> {
    WithParameters { name: name.into(), module, parameters, properties: Properties::default() }
}

impl<M> WithParameters<M> {
    /// Says that the module treats each sample of a batch by itself: then it takes several time steps in one
    /// pass. A module of relu and linear layers does, one with batch statistics does not.
    pub fn samplewise(self) -> Self {
        Self { properties: self.properties.samplewise(), ..self }
    }
}

impl<M: ModuleT> Part for WithParameters<M> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn variables(&self) -> Vec<Variable> {
        self.parameters.clone()
    }

    fn properties(&self) -> Properties {
        self.properties
    }
}

impl<M: ModuleT> Layer for WithParameters<M> {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_defined(format_args!("{}'s input", self.name), x)?;
        catch_panic(&self.name, || self.module.forward_t(x, train))
    }
}
