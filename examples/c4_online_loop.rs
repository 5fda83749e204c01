//! Course, 4 of 4: learning while running.
//!
//! Two kinds of random spike trains differ only in which inputs fire a little more often. The network's
//! weights move after every time step (OTTT_O); no step's graph outlives the step.

use anyhow::Result;
use spiketrace::train::{accuracy, evaluate, ottt_online_training, repeat_over_time, OtttLoss, Update};
use spiketrace::{OtttLifConfig, OtttLifNode, OtttSequential, Part};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

const TIME_STEPS: i64 = 20;
const INPUTS: i64 = 40;

/// Spike trains [batch, T, inputs] and their classes: class 0 fires more in the first half of inputs.
fn spike_trains(batch: i64) -> (Tensor, Tensor) {
    let float = (Kind::Float, Device::Cpu);
    let labels = Tensor::randint(2, [batch], (Kind::Int64, Device::Cpu));
    let first_half = Tensor::arange(INPUTS, float).less(INPUTS / 2).to_kind(Kind::Float);
    let is_zero = labels.eq(0).to_kind(Kind::Float).unsqueeze(1);
    let agrees = &is_zero * &first_half + (1.0 - &is_zero) * (1.0 - &first_half);
    let rates = repeat_over_time(&(agrees * 0.05 + 0.1), TIME_STEPS).expect("a batch of rates");
    (rates.bernoulli(), labels)
}

fn main() -> Result<()> {
    tch::manual_seed(1);
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let mut net = OtttSequential::new()
        .add(nn::linear(&p / 0, INPUTS, 32, Default::default()))
        .add(OtttLifNode::new(OtttLifConfig { v_threshold: 0.5, ..Default::default() })?)
        .add(nn::linear(&p / 2, 32, 2, Default::default()));
    let mut optimizer = nn::sgd(0.9, 0.0, 0.0, false).build(&vs, 0.01)?;
    let loss = OtttLoss::new(0.05, TIME_STEPS)?;

    let (test_x, test_labels) = spike_trains(500);
    let before = accuracy(&evaluate(&mut net, &test_x)?, &test_labels)?;
    for batch in 0..200 {
        let (x_seq, labels) = spike_trains(32);
        let label_seq = repeat_over_time(&labels, TIME_STEPS)?;
        let loss_fn = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        let update = Update::EveryStep;
        let out = ottt_online_training(&mut net, &mut optimizer, &x_seq, &label_seq, loss_fn, update)?;
        net.reset();
        if batch % 50 == 0 {
            println!("batch {batch:>3}: loss {:.3}", out.loss.double_value(&[]));
        }
    }
    let after = accuracy(&evaluate(&mut net, &test_x)?, &test_labels)?;
    println!("accuracy on unseen spike trains: {before:.3} before, {after:.3} after");
    assert!(before < 0.7 && after > 0.9);
    Ok(())
}
