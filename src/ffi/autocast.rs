//! libtorch's automatic casts, which tch switches for CUDA only.

use tch::{Kind, Tensor};

use super::{check, raw};
use crate::error::Result;

/// A state of the casts on this thread, to set again.
pub(crate) struct Autocast(raw::Autocast);

/// Lets linear layers and convolutions on the device of `like` compute in `kind`; returns the former state.
pub(crate) fn start_autocast(like: &Tensor, kind: Kind) -> Result<Autocast> {
    // No cache of cast weights: they may move before it is emptied.
    let dtype = match kind {
        Kind::Half => 5,
        _ => 15, // c10::ScalarType::BFloat16
    };
    let mut state = Autocast(raw::Autocast { dtype, enabled: true, cache: false });
    swap_autocast(like, &mut state)?;
    Ok(state)
}

/// Sets a state for the device of `like`; it becomes the former one.
pub(crate) fn swap_autocast(like: &Tensor, state: &mut Autocast) -> Result<()> {
    // SAFETY: a tensor and a state that live through the call; both sides assert the state's layout.
    check(unsafe { raw::spiketrace_autocast(like.as_ptr(), &mut state.0) })
}
