//! Which kernel takes a step.

use tch::{Device, Kind, Tensor};

use super::request::{Request, Spikes};
use super::{composed, cuda, sweep};
use crate::error::Result;
use crate::module::{Memory, Pass};
use crate::neuron::dynamics::LifConfig;
use crate::setting::fast_paths;

/// Which of the ways is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::neuron) enum Kernel {
    Composed,
    Sweep,
    Cuda,
}

impl Kernel {
    /// The only place where it is chosen.
    pub(in crate::neuron) fn of(config: &LifConfig, x: &Tensor, pass: &Pass<'_>) -> Self {
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
    pub(in crate::neuron) fn takes_constant(self, x: &Tensor) -> bool {
        self == Self::Sweep && x.dim() > 0
    }

    /// Takes the steps: moves v, and the trace where one is kept. An error leaves both as they were.
    pub(in crate::neuron) fn run(
        self,
        request: &Request<'_>,
        v: &mut Memory,
        trace: &mut Memory,
    ) -> Result<Spikes> {
        match self {
            Self::Composed => composed::steps(request, v, trace),
            Self::Sweep => sweep::steps(request, v, trace),
            Self::Cuda => cuda::steps(request, v, trace),
        }
    }
}
