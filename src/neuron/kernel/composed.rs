//! A step in libtorch's operations: for any kind, device and surrogate, and through time.

use tch::Tensor;

use super::request::{row, Request, Spikes};
use crate::error::Result;
use crate::module::Memory;
use crate::neuron::dynamics::LifConfig;
use crate::surrogate::fire;

pub(super) fn steps(request: &Request<'_>, v: &mut Memory, trace: &mut Memory) -> Result<Spikes> {
    one_by_one(request, v, trace, step)
}

/// A step's spike and the state after it.
pub(super) struct Step {
    pub(super) spike: Tensor,
    pub(super) v: Tensor,
    /// The trace, where one is kept.
    pub(super) a: Option<Tensor>,
}

/// Takes the steps one after another, each by `step` from v and a; what is absent is at rest.
pub(super) fn one_by_one(
    request: &Request<'_>,
    v_memory: &mut Memory,
    trace: &mut Memory,
    step: impl Fn(&Request<'_>, &Tensor, Option<&Tensor>, Option<&Tensor>) -> Result<Step>,
) -> Result<Spikes> {
    let Request { x, leak, pass, .. } = *request;
    let (mut spikes, mut traces) = (Vec::new(), Vec::new());
    let mut v = v_memory.get().map(|v| carried(request, v));
    let mut a = leak.and(trace.get()).map(Tensor::detach);
    for t in 0..pass.time_steps {
        let step = step(request, &row(x, pass.time_steps, t)?, v.as_ref(), a.as_ref())?;
        spikes.push(step.spike);
        traces.extend(step.a.as_ref().map(Tensor::shallow_clone));
        (v, a) = (Some(step.v), step.a);
    }
    let spikes = Spikes::joined(spikes, traces, pass.factor)?;
    *v_memory = v.into();
    if leak.is_some() {
        *trace = a.into();
    }
    Ok(spikes)
}

fn step(request: &Request<'_>, x: &Tensor, v: Option<&Tensor>, a: Option<&Tensor>) -> Result<Step> {
    let Request { config, leak, pass, .. } = request;
    let rest = || x.f_full_like(config.rest());
    let h = charge(config, &v.map_or_else(rest, |v| Ok(v.shallow_clone()))?, x)?;
    let over = h.f_sub_scalar(config.v_threshold)?;
    let surrogate = &config.surrogate;
    let spike = if pass.train { fire(&over, surrogate.clone())? } else { surrogate.fire(&over)? };
    let s = spike.detach();
    let v = after_spike(config, &carried(request, &h), &s)?;
    let a = match (leak, a) {
        (None, _) => None,
        (Some(leak), Some(a)) => Some(a.f_mul_scalar(*leak)?.f_add(&s)?),
        // In memory of its own: the spike is handed out, and whoever gets it may change it.
        (Some(_), None) => Some(s.copy()),
    };
    Ok(Step { spike, v, a })
}

/// The one place where time is cut from the graph, or not.
fn carried(request: &Request<'_>, v: &Tensor) -> Tensor {
    if request.pass.through_time {
        v.shallow_clone()
    } else {
        v.detach()
    }
}

fn charge(config: &LifConfig, v: &Tensor, x: &Tensor) -> Result<Tensor> {
    let above_rest = match config.v_reset {
        Some(v_reset) => v.f_sub_scalar(v_reset)?,
        None => v.shallow_clone(),
    };
    Ok(if config.decay_input {
        v.f_add(&x.f_sub(&above_rest)?.f_div_scalar(config.tau)?)?
    } else {
        v.f_sub(&above_rest.f_div_scalar(config.tau)?)?.f_add(x)?
    })
}

fn after_spike(config: &LifConfig, h: &Tensor, s: &Tensor) -> Result<Tensor> {
    Ok(match config.v_reset {
        None => h.f_sub(&s.f_mul_scalar(config.v_threshold)?)?,
        Some(v_reset) => {
            let silent = s.f_neg()?.f_add_scalar(1.0)?;
            silent.f_mul(h)?.f_add(&s.f_mul_scalar(v_reset)?)?
        }
    })
}
