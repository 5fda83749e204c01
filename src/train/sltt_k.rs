//! SLTT-K: backward at a few steps of a sequence.

use tch::{Device, Kind, Tensor};

use super::sequence::{expect_sequences, holding_weights, Sequence, SequenceOutput};
use super::Optimizer;
use crate::error::{Error, Result};
use crate::module::{OnlineModule, Pass};

/// Trains `net` on one batch of sequences with backward at `k` of its T steps, drawn anew each time.
///
/// All steps run forward; loss and backward are those of the drawn steps D alone, and the weights move once after
/// the sequence. Backward costs k steps, however long the sequence.
///
/// ```text
/// D: k of 1..=T without replacement       dW = Σ_{t in D} dL_t/dW
/// ```
///
/// For a network of [`SlttLifNode`](crate::SlttLifNode)s; with traced neurons it is OTTT at k steps. The steps are
/// drawn by libtorch's generator, so `tch::manual_seed` repeats them. Of many processes each draws its own, unless all
/// have the same seed.
///
/// # Shapes
/// As for [`ottt_online_training`](super::ottt_online_training). The loss returned is the sum over the drawn steps,
/// the outputs are those of all steps.
///
/// # Errors
/// As there, and when `k` is not in 1..=T.
///
/// # Source
/// Meng et al., ICCV 2023, arXiv 2302.14311; their code leaves the losses of the drawn steps as they
/// are, without T/k in front, and so does this.
#[doc(alias = "SLTT-K")]
pub fn sltt_k_training(
    net: &mut (impl OnlineModule + ?Sized),
    optimizer: &mut (impl Optimizer + ?Sized),
    x_seq: &Tensor,
    target_seq: &Tensor,
    loss_fn: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    k: i64,
) -> Result<SequenceOutput> {
    expect_sequences(x_seq, target_seq, "B, T")?;
    let time_steps = x_seq.size()[1];
    if !(1..=time_steps).contains(&k) {
        let expected = format!("from 1 to {time_steps}, the count of time steps");
        return Err(Error::argument("k", &expected, k));
    }
    let order = Tensor::f_randperm(time_steps, (Kind::Int64, Device::Cpu))?;
    let drawn = Vec::<i64>::try_from(order.f_narrow(0, 0, k)?)?;
    optimizer.set_samples(x_seq.size()[0]);
    let mut sequence = Sequence::new(net, x_seq, target_seq, loss_fn)?;
    optimizer.zero_grad()?;
    holding_weights(|hold| {
        let pass = Pass { hold, ..Pass::new(true) };
        (0..time_steps).try_for_each(|t| match drawn.contains(&t) {
            true => sequence.learn(net, t, &pass),
            false => sequence.forward(net, t, &pass),
        })
    })?;
    optimizer.step()?;
    Ok(sequence.output())
}
