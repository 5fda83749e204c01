//! The memory of a tensor as bytes, for files.

use std::slice;

use tch::{Device, Tensor};

use crate::error::{Error, Result};

/// The bytes of a contiguous tensor on the CPU.
pub(crate) fn bytes(tensor: &Tensor) -> Result<&[u8]> {
    let len = checked_len(tensor)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: libtorch keeps `len` bytes there as long as the tensor lives; nobody writes to them during a read
    // but one who trains on another thread, and then any bytes do.
    Ok(unsafe { slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), len) })
}

/// The bytes of a contiguous tensor on the CPU that nothing else shares.
pub(crate) fn bytes_mut(tensor: &mut Tensor) -> Result<&mut [u8]> {
    let len = checked_len(tensor)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as above, and the caller has just made the tensor, so no other handle sees its memory.
    Ok(unsafe { slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), len) })
}

fn checked_len(tensor: &Tensor) -> Result<usize> {
    if !tensor.defined() || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(Error::argument("a tensor's bytes", "a contiguous tensor on the CPU", "another"));
    }
    Ok(tensor.numel() * tensor.f_kind()?.elt_size_in_bytes())
}
