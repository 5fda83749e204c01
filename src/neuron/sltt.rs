//! The neuron of SLTT: the gradient stays inside the time step, without traces.

use std::sync::Arc;

use super::dynamics::LifConfig;
use super::lif::LifNode;
use super::rule::{Rule, Trace};
use crate::error::Result;
use crate::surrogate::Surrogate;

/// Options of [`SlttLifNode`], with SpikingJelly's names and defaults.
#[derive(Debug, Clone)]
pub struct SlttLifConfig {
    /// Membrane time constant in time steps, at least 1. Default: 2.
    pub tau: f64,
    /// Whether the input decays too. Default: true.
    pub decay_input: bool,
    /// Potential from which on the neuron fires. Default: 1.
    pub v_threshold: f64,
    /// Potential after a spike; `None` subtracts `v_threshold` instead. Default: 0.
    pub v_reset: Option<f64>,
    /// Stands for the derivative of the step in backward. Default: `Sigmoid { alpha: 4.0 }`.
    pub surrogate: Arc<dyn Surrogate>,
}

impl Default for SlttLifConfig {
    fn default() -> Self {
        let LifConfig { tau, v_threshold, surrogate, .. } = LifConfig::default();
        Self { tau, decay_input: true, v_threshold, v_reset: Some(0.0), surrogate }
    }
}

/// A LIF neuron for SLTT: [`OtttLifNode`](crate::OtttLifNode)'s dynamics, no trace.
///
/// Weights after it learn from the spike itself: OTTT with a trace that forgets at once.
///
/// # Shapes
/// Any input, floating-point, fixed from the first step until [`reset`](crate::Part::reset). The output
/// is the spike, a [`Dense`](crate::Signal::Dense) shaped like the input.
///
/// # Cost
/// One tensor of state, v, shaped like the input.
///
/// # Source
/// Meng et al., *Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
/// Networks*, ICCV 2023, arXiv 2302.14311; SpikingJelly's `SLTTLIFNode`.
#[doc(alias = "SLTTLIFNode")]
pub type SlttLifNode = LifNode<Sltt>;

/// The rule of [`SlttLifNode`].
#[derive(Debug, Default)]
pub struct Sltt;

impl SlttLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: SlttLifConfig) -> Result<Self> {
        let SlttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate } = config;
        Self::with_rule(Sltt, LifConfig { tau, decay_input, v_threshold, v_reset, surrogate })
    }
}

impl Rule for Sltt {
    const NODE: &'static str = "SlttLifNode";

    fn trace(&self, _: &LifConfig) -> Trace {
        Trace::None
    }
}
