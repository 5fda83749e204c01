//! The LIF step that both nodes share: charge, fire, reset.
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

use tch::Tensor;

use crate::error::{expect_defined, expect_float, guarded, Error, Result};
use crate::module::Memory;
use crate::surrogate::{fire, Surrogate};

/// The options of a LIF node, checked.
#[derive(Debug)]
pub(super) struct Lif {
    node: &'static str,
    pub(super) tau: f64,
    decay_input: bool,
    v_threshold: f64,
    v_reset: Option<f64>,
    surrogate: Arc<dyn Surrogate>,
    pub(super) v: Memory,
}

impl Lif {
    pub(super) fn new(
        node: &'static str,
        tau: f64,
        decay_input: bool,
        v_threshold: f64,
        v_reset: Option<f64>,
        surrogate: Arc<dyn Surrogate>,
    ) -> Result<Self> {
        if !(tau >= 1.0 && tau.is_finite()) {
            let expected = "a finite number of time steps, at least 1";
            return Err(Error::argument(&format!("{node}'s tau"), expected, tau));
        }
        for (name, value) in [("v_threshold", Some(v_threshold)), ("v_reset", v_reset)] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(Error::argument(&format!("{node}'s {name}"), "a finite number", value));
            }
        }
        surrogate.check()?;
        Ok(Self { node, tau, decay_input, v_threshold, v_reset, surrogate, v: None })
    }

    /// One time step: moves v and returns the spike.
    pub(super) fn step(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        guarded(self.node, || self.charge_fire_reset(x, train))
    }

    fn charge_fire_reset(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_float(&format!("{}'s input", self.node), x)?;
        let h = match &self.v {
            Some(v) => {
                expect_fresh(self.node, "membrane potential v", v, x)?;
                self.charge(&v.detach(), x)?
            }
            None => self.charge(&x.f_full_like(self.v_reset.unwrap_or(0.0))?, x)?,
        };
        let over = h.f_sub_scalar(self.v_threshold)?;
        let spike = if train { fire(&over, self.surrogate.clone())? } else { self.surrogate.fire(&over)? };
        self.v = Some(self.after_spike(&h.detach(), &spike.detach())?);
        Ok(spike)
    }

    fn charge(&self, v: &Tensor, x: &Tensor) -> Result<Tensor> {
        let above_rest = match self.v_reset {
            Some(v_reset) => v.f_sub_scalar(v_reset)?,
            None => v.shallow_clone(),
        };
        Ok(if self.decay_input {
            v.f_add(&x.f_sub(&above_rest)?.f_div_scalar(self.tau)?)?
        } else {
            v.f_sub(&above_rest.f_div_scalar(self.tau)?)?.f_add(x)?
        })
    }

    fn after_spike(&self, h: &Tensor, s: &Tensor) -> Result<Tensor> {
        Ok(match self.v_reset {
            None => h.f_sub(&s.f_mul_scalar(self.v_threshold)?)?,
            Some(v_reset) => {
                let silent = s.f_neg()?.f_add_scalar(1.0)?;
                silent.f_mul(h)?.f_add(&s.f_mul_scalar(v_reset)?)?
            }
        })
    }

    /// The options, for a table.
    pub(super) fn describe(&self) -> String {
        let Self { node, tau, decay_input, v_threshold, v_reset, .. } = self;
        let reset = v_reset.map_or("soft reset".to_owned(), |v| format!("v_reset {v}"));
        let decay = if *decay_input { ", decay_input" } else { "" };
        format!("{node}(tau {tau}{decay}, v_threshold {v_threshold}, {reset})")
    }
}

/// Errors when `state` was made for another input than `x`.
pub(super) fn expect_fresh(node: &str, what: &str, state: &Tensor, x: &Tensor) -> Result<()> {
    expect_defined(&format!("{node}'s {what}"), state)?;
    expect_defined(&format!("{node}'s input"), x)?;
    let (state_kind, input_kind) = (state.f_kind()?, x.f_kind()?);
    if state.size() != x.size() || state_kind != input_kind {
        return Err(Error::StaleState {
            what: format!("{node}'s {what}"),
            state: state.size(),
            state_kind,
            input: x.size(),
            input_kind,
        });
    }
    crate::error::expect_same_type(&format!("{node}'s {what}"), state, x)
}
