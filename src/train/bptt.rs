//! Backpropagation through time: what online training is measured against.

use tch::Tensor;

use super::sequence::{add, expect_sequences, holding_weights, Sequence, SequenceOutput};
use super::Optimizer;
use crate::error::Result;
use crate::module::{OnlineModule, Pass};

/// Trains `net` on one batch of sequences by backpropagation through time: the exact gradient, once after the
/// sequence, at the price of memory that grows with T.
///
/// The same network as for [`ottt_online_training`](super::ottt_online_training); its neurons hand the graph of
/// their potential from step to step and send plain spikes, without traces. As there, a spike is data in the
/// reset.
///
/// # Shapes
/// As for [`ottt_online_training`](super::ottt_online_training).
///
/// # Errors
/// As there. The network's state is cut from the graph after the sequence.
///
/// # Source
/// Neftci et al., arXiv 1901.09948.
#[doc(alias = "BPTT")]
pub fn bptt_training(
    net: &mut (impl OnlineModule + ?Sized),
    optimizer: &mut (impl Optimizer + ?Sized),
    x_seq: &Tensor,
    target_seq: &Tensor,
    loss_fn: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<SequenceOutput> {
    expect_sequences(x_seq, target_seq, "B, T")?;
    optimizer.set_samples(x_seq.size()[0]);
    optimizer.zero_grad()?;
    let mut sequence = Sequence::new(net, x_seq, target_seq, loss_fn)?;
    let result = holding_weights(|hold| {
        let (pass, mut total) = (Pass { hold, through_time: true, ..Pass::new(true) }, None);
        for t in 0..x_seq.size()[1] {
            let (loss, y) = sequence.loss(net, t, &pass)?;
            add(&mut total, loss)?;
            sequence.keep(&y, t, 1)?;
        }
        let total = total.unwrap_or_default();
        total.f_backward()?;
        sequence.count(&total)
    });
    net.detach();
    result?;
    optimizer.step()?;
    Ok(sequence.output())
}
