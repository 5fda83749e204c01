//! The value from the spike, the weights' gradient from the trace.

use super::online::pass_through;
use super::plan::Plan;
use crate::error::Result;
use crate::module::{said_by, Layer, OnlineModule, Part, Pass, Properties, Wrapper};
use crate::signal::Signal;

/// Wraps a weighted layer f for OTTT.
///
/// y_t = f(s_t; W) in value. For the gradient f stands as if it had seen the trace a_t: for a linear f
/// dL/dW = g a_t^T, while dL/ds_t = W^T g goes to the layer below through the spike. The trace gets the
/// same gradient if it asks for one.
///
/// # Shapes
/// Spike and trace of one shape, one that f takes; the output is f's. A dense input passes through f
/// plainly.
///
/// # Cost
/// One forward pass where f is affine ([`Properties::affine`]): linear layers and convolutions run on the
/// spike, and what their operation keeps for the weights' gradient is the trace. Any other f takes two,
/// one for the value without a graph and one on the trace for the graph; state that it keeps in forward,
/// such as batch statistics, sees both, spike first, as in SpikingJelly.
///
/// # Source
/// Xiao et al., arXiv 2210.04195, equation 10; SpikingJelly's `GradwithTrace`.
///
/// ```
/// use spiketrace::{GradWithTrace, OnlineModule, Signal};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let linear = nn::linear(vs.root(), 2, 1, Default::default());
/// let weight = linear.ws.shallow_clone();
///
/// let spike = Tensor::from_slice(&[1f32, 0.0]).view([1, 2]);
/// let trace = Tensor::from_slice(&[1.5f32, 0.5]).view([1, 2]);
/// let y = GradWithTrace::new(linear).step(&Signal::SpikeTrace { spike, trace: trace.copy() }, true)?;
/// y.value().sum(Kind::Float).f_backward()?;
/// assert_eq!(weight.grad(), trace);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "GradwithTrace")]
#[derive(Debug)]
pub struct GradWithTrace<M> {
    module: M,
    plan: Plan,
}

impl<M: Layer> GradWithTrace<M> {
    /// Wraps `module`.
    pub fn new(mut module: M) -> Self {
        let plan = Plan { wrapper: Wrapper::GradWithTrace, ..Plan::of_layer(&mut module) };
        Self { module, plan }
    }

    /// The wrapped layer.
    pub fn get_ref(&self) -> &M {
        &self.module
    }
}

impl<M: Layer> Part for GradWithTrace<M> {
    said_by!(self => self.module);

    fn properties(&self) -> Properties {
        self.plan.by_hand::<Self>()
    }
}

impl<M: Layer> OnlineModule for GradWithTrace<M> {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        pass_through(&mut self.module, &self.plan, x, pass)
    }
}
