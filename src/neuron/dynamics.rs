//! The LIF neuron's dynamics: charge, fire, reset.
//!
//! With the input x, the carried membrane potential v' (data, no gradient) and v_reset counted as 0 in
//! the charge where the reset is soft:
//!
//! ```text
//! charge   decay_input       h = v' + (x - (v' - v_reset)) / tau
//!          else              h = v' - (v' - v_reset) / tau + x
//! fire                       s = Θ(h - v_threshold), backward by the surrogate
//! reset    soft (None)       v = h - v_threshold s
//!          hard              v = (1 - s) h + v_reset s         (s taken as data)
//! ```

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::surrogate::{Sigmoid, Surrogate};

/// Options of a LIF neuron, with SpikingJelly's names. The defaults are those of its OTTT node.
#[derive(Debug, Clone)]
pub struct LifConfig {
    /// Membrane time constant in time steps, at least 1. Default: 2.
    pub tau: f64,
    /// Whether the input decays too. Default: false.
    pub decay_input: bool,
    /// Potential from which on the neuron fires. Default: 1.
    pub v_threshold: f64,
    /// Potential after a spike; `None` (the default) subtracts `v_threshold` instead.
    pub v_reset: Option<f64>,
    /// Stands for the derivative of the step in backward. Default: `Sigmoid { alpha: 4.0 }`.
    pub surrogate: Arc<dyn Surrogate>,
}

impl Default for LifConfig {
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

impl LifConfig {
    /// λ = 1 - 1/tau, what a step leaves of a potential without its input.
    pub fn leak(&self) -> f64 {
        1.0 - 1.0 / self.tau
    }

    /// The potential that a neuron goes back to without input.
    pub fn rest(&self) -> f64 {
        self.v_reset.unwrap_or(0.0)
    }

    /// dx/dh, the input's share in the charge, is 1 over this.
    pub(super) fn divisor(&self) -> f64 {
        if self.decay_input {
            self.tau
        } else {
            1.0
        }
    }

    /// Errors when tau is below 1, or an option is not a finite number.
    pub(super) fn check(&self, node: &str) -> Result<()> {
        if !(self.tau >= 1.0 && self.tau.is_finite()) {
            let expected = "a finite number of time steps, at least 1";
            return Err(Error::argument(&format!("{node}'s tau"), expected, self.tau));
        }
        for (name, value) in [("v_threshold", Some(self.v_threshold)), ("v_reset", self.v_reset)] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(Error::argument(&format!("{node}'s {name}"), "a finite number", value));
            }
        }
        self.surrogate.check()
    }

    /// The options, for a table.
    pub(super) fn describe(&self, node: &str) -> String {
        let Self { tau, decay_input, v_threshold, v_reset, .. } = self;
        let reset = v_reset.map_or("soft reset".to_owned(), |v| format!("v_reset {v}"));
        let decay = if *decay_input { ", decay_input" } else { "" };
        format!("{node}(tau {tau}{decay}, v_threshold {v_threshold}, {reset})")
    }
}
