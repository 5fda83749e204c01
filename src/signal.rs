//! What flows between the modules of an online network.

use tch::Tensor;

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
        /// a_t.
        trace: Tensor,
    },
}

impl Signal {
    /// The values computed with: the dense tensor, or the spike.
    pub fn value(&self) -> &Tensor {
        match self {
            Self::Dense(value) | Self::SpikeTrace { spike: value, .. } => value,
        }
    }

    /// [`value`](Signal::value), taken out.
    pub fn into_value(self) -> Tensor {
        match self {
            Self::Dense(value) | Self::SpikeTrace { spike: value, .. } => value,
        }
    }

    /// The same tensors, not copies.
    pub fn shallow_clone(&self) -> Self {
        match self {
            Self::Dense(x) => Self::Dense(x.shallow_clone()),
            Self::SpikeTrace { spike, trace } => {
                Self::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() }
            }
        }
    }

    /// The trace, `None` for a dense signal.
    pub fn trace(&self) -> Option<&Tensor> {
        match self {
            Self::Dense(_) => None,
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
