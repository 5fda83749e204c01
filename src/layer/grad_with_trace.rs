//! The value from the spike, the weights' gradient from the trace.

use tch::{Kind, Tensor};

use super::online::pass_through;
use super::plan::Plan;
use super::rounded::{autocast, forward, reduced};
use crate::autograd::replace_for_grad;
use crate::error::Result;
use crate::ffi::learn_from;
use crate::module::{Layer, Memory, OnlineModule, Part, Pass, Properties, Variable, Wrapper};
use crate::setting::fast_paths;
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
        let plan = Plan::of_layer(&mut module).wrapped(Wrapper::GradWithTrace);
        Self { module, plan }
    }

    /// The wrapped layer.
    pub fn get_ref(&self) -> &M {
        &self.module
    }
}

impl<M: Layer> Part for GradWithTrace<M> {
    fn name(&self) -> String {
        self.module.name()
    }

    fn variables(&self) -> Vec<Variable> {
        self.module.variables()
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        self.module.memories()
    }

    fn properties(&self) -> Properties {
        self.plan.by_hand()
    }
}

impl<M: Layer> OnlineModule for GradWithTrace<M> {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        pass_through(&mut self.module, &self.plan, x, pass)
    }
}

pub(super) fn grad_with_trace(
    layer: &mut (impl Layer + ?Sized),
    is_affine: bool,
    spike: &Tensor,
    trace: &Tensor,
    pass: &Pass<'_>,
) -> Result<Tensor> {
    let value = if fast_paths().one_pass && is_affine && !trace.requires_grad() {
        let (y, learns) = match reduced(is_affine, spike) {
            Some(kind) => {
                let (spike, trace) = (spike.f_to_kind(kind)?, trace.f_to_kind(kind)?);
                let y = autocast(&spike, kind, || layer.forward_pass(&spike, pass))?;
                let learns = !y.requires_grad() || learn_from(&y, &spike, &trace)?;
                (y.f_to_kind(Kind::Float)?, learns)
            }
            None => {
                let y = layer.forward_pass(spike, pass)?;
                let learns = !y.requires_grad() || learn_from(&y, spike, trace)?;
                (y, learns)
            }
        };
        if learns {
            return Ok(y);
        }
        y.f_detach()?
    } else {
        let _no_grad = tch::no_grad_guard(); // ends in a panic, too, which no_grad() does not
        forward(layer, is_affine, spike, pass)?
    };
    let for_grad = forward(layer, is_affine, &replace_for_grad(spike, trace)?, pass)?;
    replace_for_grad(&for_grad, &value)
}
