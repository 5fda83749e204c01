//! What flows between the modules of an online network.

use tch::Tensor;

use crate::error::Result;

/// A layer's input or output at one time step.
///
/// A plain tensor until an OTTT neuron makes it a pair: the spike s_t that is computed with, and its
/// trace a_t = (1 - 1/τ) a_{t-1} + s_t that weights learn from.
#[derive(Debug)]
pub enum Signal {
    /// Values without a trace: an input current, an image, a readout.
    Dense(Tensor),
    /// An OTTT neuron's output. Both of one shape; the trace has no gradient.
    SpikeTrace {
        /// s_t, zeros and ones.
        spike: Tensor,
        /// a_t. The neuron reads the same memory in its next step: a layer that changes it in place changes what weights
        /// learn from.
        trace: Tensor,
    },
    /// The same values at each of the steps of a pass, `[N, ...]` for all of them: an image that is shown for
    /// a while. Neurons and containers take it, and layers that treat samples by themselves; others get it as
    /// [`Dense`](Signal::Dense).
    Constant(Tensor),
}

impl Signal {
    /// The values computed with: the dense tensor, the spike, or the constant.
    pub fn value(&self) -> &Tensor {
        match self {
            Self::Dense(value) | Self::SpikeTrace { spike: value, .. } | Self::Constant(value) => value,
        }
    }

    /// [`value`](Signal::value), taken out.
    pub fn into_value(self) -> Tensor {
        match self {
            Self::Dense(value) | Self::SpikeTrace { spike: value, .. } | Self::Constant(value) => value,
        }
    }

    /// The same tensors, not copies.
    pub fn shallow_clone(&self) -> Self {
        match self {
            Self::Dense(x) => Self::Dense(x.shallow_clone()),
            Self::Constant(x) => Self::Constant(x.shallow_clone()),
            Self::SpikeTrace { spike, trace } => {
                Self::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() }
            }
        }
    }

    /// A constant as `[time_steps * N, ...]`; any other signal as it is.
    pub(crate) fn spread(self, time_steps: i64) -> Result<Self> {
        Ok(match self {
            Self::Constant(x) if time_steps == 1 => Self::Dense(x),
            Self::Constant(x) => {
                let size = [&[time_steps], &x.size()[..]].concat();
                Self::Dense(x.f_unsqueeze(0)?.f_expand(size, false)?.f_flatten(0, 1)?)
            }
            other => other,
        })
    }

    /// The trace, `None` for a signal without.
    pub fn trace(&self) -> Option<&Tensor> {
        match self {
            Self::Dense(_) | Self::Constant(_) => None,
            Self::SpikeTrace { trace, .. } => Some(trace),
        }
    }
}

impl From<Tensor> for Signal {
    fn from(value: Tensor) -> Self {
        Self::Dense(value)
    }
}

impl From<&Tensor> for Signal {
    fn from(value: &Tensor) -> Self {
        Self::Dense(value.shallow_clone())
    }
}
