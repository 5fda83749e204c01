//! The online training loop of OTTT and SLTT.

use tch::Tensor;

use super::sequence::{expect_loss, expect_sequences};
use super::Optimizer;
use crate::error::{guarded, Result};
use crate::module::OnlineModule;

/// When the weights move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// After every time step: OTTT_O, the online case.
    EveryStep,
    /// Once behind the sequence, by the accumulated gradient: OTTT_A.
    EndOfSequence,
}

/// What a training loop returns.
#[derive(Debug)]
pub struct SequenceOutput {
    /// Sum of the steps' losses; on the loop's device, without a graph.
    pub loss: Tensor,
    /// `[B, T, ...]`, the network's outputs, without a graph.
    pub outputs: Tensor,
}

/// Trains `net` on one batch of sequences, step by step.
///
/// At each time step: forward, loss, backward; with [`Update::EveryStep`] the weights move then, with
/// [`Update::EndOfSequence`] once at the end. The graph of a step is released with the step, so memory
/// does not grow with T.
///
/// The network's state goes on from where it was: call [`reset`](OnlineModule::reset) between sequences.
///
/// # Shapes
/// `x_seq` `[B, T, ...]` and `target_seq` `[B, T, ...]`, batch first, then time; `loss_fn` gets the network's
/// output `[B, ...]` and the target `[B, ...]` of one step and returns one number.
///
/// # Errors
/// When the sequences do not fit together, when the loss is not one number that depends on a parameter,
/// and what the network, the loss and the optimizer say. The shapes are checked before anything moves.
///
/// # Source
/// Xiao et al., arXiv 2210.04195, algorithm 1; SpikingJelly's `ottt_online_training`.
///
/// ```
/// use spiketrace::train::{ottt_online_training, repeat_over_time, Update};
/// use spiketrace::{OnlineModule, OtttLifNode, OtttSequential};
/// use tch::nn::{self, OptimizerConfig};
/// use tch::{Device, Kind, Reduction, Tensor};
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let p = vs.root();
/// let mut net = OtttSequential::new()
///     .add(nn::linear(&p / "0", 8, 4, Default::default()))
///     .add(OtttLifNode::new(Default::default())?)
///     .add(nn::linear(&p / "2", 4, 2, Default::default()));
/// let mut optimizer = nn::Sgd::default().build(&vs, 0.1)?;
///
/// let x_seq = repeat_over_time(&Tensor::rand([3, 8], (Kind::Float, Device::Cpu)), 6)?;
/// let target_seq = Tensor::rand([3, 6, 2], (Kind::Float, Device::Cpu));
/// let mse = |y: &Tensor, t: &Tensor| Ok(y.f_mse_loss(t, Reduction::Mean)?);
/// let out = ottt_online_training(&mut net, &mut optimizer, &x_seq, &target_seq, mse, Update::EveryStep)?;
/// assert_eq!(out.outputs.size(), [3, 6, 2]);
/// net.reset();
/// # Ok::<(), spiketrace::Error>(())
/// ```
pub fn ottt_online_training(
    net: &mut (impl OnlineModule + ?Sized),
    optimizer: &mut (impl Optimizer + ?Sized),
    x_seq: &Tensor,
    target_seq: &Tensor,
    loss_fn: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    update: Update,
) -> Result<SequenceOutput> {
    expect_sequences(x_seq, target_seq, "B, T")?;
    let time_steps = x_seq.size()[1];
    let mut total: Option<Tensor> = None;
    let mut outputs = Vec::new();

    for t in 0..time_steps {
        if t == 0 || update == Update::EveryStep {
            optimizer.zero_grad()?;
        }
        let x = x_seq.f_select(1, t)?.into();
        let y = guarded("the network", || net.step(&x, true))?.into_value();
        let target = target_seq.f_select(1, t)?.f_contiguous()?;
        let loss = guarded("the loss", || loss_fn(&y, &target))?;
        expect_loss(&loss)?;
        loss.f_backward()?;
        if t == time_steps - 1 || update == Update::EveryStep {
            optimizer.step()?;
        }
        net.detach();
        let loss = loss.detach();
        total = Some(match total {
            Some(total) => total.f_add(&loss)?,
            None => loss,
        });
        outputs.push(y.detach());
    }
    let outputs = Tensor::f_stack(&outputs, 1)?;
    Ok(SequenceOutput { loss: total.unwrap_or_default(), outputs })
}
