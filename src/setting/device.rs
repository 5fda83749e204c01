//! Devices by name, with CUDA found at run time.

use tch::{Cuda, Device};

use crate::error::{Error, Result};
use crate::ffi::load_cuda;

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one.
///
/// CUDA is libtorch's: its library libtorch_cuda is loaded here, so a program needs no linker flags for it.
/// Call this before anything else asks for CUDA: libtorch looks once.
///
/// # Errors
/// When the name is none of these, or CUDA is asked for and this libtorch is its CPU build, or sees no such
/// GPU. `auto` is never an error.
///
/// ```
/// let device = spiketrace::device("auto")?;
/// let x = tch::Tensor::zeros([2], (tch::Kind::Float, device));
/// # Ok::<(), spiketrace::Error>(())
/// ```
pub fn device(name: &str) -> Result<Device> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(cuda(0).unwrap_or(Device::Cpu)),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    match index {
        Some(index) => cuda(index),
        None => Err(Error::argument("the device", "auto, cpu, cuda or cuda:N", name)),
    }
}

fn cuda(index: usize) -> Result<Device> {
    let missing = |why: String| Err(Error::NoCuda(why));
    if let Err(Error::Torch(why)) = load_cuda() {
        let why = format!(
            "this libtorch is its CPU build, or part of it is missing ({why}); install PyTorch with CUDA"
        );
        return missing(why);
    }
    match Cuda::device_count() {
        0 => missing(
            "libtorch sees no GPU; is the NVIDIA driver there, and was device() called before all else that asks for CUDA?"
                .into(),
        ),
        count if (index as i64) < count => Ok(Device::Cuda(index)),
        count => missing(format!("there is no cuda:{index}, only {count} GPUs, numbered from 0")),
    }
}
