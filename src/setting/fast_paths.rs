//! The switches of the fast paths, for comparison with the plain ones.

use std::cell::Cell;

use super::scoped;

/// Which fast paths are taken; all, unless said otherwise.
///
/// Results are the same to rounding either way: the plain paths are what the fast ones are tested against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FastPaths {
    /// An affine layer runs once, on the spike, and its weights learn from the trace all the same.
    pub one_pass: bool,
    /// A neuron step on the CPU is one sweep over memory, and so is its backward.
    pub fused_neuron: bool,
    /// Weights that move after a sequence are standardized once for all of its steps.
    pub held_weights: bool,
    /// Weights on the CPU are standardized in one sweep over memory, and backward likewise.
    pub fused_standardization: bool,
    /// `OtttLoss` on the CPU is one sweep, its gradient included.
    pub fused_loss: bool,
    /// Containers lay images out with their channels last for convolutions on the CPU.
    pub channels_last: bool,
}

impl Default for FastPaths {
    fn default() -> Self {
        Self {
            one_pass: true,
            fused_neuron: true,
            held_weights: true,
            fused_standardization: true,
            fused_loss: true,
            channels_last: true,
        }
    }
}

impl FastPaths {
    /// No fast path at all.
    pub const NONE: Self = Self {
        one_pass: false,
        fused_neuron: false,
        held_weights: false,
        fused_standardization: false,
        fused_loss: false,
        channels_last: false,
    };
}

thread_local! {
    static FAST_PATHS: Cell<FastPaths> = Cell::new(FastPaths::default());
}

/// Runs `body` with the given fast paths, on this thread; the former ones come back after it.
///
/// ```
/// use spiketrace::setting::{with_fast_paths, FastPaths};
/// let answer = with_fast_paths(FastPaths::NONE, || 6 * 7);
/// assert_eq!(answer, 42);
/// ```
pub fn with_fast_paths<T>(paths: FastPaths, body: impl FnOnce() -> T) -> T {
    scoped(&FAST_PATHS, paths, body)
}

/// The paths taken on this thread.
pub(crate) fn fast_paths() -> FastPaths {
    FAST_PATHS.get()
}
