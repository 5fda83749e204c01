//! The state of libtorch's random generators, which tch does not reach.

use tch::{Device, Kind, Tensor};

use super::{check, raw, List};
use crate::error::{Error, Result};

fn like(device: Device) -> Result<Tensor> {
    Ok(Tensor::f_empty([0], (Kind::Float, device))?)
}

/// The state of the generator of `device`, as bytes.
pub(crate) fn random_state(device: Device) -> Result<Tensor> {
    let (like, list) = (like(device)?, List::new());
    // SAFETY: a tensor that lives through the call; C++ fills the list that we own.
    check(unsafe { raw::spiketrace_random_state(like.as_ptr(), list.0) })?;
    list.get(0).ok_or_else(|| Error::Torch("the random generator has no state".into()))
}

/// Sets that state; libtorch refuses one that is not a state.
pub(crate) fn set_random_state(device: Device, state: &Tensor) -> Result<()> {
    let like = like(device)?;
    // SAFETY: two tensors that live through the call.
    check(unsafe { raw::spiketrace_set_random_state(like.as_ptr(), state.as_ptr()) })
}
