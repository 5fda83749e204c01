//! The neuron of OTTT: spikes with their trace.

use super::dynamics::LifConfig;
use super::lif::LifNode;
use super::rule::{Rule, Trace};
use crate::error::Result;

/// Options of [`OtttLifNode`].
pub type OtttLifConfig = LifConfig;

/// A LIF neuron for OTTT.
///
/// The membrane potential is detached from the step before, so each step has a graph of its own:
///
/// ```text
/// h_t = v_{t-1} - (v_{t-1} - v_reset)/tau + x_t      (decay_input: v + (x - (v - v_reset))/tau)
/// s_t = Θ(h_t - v_threshold)
/// v_t = h_t - v_threshold s_t                        (v_reset given: (1 - s_t) h_t + v_reset s_t)
/// a_t = (1 - 1/tau) a_{t-1} + s_t                    (training only, no gradient)
/// ```
///
/// # Shapes
/// Any input, floating-point, fixed from the first step until [`reset`](crate::Part::reset). In
/// training the output is [`SpikeTrace`](crate::Signal::SpikeTrace), in evaluation the plain spike.
///
/// # Cost
/// Two tensors of state, v and a, shaped like the input.
///
/// # Source
/// Xiao et al., arXiv 2210.04195, equations 3, 4 and 9; SpikingJelly's `OTTTLIFNode`.
///
/// ```
/// use spiketrace::{OnlineModule, OtttLifConfig, OtttLifNode};
/// # use tch::Tensor;
/// let mut node = OtttLifNode::new(OtttLifConfig { tau: 4.0, ..Default::default() })?;
/// let x = Tensor::from_slice(&[1.5, 0.2]);
/// node.step(&(&x).into(), true)?;
/// let out = node.step(&x.into(), true)?;
/// assert_eq!(out.value(), &Tensor::from_slice(&[1.0, 0.0]));
/// assert_eq!(out.trace().unwrap(), &Tensor::from_slice(&[1.75, 0.0]));
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "OTTTLIFNode")]
pub type OtttLifNode = LifNode<Ottt>;

/// The rule of [`OtttLifNode`].
#[derive(Debug, Default)]
pub struct Ottt;

impl OtttLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: OtttLifConfig) -> Result<Self> {
        Self::with_rule(Ottt, config)
    }
}

impl Rule for Ottt {
    const NODE: &'static str = "OtttLifNode";

    fn trace(&self, config: &LifConfig) -> Trace {
        Trace::Leak(config.leak())
    }
}
