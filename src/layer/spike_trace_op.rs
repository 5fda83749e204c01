//! The same operation on spike and trace.

use tch::Tensor;

use crate::error::{expect_like, Result};
use crate::module::{expect_time_steps, Layer, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;

/// Wraps a layer f without weights for OTTT: pooling, dropout, scaling.
///
/// (s_t, a_t) -> (f(s_t), f(a_t)), the trace without a gradient.
///
/// # Shapes
/// Spike and trace of one shape, one that f takes; the outputs are f's. A dense input passes through f
/// plainly.
///
/// # Cost
/// Two forward passes of f, the second without a graph.
///
/// # Source
/// SpikingJelly's `SpikeTraceOp`.
#[derive(Debug)]
pub struct SpikeTraceOp<M> {
    module: M,
}

impl<M: Layer> SpikeTraceOp<M> {
    /// Wraps `module`.
    pub fn new(module: M) -> Self {
        Self { module }
    }

    /// The wrapped layer.
    pub fn get_ref(&self) -> &M {
        &self.module
    }
}

impl<M: Layer> OnlineModule for SpikeTraceOp<M> {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.steps(x, 1, train)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        expect_time_steps(|| self.module.name(), time_steps)?;
        match x {
            Signal::Dense(x) => Ok(Signal::Dense(self.module.forward_steps(x, time_steps, train)?)),
            Signal::Constant(_) => self.steps(&x.shallow_clone().spread(time_steps)?, time_steps, train),
            Signal::SpikeTrace { spike, trace } => {
                spike_trace_op(&mut self.module, spike, trace, time_steps, train)
            }
        }
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

    fn scale(&self) -> Option<f64> {
        self.module.scale()
    }

    fn layout(&self) -> Layout {
        self.module.layout()
    }

    fn wrapper(&self) -> &'static str {
        "SpikeTraceOp"
    }
}

pub(super) fn spike_trace_op(
    module: &mut (impl Layer + ?Sized),
    spike: &Tensor,
    trace: &Tensor,
    time_steps: i64,
    train: bool,
) -> Result<Signal> {
    expect_like("the trace", trace, "the spike", spike)?;
    let spike = module.forward_steps(spike, time_steps, train)?;
    let _no_grad = tch::no_grad_guard(); // ends in a panic, too, which no_grad() does not
    let trace = module.forward_steps(&trace.detach(), time_steps, train)?;
    Ok(Signal::SpikeTrace { spike, trace })
}
