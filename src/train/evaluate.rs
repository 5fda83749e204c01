//! A network's answer to a sequence.

use tch::Tensor;

use super::sequence::{add, holding_weights, Answers};
use crate::error::{Error, Result};
use crate::module::{OnlineModule, Pass};

/// The sum over time of the network's outputs, in evaluation mode and without a graph.
///
/// The network is reset before and after: the answer depends on this sequence alone.
///
/// # Shapes
/// `x_seq` `[B, T, ...]` to `[B, ...]`.
///
/// # Errors
/// When the sequence is empty or has no time, and what the network says; it is reset then too.
pub fn evaluate(net: &mut (impl OnlineModule + ?Sized), x_seq: &Tensor) -> Result<Tensor> {
    if x_seq.dim() < 2 || x_seq.numel() == 0 {
        let fix = "repeat_over_time() makes a sequence of a batch";
        return Err(Error::shape("x_seq", "[B, T, ...] with at least one element", x_seq, fix));
    }
    net.reset();
    let _no_grad = tch::no_grad_guard();
    let result = holding_weights(|hold| {
        let (answers, pass) = (Answers::new(net, x_seq)?, Pass { hold, ..Pass::new(false) });
        let mut total = None;
        for t in 0..x_seq.size()[1] {
            add(&mut total, answers.of(net, t, &pass)?)?;
        }
        Ok(total.unwrap_or_default())
    });
    net.reset();
    result
}
