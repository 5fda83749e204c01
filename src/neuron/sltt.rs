//! The neuron of SLTT: the gradient stays inside the time step, without traces.

use std::sync::Arc;

use tch::Tensor;

use super::lif::{Lif, Options};
use crate::error::Result;
use crate::module::{Constant, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;
use crate::surrogate::{Sigmoid, Surrogate};

/// Options of [`SlttLifNode`], with SpikingJelly's names and defaults.
#[derive(Debug, Clone)]
pub struct SlttLifConfig {
    /// Membrane time constant in time steps, at least 1; 2.
    pub tau: f64,
    /// Whether the input decays too; true.
    pub decay_input: bool,
    /// Potential from which on the neuron fires; 1.
    pub v_threshold: f64,
    /// Potential after a spike, 0; `None` subtracts `v_threshold` instead.
    pub v_reset: Option<f64>,
    /// Stands for the derivative of the step in backward; `Sigmoid { alpha: 4.0 }`.
    pub surrogate: Arc<dyn Surrogate>,
}

impl Default for SlttLifConfig {
    fn default() -> Self {
        Self {
            tau: 2.0,
            decay_input: true,
            v_threshold: 1.0,
            v_reset: Some(0.0),
            surrogate: Arc::new(Sigmoid::default()),
        }
    }
}

/// A LIF neuron for SLTT: [`OtttLifNode`](crate::OtttLifNode)'s dynamics, no trace.
///
/// Weights behind it learn from the spike itself: OTTT with a trace that forgets at once.
///
/// # Shapes
/// Any input, floating-point, fixed from the first step until [`reset`](OnlineModule::reset). The output
/// is the spike, a [`Signal::Dense`] shaped like the input.
///
/// # Cost
/// One tensor of state, v, shaped like the input.
///
/// # Source
/// Meng et al., *Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
/// Networks*, ICCV 2023, arXiv 2302.14311; SpikingJelly's `SLTTLIFNode`.
#[doc(alias = "SLTTLIFNode")]
#[derive(Debug)]
pub struct SlttLifNode {
    lif: Lif,
}

impl SlttLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: SlttLifConfig) -> Result<Self> {
        let SlttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate } = config;
        Ok(Self { lif: Lif::new("SlttLifNode", tau, decay_input, v_threshold, v_reset, surrogate)? })
    }

    /// The membrane potential after the last step, `None` before the first. A handle of it keeps its values.
    pub fn v(&self) -> Option<&Tensor> {
        self.lif.v.as_ref()
    }

    /// Sets the membrane potential; the next input must have its shape. No step changes `v` itself.
    pub fn set_v(&mut self, v: &Tensor) {
        self.lif.v = Some(v.shallow_clone());
    }
}

impl OnlineModule for SlttLifNode {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.steps(x, 1, train)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        self.scaled_steps(x, time_steps, train, 1.0)
    }

    fn scaled_steps(&mut self, x: &Signal, time_steps: i64, train: bool, scale: f64) -> Result<Signal> {
        Ok(Signal::Dense(self.lif.steps(x, time_steps, None, Options { train, scale })?.spike))
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
        vec![&mut self.lif.v]
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn name(&self) -> String {
        self.lif.describe()
    }
}
