//! What the weights after a neuron learn from.

use std::fmt::Debug;

use tch::Tensor;

use super::dynamics::LifConfig;
use crate::error::Result;
use crate::module::Memory;

/// A learning rule: which trace a LIF neuron sends beside its spikes, for the weights after it to learn from.
///
/// A [`LifNode`](crate::LifNode) does the rest: charge, fire and reset in one kernel, several time steps in one pass,
/// state that belongs to nobody else, errors that name the neuron and leave its state as it was.
///
/// ```
/// use spiketrace::{LifConfig, LifNode, LifStep, OnlineModule, Result, Rule, Trace};
/// use tch::Tensor;
///
/// /// A trace that counts the spikes of a neuron, and no more than `most` of them.
/// #[derive(Debug)]
/// struct Counts {
///     most: f64,
/// }
///
/// impl Rule for Counts {
///     const NODE: &'static str = "CountingLifNode";
///
///     fn trace(&self, _: &LifConfig) -> Trace {
///         Trace::Own
///     }
///
///     fn next_trace(&mut self, step: &LifStep<'_>) -> Result<Tensor> {
///         let count = match step.trace {
///             Some(before) => step.spike.f_add(before)?,
///             None => step.spike.copy(),
///         };
///         Ok(count.f_clamp_max(self.most)?)
///     }
/// }
///
/// let mut node = LifNode::with_rule(Counts { most: 2.0 }, LifConfig::default())?;
/// let x = Tensor::from_slice(&[1.5, 0.2]);
/// let traces = [0; 3].map(|_| node.step(&(&x).into(), true).unwrap().trace().unwrap().copy());
/// assert_eq!(traces.map(|trace| trace.double_value(&[0])), [1.0, 2.0, 2.0]);
/// # Ok::<(), spiketrace::Error>(())
/// ```
pub trait Rule: Debug + Send {
    /// The neuron's name in tables and errors.
    const NODE: &'static str;

    /// Whether there is a trace, and who makes it. Always the same for one neuron.
    fn trace(&self, config: &LifConfig) -> Trace;

    /// a_t of a trace of the rule's own, after each step of training: a new tensor without a graph.
    fn next_trace(&mut self, step: &LifStep<'_>) -> Result<Tensor> {
        Ok(step.spike.copy())
    }

    /// What the rule carries from step to step beside the trace. Default: nothing.
    fn memories(&mut self) -> Vec<&mut Memory> {
        Vec::new()
    }
}

/// The trace of a neuron, in training.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Trace {
    /// None: weights learn from the spike.
    None,
    /// a_t = leak a_{t-1} + s_t, a_1 = s_1. The neuron's kernel keeps it.
    Leak(f64),
    /// What [`Rule::next_trace`] says.
    Own,
}

/// A time step of a neuron that is done, as its rule sees it. No tensor has a graph.
#[derive(Debug)]
#[non_exhaustive]
pub struct LifStep<'a> {
    /// The neuron's options.
    pub config: &'a LifConfig,
    /// s_t, zeros and ones.
    pub spike: &'a Tensor,
    /// v_{t-1}; `None` at the first step.
    pub v_before: Option<&'a Tensor>,
    /// v_t, the potential after the reset.
    pub v: &'a Tensor,
    /// a_{t-1}; `None` at the first step.
    pub trace: Option<&'a Tensor>,
}
