//! The state of libtorch's random generators.

use tch::{Device, Tensor};

use crate::check::expect_defined;
use crate::error::{guarded, Result};
use crate::ffi;

/// The state of the generator that operations on `device` draw from: dropout, shuffles, initial weights.
///
/// It is a tensor of bytes on the CPU, the same that Python's `torch.get_rng_state()` returns.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// let state = spiketrace::setting::random_state(Device::Cpu)?;
/// let first = Tensor::rand([3], (Kind::Float, Device::Cpu));
/// spiketrace::setting::set_random_state(Device::Cpu, &state)?;
/// assert_eq!(Tensor::rand([3], (Kind::Float, Device::Cpu)), first);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "get_rng_state")]
pub fn random_state(device: Device) -> Result<Tensor> {
    guarded("the random state", || ffi::random_state(device))
}

/// Sets the state of a generator to one that [`random_state`] returned.
///
/// # Errors
/// When the tensor is not such a state; nothing is changed then.
#[doc(alias = "set_rng_state")]
pub fn set_random_state(device: Device, state: &Tensor) -> Result<()> {
    expect_defined("the random state", state)?;
    guarded("the random state", || ffi::set_random_state(device, state))
}
