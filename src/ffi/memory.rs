//! Questions about a tensor's memory that tch does not ask libtorch: how it lies, and who else can see it.

use std::ops::Deref;

use tch::Tensor;

use super::raw;
use crate::error::Result;

/// How a tensor's elements lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// They fill a stretch of it, in whatever order.
    Dense,
    /// Each has a place of its own, with gaps between.
    Apart,
    /// Several have one place, as in an expanded tensor.
    Shared,
    /// Not by strides (a sparse tensor, for instance), or not within the tensor's storage.
    Other,
}

/// Costs no allocation where the tensor is dense.
pub(crate) fn layout(tensor: &Tensor) -> Layout {
    debug_assert!(tensor.defined());
    // SAFETY: a defined tensor that lives through the call, and is only looked at.
    match unsafe { raw::spiketrace_layout(tensor.as_ptr()) } {
        0 => Layout::Dense,
        1 => Layout::Apart,
        2 => Layout::Shared,
        _ => Layout::Other,
    }
}

/// Whether two dense tensors of one size, kind and device hold the same element at each place of their own memory.
pub(crate) fn is_alike(a: &Tensor, b: &Tensor) -> bool {
    // SAFETY: as above, of two tensors.
    unsafe { raw::spiketrace_is_alike(a.as_ptr(), b.as_ptr()) }
}

/// The same number for two handles of one tensor, and for nothing else that lives.
pub(crate) fn identity(tensor: &Tensor) -> usize {
    // SAFETY: as above; what comes back is compared, not followed.
    unsafe { raw::spiketrace_identity(tensor.as_ptr()) as usize }
}

/// Whether nobody else holds `tensor`: no other handle and no graph.
///
/// Nobody can get hold of it as long as the caller has this handle to itself, which a `&mut` around it says.
fn is_sole_handle(tensor: &Tensor) -> bool {
    // SAFETY: a tensor that lives through the call; C++ reads a count.
    unsafe { raw::spiketrace_handles(tensor.as_ptr()) == 1 }
}

/// Whether nobody else can see the memory of `tensor` either, by a view or a detached tensor, and it is libtorch's own.
pub(crate) fn is_unshared(tensor: &Tensor) -> bool {
    // SAFETY: as above.
    is_sole_handle(tensor) && unsafe { raw::spiketrace_memory_handles(tensor.as_ptr()) == 1 }
}

/// The values of `tensor` in memory of their own, laid out as `like` is as far as that is dense, in its kind; without a
/// graph.
pub(crate) fn copy_like(like: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    let mut copy = like.f_detach()?.f_empty_like()?;
    copy.f_copy_(&tensor.f_detach()?)?;
    Ok(copy)
}

/// The sizes of a tensor, as tch's `size()`, but without an allocation where it has no more dimensions than videos have:
/// what is asked at every step must not cost more than the answer is worth.
pub(crate) fn shape(tensor: &Tensor) -> Dims {
    let read = torch_sys::at_shape;
    // SAFETY: libtorch writes as many numbers as there are dimensions.
    Dims::of(tensor, |tensor, dims| unsafe { read(tensor, dims) })
}

/// Its strides, likewise.
pub(crate) fn strides(tensor: &Tensor) -> Dims {
    let read = torch_sys::at_stride;
    // SAFETY: as above.
    Dims::of(tensor, |tensor, dims| unsafe { read(tensor, dims) })
}

/// How many elements it has.
pub(crate) fn elements(tensor: &Tensor) -> usize {
    shape(tensor).iter().product::<i64>() as usize
}

/// A number for each dimension.
pub(crate) struct Dims {
    short: [i64; 6],
    long: Vec<i64>,
    len: usize,
}

impl Dims {
    fn of(tensor: &Tensor, read: impl FnOnce(*mut torch_sys::C_tensor, *mut i64)) -> Self {
        let mut dims = Self { short: [0; 6], long: Vec::new(), len: tensor.dim() };
        if dims.len > dims.short.len() {
            dims.long.resize(dims.len, 0);
        }
        let start = if dims.long.is_empty() { &mut dims.short[..] } else { &mut dims.long[..] };
        read(tensor.as_ptr().cast_mut(), start.as_mut_ptr());
        dims
    }
}

impl Deref for Dims {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        match self.long.is_empty() {
            true => &self.short[..self.len],
            false => &self.long,
        }
    }
}
