//! The neuron of OTTT: spikes with their trace.

use std::sync::Arc;

use tch::Tensor;

use super::lif::{Lif, Options, Spikes};
use crate::error::Result;
use crate::module::{Constant, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;
use crate::surrogate::{Sigmoid, Surrogate};
use crate::through_time::is_through_time;

/// Options of [`OtttLifNode`], with SpikingJelly's names and defaults.
#[derive(Debug, Clone)]
pub struct OtttLifConfig {
    /// Membrane time constant in time steps, at least 1; 2.
    pub tau: f64,
    /// Whether the input decays too; false.
    pub decay_input: bool,
    /// Potential from which on the neuron fires; 1.
    pub v_threshold: f64,
    /// Potential after a spike; `None` (the default) subtracts `v_threshold` instead.
    pub v_reset: Option<f64>,
    /// Stands for the derivative of the step in backward; `Sigmoid { alpha: 4.0 }`.
    pub surrogate: Arc<dyn Surrogate>,
}

impl Default for OtttLifConfig {
    fn default() -> Self {
        Self {
            tau: 2.0,
            decay_input: false,
            v_threshold: 1.0,
            v_reset: None,
            surrogate: Arc::new(Sigmoid::default()),
        }
    }
}

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
/// Any input, floating-point, fixed from the first step until [`reset`](OnlineModule::reset). In
/// training the output is [`Signal::SpikeTrace`], in evaluation the plain spike.
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
#[derive(Debug)]
pub struct OtttLifNode {
    lif: Lif,
    trace: Memory,
}

impl OtttLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: OtttLifConfig) -> Result<Self> {
        let OtttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate } = config;
        let lif = Lif::new("OtttLifNode", tau, decay_input, v_threshold, v_reset, surrogate)?;
        Ok(Self { lif, trace: None })
    }

    /// The membrane potential after the last step, `None` before the first. A handle of it keeps its values.
    pub fn v(&self) -> Option<&Tensor> {
        self.lif.v.as_ref()
    }

    /// Sets the membrane potential; the next input must have its shape. No step changes `v` itself.
    pub fn set_v(&mut self, v: &Tensor) {
        self.lif.v = Some(v.shallow_clone());
    }

    /// The trace after the last training step, `None` before the first. A handle of it keeps its values.
    pub fn trace(&self) -> Option<&Tensor> {
        self.trace.as_ref()
    }

    /// Sets the trace; the next input must have its shape. No step changes `trace` itself.
    pub fn set_trace(&mut self, trace: &Tensor) {
        self.trace = Some(trace.shallow_clone());
    }
}

impl OnlineModule for OtttLifNode {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.steps(x, 1, train)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        self.scaled_steps(x, time_steps, train, 1.0)
    }

    fn scaled_steps(&mut self, x: &Signal, time_steps: i64, train: bool, scale: f64) -> Result<Signal> {
        let trace = (train && !is_through_time()).then_some(&mut self.trace);
        let Spikes { spike, trace } = self.lif.steps(x, time_steps, trace, Options { train, scale })?;
        Ok(match trace {
            Some(trace) => Signal::SpikeTrace { spike, trace },
            None => Signal::Dense(spike),
        })
    }

    fn constant(&mut self) -> Constant {
        Constant::Takes
    }

    fn takes_scale(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.lif.v, &mut self.trace]
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn name(&self) -> String {
        self.lif.describe()
    }
}
