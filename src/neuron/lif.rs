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
//! trace    (OTTT, training)  a = (1 - 1/tau) a' + s
//! ```

use std::sync::Arc;

use tch::Tensor;

use super::{cuda, fused};
use crate::error::{expect_defined, expect_float, guarded, Error, Result};
use crate::module::{expect_steps, expect_time_steps, Memory};
use crate::monitor::note;
use crate::signal::Signal;
use crate::surrogate::{fire, Surrogate};
use crate::through_time::is_through_time;

/// The options of a LIF node, checked.
#[derive(Debug)]
pub(super) struct Lif {
    node: &'static str,
    pub(super) tau: f64,
    pub(super) decay_input: bool,
    pub(super) v_threshold: f64,
    pub(super) v_reset: Option<f64>,
    pub(super) surrogate: Arc<dyn Surrogate>,
    pub(super) v: Memory,
}

/// How steps are taken.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) train: bool,
    /// What the spikes and their traces are multiplied by on the way out.
    pub(super) scale: f64,
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

    /// `time_steps` steps on x `[time_steps * N, ...]`, or a constant `[N, ...]`: moves v, and the trace if there
    /// is one to keep.
    ///
    /// An error leaves both as they were.
    pub(super) fn steps(
        &mut self,
        x: &Signal,
        time_steps: i64,
        trace: Option<&mut Memory>,
        options: Options,
    ) -> Result<Spikes> {
        let spikes = self.unwatched_steps(x, time_steps, trace, options)?;
        guarded(self.node, || note(std::ptr::from_ref(self) as usize, &spikes.spike, self.v.as_ref()))?;
        Ok(spikes)
    }

    fn unwatched_steps(
        &mut self,
        x: &Signal,
        time_steps: i64,
        trace: Option<&mut Memory>,
        options: Options,
    ) -> Result<Spikes> {
        guarded(self.node, || {
            expect_float(&format!("{}'s input", self.node), x.value())?;
            expect_time_steps(|| self.node, time_steps)?;
            let able = fused::is_able(self, x.value());
            // Only the sweep takes a constant as it is.
            let spread = matches!(x, Signal::Constant(_)) && !(able && x.value().dim() > 0);
            let spread = spread.then(|| x.shallow_clone().spread(time_steps)).transpose()?;
            let x = spread.as_ref().unwrap_or(x);
            let rows = if matches!(x, Signal::Constant(_)) { 1 } else { time_steps };
            let x = x.value();
            expect_steps(self.node, x, rows)?;
            let first = row(x, rows, 0)?;
            if let Some(v) = &self.v {
                expect_fresh(self.node, "membrane potential v", v, &first)?;
            }
            if let Some(trace) = trace.as_ref().and_then(|trace| trace.as_ref()) {
                expect_fresh(self.node, "trace", trace, &first)?;
            }
            if able {
                return fused::steps(self, x, rows, time_steps, trace, options);
            }
            let Spikes { spike, trace } = self.single_steps(x, time_steps, trace, options.train)?;
            if options.scale == 1.0 {
                return Ok(Spikes { spike, trace });
            }
            let trace = trace.map(|trace| trace.f_mul_scalar(options.scale)).transpose()?;
            Ok(Spikes { spike: spike.f_mul_scalar(options.scale)?, trace })
        })
    }

    /// The steps one after another: each in one kernel on CUDA, else in libtorch's operations.
    fn single_steps(
        &mut self,
        x: &Tensor,
        time_steps: i64,
        trace: Option<&mut Memory>,
        train: bool,
    ) -> Result<Spikes> {
        let (mut spikes, mut traces) = (Vec::new(), Vec::new());
        let mut a = trace.as_ref().and_then(|trace| trace.as_ref()).map(Tensor::detach);
        let mut v = self.v.as_ref().map(carried);
        for t in 0..time_steps {
            let x = row(x, time_steps, t)?;
            let step = match cuda::is_able(self, &x) {
                true => cuda::step(self, &x, v.as_ref(), a.as_ref(), trace.is_some(), train)?,
                false => self.composed_step(&x, v.as_ref(), a.as_ref(), trace.is_some(), train)?,
            };
            spikes.push(step.spike);
            traces.extend(step.a.as_ref().map(Tensor::shallow_clone));
            (v, a) = (Some(step.v), step.a);
        }
        let join = |mut steps: Vec<Tensor>| match steps.len() {
            0 => Ok(None),
            1 => Ok(steps.pop()),
            _ => Tensor::f_cat(&steps, 0).map(Some),
        };
        let spikes = Spikes { spike: join(spikes)?.unwrap_or_default(), trace: join(traces)? };
        self.v = v;
        if let Some(trace) = trace {
            *trace = a;
        }
        Ok(spikes)
    }

    /// A step in libtorch's operations: for any kind, device and surrogate.
    fn composed_step(
        &self,
        x: &Tensor,
        v: Option<&Tensor>,
        a: Option<&Tensor>,
        traces: bool,
        train: bool,
    ) -> Result<Step> {
        let rest = || x.f_full_like(self.v_reset.unwrap_or(0.0));
        let h = self.charge(&v.map_or_else(rest, |v| Ok(v.shallow_clone()))?, x)?;
        let over = h.f_sub_scalar(self.v_threshold)?;
        let spike = if train { fire(&over, self.surrogate.clone())? } else { self.surrogate.fire(&over)? };
        let s = spike.detach();
        let v = self.after_spike(&carried(&h), &s)?;
        let a = match a {
            _ if !traces => None,
            Some(a) => Some(a.f_mul_scalar(1.0 - 1.0 / self.tau)?.f_add(&s)?),
            // In memory of its own: the spike is handed out, and whoever gets it may change it.
            None => Some(s.copy()),
        };
        Ok(Step { spike, v, a })
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

/// A step's spike and the state after it.
pub(super) struct Step {
    pub(super) spike: Tensor,
    pub(super) v: Tensor,
    /// The trace, where one is kept.
    pub(super) a: Option<Tensor>,
}

/// The one place where time is cut from the graph, or not.
fn carried(v: &Tensor) -> Tensor {
    if is_through_time() {
        v.shallow_clone()
    } else {
        v.detach()
    }
}

/// What several steps give, `[time_steps * N, ...]`; the trace where one is kept.
pub(super) struct Spikes {
    pub(super) spike: Tensor,
    pub(super) trace: Option<Tensor>,
}

/// Step `t` of `[time_steps * N, ...]`.
pub(super) fn row(x: &Tensor, time_steps: i64, t: i64) -> Result<Tensor> {
    if time_steps == 1 {
        return Ok(x.shallow_clone());
    }
    let n = x.size()[0] / time_steps;
    Ok(x.f_narrow(0, t * n, n)?)
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
