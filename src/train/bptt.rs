//! Backpropagation through time: what online training is measured against.

use tch::Tensor;

use super::ottt::{add, SequenceOutput};
use super::sequence::{expect_loss, expect_sequences, holding_weights, input, pass_on_gradients};
use super::Optimizer;
use crate::error::{guarded, Result};
use crate::module::OnlineModule;
use crate::through_time::through_time;

/// Trains `net` on one batch of sequences by backpropagation through time: the exact gradient, once behind the
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
/// As there. The network's state is cut from the graph behind the sequence.
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
    pass_on_gradients(net)?;
    optimizer.zero_grad()?;
    let result = holding_weights(net, |net| {
        let (mut loss, mut outputs) = (None, Vec::new());
        for t in 0..x_seq.size()[1] {
            let x = input(net.constant(), x_seq, t, 1)?;
            let y = guarded("the network", || through_time(|| net.step(&x, true)))?.into_value();
            let target = target_seq.f_select(1, t)?.f_contiguous()?;
            let own = guarded("the loss", || loss_fn(&y, &target))?;
            expect_loss(&own)?;
            add(&mut loss, own)?;
            outputs.push(y.f_detach()?);
        }
        let loss = loss.unwrap_or_default();
        loss.f_backward()?;
        Ok(SequenceOutput { loss: loss.f_detach()?, outputs: Tensor::f_stack(&outputs, 1)? })
    });
    net.detach();
    let output = result?;
    optimizer.step()?;
    Ok(output)
}
