//! A training of a random network: drawn, run by given paths, and all that came of it.

use proptest::prelude::*;
use spiketrace::setting::{with_fast_paths, with_precision, FastPaths, Precision};
use spiketrace::train::{
    bptt_training, evaluate, fptt_online_training, fptt_online_training_init_w_ra, ottt_online_training,
    repeat_over_time, sltt_k_training, Adam, AdamConfig, Optimizer, OtttLoss, OtttTrainingConfig, Sgd,
    SgdConfig, Update,
};
use spiketrace::{Monitor, MonitorConfig, OtttSequential, Part, Result};
use tch::{Kind, Reduction, Tensor};

use crate::network::{build, numbers, Network, WORDS};
use crate::part::{self, parts};

/// How a sequence is learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Learning {
    EveryStep,
    /// Several steps a pass, where the network takes them.
    EndOfSequence {
        steps_per_pass: i64,
    },
    Bptt,
    SlttK,
    Fptt,
}

#[derive(Debug, Clone, Copy)]
pub enum Moves {
    Sgd,
    Momentum,
    Adam,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub parts: Vec<part::Part>,
    /// The size of one input sample.
    pub size: Vec<i64>,
    pub batch: i64,
    pub time_steps: i64,
    pub learning: Learning,
    pub moves: Moves,
    /// Whether the input is of indices, for an embedding.
    pub embeds: bool,
    /// Whether the input is one image shown at every step.
    pub still: bool,
    /// Whether the input asks for a gradient.
    pub input_grad: bool,
    pub ottt_loss: bool,
    pub reset: bool,
    pub kind: Numbers,
}

/// The numbers that a network computes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Numbers {
    Double,
    Single,
    /// Weighted layers in bfloat16.
    Reduced,
}

pub const CLASSES: i64 = 3;
const SEQUENCES: usize = 3;

pub fn cases() -> impl Strategy<Value = Case> {
    let size = prop_oneof![
        4 => (1i64..7).prop_map(|n| (vec![n], false)),
        1 => (1i64..4).prop_map(|n| (vec![n], true)),
        2 => (1i64..4, 3i64..6).prop_map(|(c, l)| (vec![c, l], false)),
        4 => (1i64..4, 2i64..6, 2i64..6).prop_map(|(c, h, w)| (vec![c, h, w], false)),
        1 => (1i64..3, 2i64..4).prop_map(|(c, n)| (vec![c, n, n, n], false)),
    ];
    let learning = prop_oneof![
        2 => Just(Learning::EveryStep),
        4 => (1i64..5).prop_map(|steps_per_pass| Learning::EndOfSequence { steps_per_pass }),
        2 => Just(Learning::Bptt),
        1 => Just(Learning::SlttK),
        1 => Just(Learning::Fptt),
    ];
    let moves = prop_oneof![Just(Moves::Sgd), Just(Moves::Momentum), Just(Moves::Adam)];
    let kind =
        prop_oneof![8 => Just(Numbers::Double), 1 => Just(Numbers::Single), 1 => Just(Numbers::Reduced)];
    let flags = (any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), any::<bool>());
    (parts(), size, 1i64..5, 1i64..6, learning, moves, flags, kind).prop_map(
        |(
            parts,
            (size, embeds),
            batch,
            time_steps,
            learning,
            moves,
            (still, input_grad, ottt_loss, reset),
            kind,
        )| {
            Case {
                parts,
                size,
                batch,
                time_steps,
                learning,
                moves,
                embeds,
                still,
                input_grad: input_grad && !embeds,
                ottt_loss,
                reset,
                kind,
            }
        },
    )
}

/// All that a training leaves.
pub struct Outcome {
    /// Outputs and losses of each sequence.
    pub outputs: Vec<Tensor>,
    pub losses: Vec<Tensor>,
    /// Gradients after each sequence, of all parameters and of the input; undefined where there is none.
    pub grads: Vec<(String, Tensor)>,
    pub weights: Vec<(String, Tensor)>,
    pub memories: Vec<Option<Tensor>>,
    pub evaluated: Tensor,
    /// How often each layer of neurons fired in the first sequence.
    pub rates: Vec<f64>,
}

impl Case {
    pub fn network(&self) -> Network {
        let kind = if self.kind == Numbers::Double { Kind::Double } else { Kind::Float };
        build(&self.parts, &self.size, self.embeds, CLASSES, kind)
    }

    /// A sequence's input; time is the second dimension, the first for FPTT.
    fn input(&self, sequence: usize, kind: Kind) -> Tensor {
        let (seed, scale) = (1000 + sequence, 2.0);
        let of = |size: Vec<i64>| match self.embeds {
            true => ((numbers(&size, seed) + 1.0) * (WORDS as f64 / 2.001)).to_kind(Kind::Int64),
            false => (numbers(&size, seed) * scale + 0.6).to_kind(kind),
        };
        let x = match self.still {
            true => repeat_over_time(&of([&[self.batch], &self.size[..]].concat()), self.time_steps).unwrap(),
            false => of([&[self.batch, self.time_steps], &self.size[..]].concat()),
        };
        x.set_requires_grad(self.input_grad)
    }

    fn target(&self, sequence: usize, kind: Kind) -> Tensor {
        if self.ottt_loss {
            let labels = Tensor::arange(self.batch, (Kind::Int64, tch::Device::Cpu)) + sequence as i64;
            return repeat_over_time(&labels.remainder(CLASSES), self.time_steps).unwrap();
        }
        numbers(&[self.batch, self.time_steps, CLASSES], 2000 + sequence).to_kind(kind)
    }

    pub fn optimizer(&self, network: &Network) -> Result<Box<dyn Optimizer>> {
        // A hundredth keeps the first gradients of all sizes alike small moves.
        let (lr, parameters) = (0.02, network.vs.trainable_variables());
        Ok(match self.moves {
            Moves::Sgd => Box::new(Sgd::new(&parameters, SgdConfig { lr, ..Default::default() })?),
            Moves::Momentum => {
                Box::new(Sgd::new(&parameters, SgdConfig { lr, momentum: 0.9, ..Default::default() })?)
            }
            // A large eps: Adam would make a gradient of rounding noise as large as any.
            Moves::Adam => {
                Box::new(Adam::new(&parameters, AdamConfig { lr, eps: 1e-2, ..Default::default() })?)
            }
        })
    }

    fn loss(&self, y: &Tensor, target: &Tensor) -> Result<Tensor> {
        match self.ottt_loss {
            true => OtttLoss::new(0.1, self.time_steps)?.forward(y, target),
            false => Ok(y.f_mse_loss(target, Reduction::Mean)?),
        }
    }

    /// Loss and outputs of one sequence.
    fn learn(
        &self,
        network: &mut Network,
        optimizer: &mut dyn Optimizer,
        averages: &mut [Tensor],
        sequence: usize,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let kind = if self.kind == Numbers::Double { Kind::Double } else { Kind::Float };
        let (x, target) = (self.input(sequence, kind), self.target(sequence, kind));
        let loss = |y: &Tensor, target: &Tensor| self.loss(y, target);
        let net = &mut network.net;
        let out = match self.learning {
            Learning::EveryStep => {
                ottt_online_training(net, optimizer, &x, &target, loss, Update::EveryStep)?
            }
            Learning::EndOfSequence { steps_per_pass } => {
                let steps_per_pass = if network.steps_at_once { steps_per_pass } else { 1 };
                let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
                ottt_online_training(net, optimizer, &x, &target, loss, config)?
            }
            Learning::Bptt => bptt_training(net, optimizer, &x, &target, loss)?,
            Learning::SlttK => {
                tch::manual_seed(sequence as i64);
                sltt_k_training(net, optimizer, &x, &target, loss, (self.time_steps + 1) / 2)?
            }
            Learning::Fptt => {
                let (first, target) = (x.transpose(0, 1), target.transpose(0, 1));
                let loss = fptt_online_training(net, optimizer, &first, &target, loss, 0.5, averages)?;
                return Ok((loss, Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)), x));
            }
        };
        Ok((out.loss, out.outputs, x))
    }

    /// The training of three sequences by the given paths, and an evaluation.
    pub fn run(&self, paths: FastPaths) -> Result<Outcome> {
        self.run_nudged(paths, 0.0)
    }

    /// [`run`](Case::run) from weights that differ by a share.
    pub fn run_nudged(&self, paths: FastPaths, share: f64) -> Result<Outcome> {
        let precision = if self.kind == Numbers::Reduced { Precision::BFloat16 } else { Precision::Full };
        with_fast_paths(paths, || with_precision(precision, || self.run_here(share)))
    }

    fn run_here(&self, share: f64) -> Result<Outcome> {
        tch::manual_seed(1);
        let mut network = self.network();
        if share != 0.0 {
            network.nudge(share);
        }
        let mut optimizer = self.optimizer(&network)?;
        let mut averages = fptt_online_training_init_w_ra(&*optimizer);
        let (mut outputs, mut losses, mut grads) = (Vec::new(), Vec::new(), Vec::new());
        let mut monitor = Monitor::new(MonitorConfig { every: SEQUENCES as u64 })?;
        for sequence in 0..SEQUENCES {
            let mut learn = |net: &mut Network| self.learn(net, &mut *optimizer, &mut averages, sequence);
            let (loss, out, x) = watched(&mut monitor, &mut network, &mut learn)?;
            losses.push(loss);
            outputs.push(out);
            let found = network.net.parameters().into_iter().map(|p| (p.name, copy(&p.tensor.grad())));
            grads.extend(found);
            if self.input_grad {
                grads.push(("the input".to_owned(), copy(&x.grad())));
            }
            if self.reset {
                network.net.reset();
            }
        }
        let rates = monitor.records().iter().filter(|r| r.quantity == "rate").map(|r| r.value).collect();
        let state = network.net.variables().into_iter();
        let weights = state.map(|p| (p.name, p.tensor.detach().copy())).collect();
        let memories = network.net.memories().into_iter().map(|m| m.get().map(Tensor::copy)).collect();
        let kind = if self.kind == Numbers::Double { Kind::Double } else { Kind::Float };
        let evaluated = evaluate(&mut network.net, &self.input(SEQUENCES, kind).detach())?;
        Ok(Outcome { outputs, losses, grads, weights, memories, evaluated, rates })
    }
}

/// `body` on the network, watched.
fn watched<T>(
    monitor: &mut Monitor,
    network: &mut Network,
    body: impl FnOnce(&mut Network) -> Result<T>,
) -> Result<T> {
    // The monitor looks at the container, the training needs what stands beside it.
    let net = std::mem::replace(&mut network.net, OtttSequential::new());
    let mut whole = net;
    let result = monitor.watch(&mut whole, |net| {
        std::mem::swap(&mut network.net, net);
        let result = body(network);
        std::mem::swap(&mut network.net, net);
        result
    });
    network.net = whole;
    result
}

fn copy(tensor: &Tensor) -> Tensor {
    if tensor.defined() {
        tensor.copy()
    } else {
        Tensor::new()
    }
}
