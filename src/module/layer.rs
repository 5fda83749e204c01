//! Maps from tensor to tensor.

use tch::Tensor;

use super::{Part, Pass};
use crate::error::Result;

/// A map from tensor to tensor: a weighted layer, a pooling, a dropout.
///
/// Every layer is an [`OnlineModule`](crate::OnlineModule) too: on a spike with its trace, one that has parameters acts
/// as [`GradWithTrace`](crate::GradWithTrace), one that has none as [`SpikeTraceOp`](crate::SpikeTraceOp).
///
/// ```
/// use spiketrace::{Layer, OtttSequential, Part, Properties, Result, Variable};
/// use tch::{nn, Device, Tensor};
///
/// /// y = w x, each feature by its own weight.
/// #[derive(Debug)]
/// struct Gain(Tensor);
///
/// impl Part for Gain {
///     fn variables(&self) -> Vec<Variable> {
///         vec![Variable::parameter("weight", &self.0)]
///     }
///
///     fn properties(&self) -> Properties {
///         // One sample never meets another: several time steps may go through in one pass.
///         Properties::default().samplewise()
///     }
/// }
///
/// impl Layer for Gain {
///     fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
///         Ok(x.f_mul(&self.0)?)
///     }
/// }
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let net = OtttSequential::new().add(Gain(vs.root().ones("weight", &[4])));
/// assert!(net.to_string().contains("GradWithTrace"));
/// ```
pub trait Layer: Part {
    /// The output at one time step; at several, where the properties say that this is the same.
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor>;

    /// The outputs of a pass, for a layer that has to know more of it than `train`. Default: [`forward`](Layer::forward).
    ///
    /// # Shapes
    /// `x` `[time_steps * N, ...]`, one step after another, and so the output.
    fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward(x, pass.train)
    }
}
