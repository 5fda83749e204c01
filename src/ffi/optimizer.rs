//! libtorch's fused optimizer kernels, which tch does not bind, and what they must know of memory.
//!
//! The kernels go through memory by address. Tensors of one call are of one device and kind, and laid out alike: C++
//! refuses others.

use tch::Tensor;

use super::{check, raw, AdamOptions, List, SgdOptions};
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

fn list(tensors: &[Tensor]) -> List {
    tensors.iter().map(Some).collect()
}

/// Moves `params` and the momentum `buffers`, which are made from the gradients if this is the `first` step.
pub(crate) fn fused_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    buffers: &[Tensor],
    options: SgdOptions,
    first: bool,
) -> Result<()> {
    let (params, grads, buffers) = (list(params), list(grads), list(buffers));
    // SAFETY: lists and options live through the call; both sides assert the options' layout.
    check(unsafe { raw::spiketrace_fused_sgd(params.0, grads.0, buffers.0, &options, first) })
}

/// Counts `steps` up and moves `params` and both averages.
pub(crate) fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    options: AdamOptions,
) -> Result<()> {
    let (params, grads, steps) = (list(params), list(grads), list(steps));
    let (exp_avgs, exp_avg_sqs) = (list(exp_avgs), list(exp_avg_sqs));
    // SAFETY: as above.
    check(unsafe {
        raw::spiketrace_fused_adam(params.0, grads.0, exp_avgs.0, exp_avg_sqs.0, steps.0, &options)
    })
}

/// Leaves `tensor` without a gradient.
pub(crate) fn forget_grad(tensor: &Tensor) -> Result<()> {
    // SAFETY: a tensor that lives through the call; libtorch refuses an undefined one.
    check(unsafe { raw::spiketrace_forget_grad(tensor.as_ptr()) })
}
