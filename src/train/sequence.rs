//! Sequences: time is the second dimension, behind the batch.

use tch::Tensor;

use crate::error::{guarded, Error, Result};
use crate::module::{Constant, OnlineModule};
use crate::signal::Signal;

/// Repeats a batch `[B, ...]` over time: `[B, T, ...]`, without a copy.
///
/// The usual input code of OTTT: the same image drives the network at every step.
///
/// # Errors
/// When `time_steps` is below 1, or `x` is a scalar.
pub fn repeat_over_time(x: &Tensor, time_steps: i64) -> Result<Tensor> {
    if time_steps < 1 {
        return Err(Error::argument("time_steps", "at least 1", time_steps));
    }
    if x.dim() == 0 {
        return Err(Error::shape("repeat_over_time's x", "[B, ...]", x, "add a batch with unsqueeze(0)"));
    }
    let mut size = x.size();
    size.insert(1, time_steps);
    Ok(x.f_unsqueeze(1)?.f_expand(&size, false)?)
}

/// Errors unless both tensors share their first two sizes, which `dims` names, with nothing empty.
pub(super) fn expect_sequences(x_seq: &Tensor, target_seq: &Tensor, dims: &str) -> Result<()> {
    let expected = format!("[{dims}, ...]");
    for (what, tensor) in [("x_seq", x_seq), ("target_seq", target_seq)] {
        if !tensor.defined() {
            return Err(Error::argument(what, "a tensor with values", "an undefined tensor"));
        }
        if tensor.dim() < 2 {
            let fix = "repeat_over_time() makes a sequence of a batch";
            return Err(Error::shape(what, &expected, tensor, fix));
        }
        if tensor.numel() == 0 {
            return Err(Error::shape(what, "at least one element", tensor, "skip empty batches"));
        }
    }
    let wanted = &x_seq.size()[..2];
    if target_seq.size()[..2] != *wanted {
        let fix = "it must agree with x_seq in both; labels of shape [B] are repeated by repeat_over_time()";
        return Err(Error::shape(
            "target_seq",
            format!("[{}, {}, ...]", wanted[0], wanted[1]),
            target_seq,
            fix,
        ));
    }
    Ok(())
}

/// Errors unless `loss` is one number that depends on a parameter.
pub(super) fn expect_loss(loss: &Tensor) -> Result<()> {
    if loss.numel() != 1 {
        return Err(Error::shape("the loss", "a single number", loss, "reduce it with mean() or sum()"));
    }
    if !loss.requires_grad() {
        return Err(Error::Gradient(
            "the loss depends on no parameter that asks for a gradient; is the VarStore frozen, \
             or no_grad() around the loop?"
                .into(),
        ));
    }
    Ok(())
}

/// Runs `body` while the weights stand still, and gives them the gradient they gathered, whatever comes of it.
pub(super) fn holding_weights<M: OnlineModule + ?Sized, T>(
    net: &mut M,
    body: impl FnOnce(&mut M) -> Result<T>,
) -> Result<T> {
    let result = guarded("the network", || net.hold_weights().and_then(|()| body(net)));
    let released = guarded("the network", || net.release_weights());
    result.and_then(|result| released.map(|()| result))
}

/// Passes on the gradient that is kept back where somebody around the loop holds the weights: it is about to be used, or
/// to be forgotten.
pub(super) fn pass_on_gradients(net: &mut (impl OnlineModule + ?Sized)) -> Result<()> {
    holding_weights(net, |_| Ok(()))
}

/// Steps `t .. t + k` of `[B, T, ...]`, one after another; a constant where they are the same by their strides
/// and the network takes that.
pub(super) fn input(constant: Constant, x_seq: &Tensor, t: i64, k: i64) -> Result<Signal> {
    let repeats = x_seq.stride()[1] == 0 || x_seq.size()[1] == 1;
    Ok(match k {
        _ if repeats && constant == Constant::Takes => Signal::Constant(x_seq.f_select(1, 0)?),
        1 => x_seq.f_select(1, t)?.into(),
        _ => x_seq.f_narrow(1, t, k)?.f_transpose(0, 1)?.f_flatten(0, 1)?.into(),
    })
}
