//! The memory of a tensor as bytes, for files.

use std::ops::Deref;
use std::slice;

use tch::{Device, Tensor};

use super::{copy_like, is_unshared};
use crate::error::{Error, Result};

/// The bytes of a tensor that nobody else can reach.
pub(crate) struct Bytes {
    tensor: Tensor,
    len: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: libtorch keeps `len` bytes there as long as the tensor lives. No other handle leads to them, and this
        // one is never handed out: nobody writes to them.
        unsafe { slice::from_raw_parts(start(&self.tensor, self.len), self.len) }
    }
}

/// The bytes of a contiguous tensor on the CPU.
///
/// Where other handles share its memory, those of a copy: another thread may write to the memory while it is read, and
/// then the copy, which is libtorch's work, holds old and new numbers, but nothing that Rust relies on changes.
pub(crate) fn bytes(tensor: Tensor) -> Result<Bytes> {
    let len = checked_len(&tensor)?;
    if is_unshared(&tensor) {
        return Ok(Bytes { tensor, len });
    }
    Ok(Bytes { tensor: copy_like(&tensor, &tensor)?, len })
}

/// The bytes of a contiguous tensor on the CPU, to write.
///
/// # Errors
/// When another handle shares its memory.
#[cfg(feature = "files")]
pub(crate) fn bytes_mut(tensor: &mut Tensor) -> Result<&mut [u8]> {
    let len = checked_len(tensor)?;
    if !is_unshared(tensor) {
        return Err(Error::argument("a tensor's bytes to write", "memory that nothing shares", "shared"));
    }
    // SAFETY: as above; no other handle leads to these bytes, and this one is borrowed as long as they are.
    Ok(unsafe { slice::from_raw_parts_mut(start(tensor, len), len) })
}

/// Where the bytes lie; libtorch says null where there are none.
fn start(tensor: &Tensor, len: usize) -> *mut u8 {
    if len == 0 {
        return std::ptr::dangling_mut();
    }
    tensor.data_ptr().cast()
}

fn checked_len(tensor: &Tensor) -> Result<usize> {
    if !tensor.defined() || tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        return Err(Error::argument("a tensor's bytes", "a contiguous tensor on the CPU", "another"));
    }
    Ok(tensor.numel() * tensor.f_kind()?.elt_size_in_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_tensors_own_where_it_has_no_other_handle() {
        let tensor = Tensor::from_slice(&[1u8, 2, 3]);
        let place = tensor.data_ptr();
        let own = bytes(tensor).unwrap();
        assert_eq!((&own[..], own.as_ptr()), (&[1, 2, 3][..], place.cast_const().cast()));
        assert!(bytes(Tensor::from_slice::<f32>(&[])).unwrap().is_empty());
    }

    #[test]
    fn bytes_of_shared_memory_stay_when_it_is_written_to() {
        let tensor = Tensor::from_slice(&[1u8, 2, 3]);
        for shared in [tensor.shallow_clone(), tensor.detach(), tensor.narrow(0, 0, 3)] {
            let own = bytes(shared).unwrap();
            let _ = tensor.shallow_clone().fill_(9);
            assert_eq!(&own[..], [1, 2, 3]);
            tensor.shallow_clone().copy_(&Tensor::from_slice(&[1u8, 2, 3]));
        }
    }

    #[cfg(feature = "files")]
    #[test]
    fn shared_memory_is_not_lent_to_write() {
        let mut tensor = Tensor::from_slice(&[1u8, 2, 3]);
        bytes_mut(&mut tensor).unwrap()[0] = 5;
        assert_eq!(tensor, Tensor::from_slice(&[5u8, 2, 3]));
        let _other = tensor.detach();
        assert!(bytes_mut(&mut tensor).unwrap_err().to_string().contains("nothing shares"));
    }
}
