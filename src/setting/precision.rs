//! Reduced precision for the weighted layers.

use std::cell::Cell;

use tch::Kind;

use super::scoped;

/// What weighted layers compute in; see [`with_precision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// In the kind of their weights.
    #[default]
    Full,
    /// In bfloat16: the range of f32 with 8 bits of precision. On processors with AVX-512 BF16 or AMX, and on GPUs.
    BFloat16,
    /// In float16: 11 bits of precision and a small range. On GPUs.
    Half,
}

impl Precision {
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::Full => None,
            Self::BFloat16 => Some(Kind::BFloat16),
            Self::Half => Some(Kind::Half),
        }
    }
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::Full) };
}

/// Runs `body` with linear layers and convolutions computing in `precision`, on this thread.
///
/// Their weights are f32 as before, and so are membrane potentials, traces, the loss and the optimizer: a
/// weighted layer rounds its input, its weights and the trace it learns from on the way in, and gives f32.
///
/// ```
/// use spiketrace::setting::{with_precision, Precision};
/// use spiketrace::{OnlineModule, OtttSequential};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let mut net = OtttSequential::new().add(nn::linear(vs.root(), 4, 2, Default::default()));
/// let x = Tensor::rand([3, 4], (Kind::Float, Device::Cpu));
/// let full = net.step(&(&x).into(), true)?;
/// let rounded = with_precision(Precision::BFloat16, || net.step(&(&x).into(), true))?;
/// assert_eq!(rounded.value().kind(), Kind::Float);
/// assert!(rounded.value().allclose(full.value(), 0.02, 0.02, false));
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "autocast")]
pub fn with_precision<T>(precision: Precision, body: impl FnOnce() -> T) -> T {
    scoped(&PRECISION, precision, body)
}

/// The precision on this thread.
pub(crate) fn precision() -> Precision {
    PRECISION.get()
}
