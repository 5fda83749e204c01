//! The same operation on spike and trace.

use super::online::pass_through;
use super::plan::Plan;
use crate::error::Result;
use crate::module::{said_by, Layer, OnlineModule, Part, Pass, Properties, Wrapper};
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
    plan: Plan,
}

impl<M: Layer> SpikeTraceOp<M> {
    /// Wraps `module`.
    pub fn new(mut module: M) -> Self {
        let plan = Plan { wrapper: Wrapper::SpikeTraceOp, ..Plan::of_layer(&mut module) };
        Self { module, plan }
    }

    /// The wrapped layer.
    pub fn get_ref(&self) -> &M {
        &self.module
    }
}

impl<M: Layer> Part for SpikeTraceOp<M> {
    said_by!(self => self.module);

    fn properties(&self) -> Properties {
        self.plan.by_hand::<Self>()
    }
}

impl<M: Layer> OnlineModule for SpikeTraceOp<M> {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        pass_through(&mut self.module, &self.plan, x, pass)
    }
}
