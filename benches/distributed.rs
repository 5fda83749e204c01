//! One process of `scripts/bench-distributed`: trains on random images, and rank 0 says how fast.
//!
//! `distributed NETWORK UPDATE BATCH SEQUENCES` prints images a second over all processes, the share of time in
//! all-reduces (waiting for the others included), and the bytes of gradients a sequence.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use spiketrace::distributed::{from_env_or_single, Collectives, DataParallel, ReduceOp};
use spiketrace::train::{
    ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Sgd, SgdConfig, Update,
};
use spiketrace::Part;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[path = "compare/networks.rs"]
mod networks;

const TIME_STEPS: i64 = 6;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [network, update, batch, sequences] = &arguments[..] else {
        println!("run scripts/bench-distributed, which starts this in several processes");
        return Ok(());
    };
    spiketrace::setting::keep_freed_memory();
    tch::set_num_threads(1);
    let config = match update.as_str() {
        "step" => Update::EveryStep.into(),
        "sequence" => Update::EndOfSequence.into(),
        "k6" => OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: TIME_STEPS },
        _ => bail!("no update {update}"),
    };
    let (batch, sequences): (i64, u32) = (batch.parse()?, sequences.parse()?);
    let group = from_env_or_single(Duration::from_secs(120))?;
    let group = Timed { group: &*group, spent: Cell::default(), bytes: Cell::default() };

    let vs = VarStore::new(Device::Cpu);
    let mut net = networks::build(network, &vs.root())?;
    let size = if network.starts_with("mlp") { vec![batch, 784] } else { vec![batch, 3, 32, 32] };
    let x_seq = repeat_over_time(&Tensor::rand(size, (Kind::Float, Device::Cpu)), TIME_STEPS)?;
    let label_seq = repeat_over_time(&Tensor::randint(10, [batch], (Kind::Int64, Device::Cpu)), TIME_STEPS)?;
    let loss_fn = OtttLoss::new(0.05, TIME_STEPS)?;
    let sgd =
        Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 1e-3, momentum: 0.9, ..Default::default() })?;
    let mut optimizer = DataParallel::new(&group, &net, sgd)?;
    let mut run = |sequences: u32| -> Result<()> {
        for _ in 0..sequences {
            let loss = |y: &Tensor, label: &Tensor| loss_fn.forward(y, label);
            ottt_online_training(&mut net, &mut optimizer, &x_seq, &label_seq, loss, config)?;
            net.reset();
        }
        Ok(())
    };
    run(1)?;
    group.barrier()?;
    group.spent.set(Duration::ZERO);
    group.bytes.set(0);
    let start = Instant::now();
    run(sequences)?;
    let seconds = start.elapsed().as_secs_f64();
    if group.rank() == 0 {
        let images = batch as f64 * f64::from(sequences) * group.world_size() as f64;
        let share = group.spent.get().as_secs_f64() / seconds;
        println!("{} {share} {}", images / seconds, group.bytes.get() / u64::from(sequences));
    }
    group.barrier()?;
    Ok(())
}

/// Counts what the reductions of gradients take.
#[derive(Debug)]
struct Timed<'a> {
    group: &'a dyn Collectives,
    spent: Cell<Duration>,
    bytes: Cell<u64>,
}

impl Collectives for Timed<'_> {
    fn rank(&self) -> i64 {
        self.group.rank()
    }

    fn world_size(&self) -> i64 {
        self.group.world_size()
    }

    fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> spiketrace::Result<()> {
        self.group.all_reduce(tensor, op)
    }

    fn broadcast(&self, tensor: &mut Tensor, root: i64) -> spiketrace::Result<()> {
        self.group.broadcast(tensor, root)
    }

    fn barrier(&self) -> spiketrace::Result<()> {
        self.group.barrier()
    }

    fn sum_alike(&self, tensor: &mut Tensor) -> spiketrace::Result<()> {
        let start = Instant::now();
        let result = self.group.sum_alike(tensor);
        self.spent.set(self.spent.get() + start.elapsed());
        self.bytes.set(self.bytes.get() + (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64);
        result
    }
}
