//! What a kernel is asked for, and what it gives.

use tch::Tensor;

use crate::error::Result;
use crate::ffi::shape;
use crate::module::Pass;
use crate::neuron::dynamics::LifConfig;

/// The steps that are asked for.
#[derive(Clone, Copy)]
pub(in crate::neuron) struct Request<'a> {
    pub(in crate::neuron) config: &'a LifConfig,
    /// `[rows * N, ...]`
    pub(in crate::neuron) x: &'a Tensor,
    /// As many as time steps, or 1 where one stands for all of them.
    pub(in crate::neuron) rows: i64,
    /// Of a trace a_t = leak a_{t-1} + s_t; `None` where none is kept.
    pub(in crate::neuron) leak: Option<f64>,
    pub(in crate::neuron) pass: Pass<'a>,
}

/// What the steps give, `[time_steps * N, ...]`; the trace where one is kept.
pub(in crate::neuron) struct Spikes {
    pub(in crate::neuron) spike: Tensor,
    pub(in crate::neuron) trace: Option<Tensor>,
}

/// Step `t` of `[time_steps * N, ...]`.
pub(in crate::neuron) fn row(x: &Tensor, time_steps: i64, t: i64) -> Result<Tensor> {
    if time_steps == 1 {
        return Ok(x.shallow_clone());
    }
    let n = shape(x)[0] / time_steps;
    Ok(x.f_narrow(0, t * n, n)?)
}

/// Several steps in one tensor `[time_steps * N, ...]`.
pub(super) fn join(mut steps: Vec<Tensor>) -> Result<Option<Tensor>> {
    Ok(match steps.len() {
        0 => None,
        1 => steps.pop(),
        _ => Some(Tensor::f_cat(&steps, 0)?),
    })
}

impl Spikes {
    /// The steps one after another, multiplied by the pass's factor.
    pub(in crate::neuron) fn joined(spikes: Vec<Tensor>, traces: Vec<Tensor>, factor: f64) -> Result<Self> {
        let times = |x: Tensor| if factor == 1.0 { Ok(x) } else { x.f_mul_scalar(factor) };
        let spike = times(join(spikes)?.unwrap_or_default())?;
        Ok(Self { spike, trace: join(traces)?.map(times).transpose()? })
    }
}
