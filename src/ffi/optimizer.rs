//! libtorch's fused optimizer kernels, which tch does not bind.
//!
//! The kernels go through memory by address. Tensors of one call are of one device and kind, and laid out alike: C++
//! refuses others.

use tch::Tensor;

use super::{check, raw, AdamOptions, List, SgdOptions};
use crate::error::Result;

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
