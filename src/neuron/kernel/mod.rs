//! The steps of a layer of neurons, computed in one of three ways with the same result.
//!
//! | | where |
//! |---|---|
//! | [`composed`] | libtorch's operations: any device, kind and surrogate; what the others are tested against |
//! | [`sweep`] | one pass over memory, on the CPU |
//! | [`cuda`] | one kernel, compiled at run time, on a GPU |

use tch::{Device, Kind, Tensor};

use super::dynamics::LifConfig;
use crate::error::Result;
use crate::ffi::shape;
use crate::module::{Memory, Pass};
use crate::setting::fast_paths;

mod composed;
mod cuda;
mod fired;
mod sweep;

/// Which of the ways is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Composed,
    Sweep,
    Cuda,
}

/// The steps that are asked for.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) config: &'a LifConfig,
    /// `[rows * N, ...]`
    pub(super) x: &'a Tensor,
    /// As many as time steps, or 1 where one stands for all of them.
    pub(super) rows: i64,
    /// The factor of a trace a_t = leak a_{t-1} + s_t, where one is kept.
    pub(super) leak: f64,
    pub(super) pass: Pass<'a>,
}

/// What the steps give, `[time_steps * N, ...]`; the trace where one is kept.
pub(super) struct Spikes {
    pub(super) spike: Tensor,
    pub(super) trace: Option<Tensor>,
}

impl Kernel {
    /// The only place where it is chosen.
    pub(super) fn of(config: &LifConfig, x: &Tensor, pass: &Pass<'_>) -> Self {
        let able = fast_paths().fused_neuron
            && !pass.through_time
            && config.surrogate.pointwise().is_some()
            && matches!(x.f_kind(), Ok(Kind::Float | Kind::Double));
        match x.device() {
            Device::Cpu if able && !x.is_neg() => Self::Sweep,
            Device::Cuda(_) if able => Self::Cuda,
            _ => Self::Composed,
        }
    }

    /// Whether it takes one row for all steps.
    pub(super) fn takes_constant(self, x: &Tensor) -> bool {
        self == Self::Sweep && x.dim() > 0
    }

    /// Takes the steps: moves v, and the trace if one is kept. An error leaves both as they were.
    pub(super) fn run(
        self,
        request: &Request<'_>,
        v: &mut Memory,
        trace: Option<&mut Memory>,
    ) -> Result<Spikes> {
        match self {
            Self::Composed => composed::steps(request, v, trace),
            Self::Sweep => sweep::steps(request, v, trace),
            Self::Cuda => cuda::steps(request, v, trace),
        }
    }
}

/// Step `t` of `[time_steps * N, ...]`.
pub(super) fn row(x: &Tensor, time_steps: i64, t: i64) -> Result<Tensor> {
    if time_steps == 1 {
        return Ok(x.shallow_clone());
    }
    let n = shape(x)[0] / time_steps;
    Ok(x.f_narrow(0, t * n, n)?)
}

/// Several steps in one tensor `[time_steps * N, ...]`.
fn join(mut steps: Vec<Tensor>) -> Result<Option<Tensor>> {
    Ok(match steps.len() {
        0 => None,
        1 => steps.pop(),
        _ => Some(Tensor::f_cat(&steps, 0)?),
    })
}

impl Spikes {
    /// The steps one after another, multiplied by the pass's factor.
    pub(super) fn joined(spikes: Vec<Tensor>, traces: Vec<Tensor>, factor: f64) -> Result<Self> {
        let times = |x: Tensor| if factor == 1.0 { Ok(x) } else { x.f_mul_scalar(factor) };
        let spike = times(join(spikes)?.unwrap_or_default())?;
        Ok(Self { spike, trace: join(traces)?.map(times).transpose()? })
    }
}
