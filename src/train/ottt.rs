//! The online training loop of OTTT and SLTT.

use tch::Tensor;

use super::sequence::{expect_sequences, holding_weights, Sequence, SequenceOutput};
use super::Optimizer;
use crate::error::{Error, Result};
use crate::module::{OnlineModule, Pass};

/// When the weights move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// After every time step: OTTT_O, the online case.
    EveryStep,
    /// Once after the sequence, by the accumulated gradient: OTTT_A.
    EndOfSequence,
}

/// How [`ottt_online_training`] goes through a sequence; an [`Update`] alone stands for it with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtttTrainingConfig {
    /// When the weights move; [`Update::EveryStep`].
    pub update: Update,
    /// Time steps that go through each layer together, K; 1. With more than one, the gradients are the same,
    /// each kernel is larger, and the graph of K steps is kept. K need not divide T. Only where the weights
    /// stand still, that is with [`Update::EndOfSequence`].
    pub steps_per_pass: i64,
}

impl Default for OtttTrainingConfig {
    fn default() -> Self {
        Self { update: Update::EveryStep, steps_per_pass: 1 }
    }
}

impl From<Update> for OtttTrainingConfig {
    fn from(update: Update) -> Self {
        Self { update, ..Self::default() }
    }
}

impl OtttTrainingConfig {
    fn check(&self) -> Result<()> {
        let expected = match self.update {
            Update::EveryStep if self.steps_per_pass != 1 => {
                "1 with Update::EveryStep, where the weights move in between; Update::EndOfSequence takes more"
            }
            _ if self.steps_per_pass < 1 => "at least 1",
            _ => return Ok(()),
        };
        Err(Error::argument("steps_per_pass", expected, self.steps_per_pass))
    }
}

/// Trains `net` on one batch of sequences, step by step.
///
/// At each time step: forward, loss, backward; with [`Update::EveryStep`] the weights move then, with
/// [`Update::EndOfSequence`] once at the end. The graph of a pass is released with the pass, so memory
/// does not grow with T.
///
/// The network's state goes on from where it was: call [`reset`](crate::Part::reset) between sequences.
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
/// use spiketrace::{OtttLifNode, OtttSequential, Part};
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
    config: impl Into<OtttTrainingConfig>,
) -> Result<SequenceOutput> {
    expect_sequences(x_seq, target_seq, "B, T")?;
    let config = config.into();
    config.check()?;
    let time_steps = x_seq.size()[1];
    optimizer.set_samples(x_seq.size()[0]);
    let mut sequence = Sequence::new(net, x_seq, target_seq, loss_fn)?;
    match config.update {
        Update::EveryStep => {
            for t in 0..time_steps {
                optimizer.zero_grad()?;
                sequence.learn(net, t, &Pass::new(true))?;
                optimizer.step()?;
            }
        }
        Update::EndOfSequence => {
            optimizer.zero_grad()?;
            holding_weights(|hold| {
                (0..time_steps).step_by(config.steps_per_pass as usize).try_for_each(|t| {
                    let k = config.steps_per_pass.min(time_steps - t);
                    sequence.learn(net, t, &Pass { hold, ..Pass::new(true).steps(k) })
                })
            })?;
            optimizer.step()?;
        }
    }
    Ok(sequence.output())
}
