//! The value from the spike, the weights' gradient from the trace.

use tch::{Kind, Tensor};

use super::cast::{forward, reduced};
use crate::autograd::replace_for_grad;
use crate::error::{expect_like, Result};
use crate::fast::fast_paths;
use crate::ffi::{autocast, learn_from};
use crate::module::{expect_time_steps, Layer, Layout, Memory, OnlineModule, Parameter};
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
/// One forward pass where f is affine ([`Layer::is_affine`]): linear layers and convolutions run on the
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
}

impl<M: Layer> GradWithTrace<M> {
    /// Wraps `module`.
    pub fn new(module: M) -> Self {
        Self { module }
    }

    /// The wrapped layer.
    pub fn get_ref(&self) -> &M {
        &self.module
    }
}

impl<M: Layer> OnlineModule for GradWithTrace<M> {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.steps(x, 1, train)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        expect_time_steps(|| self.module.name(), time_steps)?;
        Ok(Signal::Dense(match x {
            Signal::Dense(x) => forward(&mut self.module, x, time_steps, train)?,
            Signal::Constant(_) => {
                return self.steps(&x.shallow_clone().spread(time_steps)?, time_steps, train)
            }
            Signal::SpikeTrace { spike, trace } => {
                grad_with_trace(&mut self.module, spike, trace, time_steps, train)?
            }
        }))
    }

    fn hold_weights(&mut self) -> Result<()> {
        self.module.hold_weights()
    }

    fn release_weights(&mut self) -> Result<()> {
        self.module.release_weights()
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.module.parameters()
    }

    fn buffers(&self) -> Vec<Parameter> {
        self.module.buffers()
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        self.module.memories()
    }

    fn name(&self) -> String {
        self.module.name()
    }

    fn layout(&self) -> Layout {
        self.module.layout()
    }

    fn wrapper(&self) -> &'static str {
        "GradWithTrace"
    }
}

pub(super) fn grad_with_trace(
    module: &mut (impl Layer + ?Sized),
    spike: &Tensor,
    trace: &Tensor,
    time_steps: i64,
    train: bool,
) -> Result<Tensor> {
    expect_like("the trace", trace, "the spike", spike)?;
    let value = if fast_paths().one_pass && module.is_affine() && !trace.requires_grad() {
        let (y, learns) = match reduced(module, spike) {
            Some(kind) => {
                let (spike, trace) = (spike.f_to_kind(kind)?, trace.f_to_kind(kind)?);
                let y = autocast(&spike, kind, || module.forward_steps(&spike, time_steps, train))?;
                let learns = !y.requires_grad() || learn_from(&y, &spike, &trace)?;
                (y.f_to_kind(Kind::Float)?, learns)
            }
            None => {
                let y = module.forward_steps(spike, time_steps, train)?;
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
        forward(module, spike, time_steps, train)?
    };
    let for_grad = forward(module, &replace_for_grad(spike, trace)?, time_steps, train)?;
    replace_for_grad(&for_grad, &value)
}
