//! libtorch's automatic casts, which tch switches for CUDA only.

use tch::{Kind, Tensor};

use super::{check, raw};
use crate::error::Result;

/// Runs `body` with linear layers and convolutions on the device of `like` computing in `kind`.
pub(crate) fn autocast<T>(like: &Tensor, kind: Kind, body: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Sets the former state again, in a panic too.
    struct Restore<'a>(&'a Tensor, raw::Autocast);

    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let _ = swap(self.0, &mut self.1);
        }
    }

    // No cache of cast weights: they may move before it is emptied.
    let dtype = match kind {
        Kind::Half => 5,
        _ => 15, // c10::ScalarType::BFloat16
    };
    let mut state = raw::Autocast { dtype, enabled: true, cache: false };
    swap(like, &mut state)?;
    let _restore = Restore(like, state);
    body()
}

fn swap(like: &Tensor, state: &mut raw::Autocast) -> Result<()> {
    // SAFETY: a tensor and a state that live through the call; both sides assert the state's layout.
    check(unsafe { raw::spiketrace_autocast(like.as_ptr(), state) })
}
