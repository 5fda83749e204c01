//! Memory over long training: nothing is left behind by steps, errors or abandoned graphs.
//!
//! `cargo test --test it memory -- --ignored --nocapture` prints resident memory as it goes.
#![cfg(target_os = "linux")]

use spiketrace::train::{ottt_online_training, repeat_over_time, OtttLoss, Update};
use spiketrace::{
    ws_conv2d, AdaptiveAvgPool2d, Context, Error, Flatten, Function, OnlineModule, OtttLifNode,
    OtttSequential, Part, Result, Tensors,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::FLOAT;

const STEPS: i64 = 20_000;
const TIME_STEPS: i64 = 5;
/// Resident memory of this process in kB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Refuses;

impl Function for Refuses {
    fn forward(&self, ctx: &mut Context<'_>, x: &Tensors) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(&[&x[0]])?;
        Ok(vec![&x[0] * 1.0])
    }

    fn backward(&self, _: &mut Context<'_>, _: &Tensors) -> Result<Vec<Option<Tensor>>> {
        Err(Error::Gradient("refused".into()))
    }
}

/// What is done with a step's output.
#[derive(Debug, Clone, Copy)]
enum Step {
    Train,
    FailInBackward,
    DropTheGraph,
}

#[test]
#[ignore = "takes a minute and wants the process alone"]
fn memory_stays_flat_over_20_000_time_steps() {
    for sort in [Step::Train, Step::FailInBackward, Step::DropTheGraph] {
        run(sort);
    }
}

fn run(sort: Step) {
    let vs = VarStore::new(Device::Cpu);
    let ottt = || OtttLifNode::new(Default::default()).unwrap();
    let mut net = OtttSequential::new()
        .add(ws_conv2d(vs.root() / 0, 1, 8, 3, Default::default()).unwrap())
        .add(ottt())
        .add(AdaptiveAvgPool2d::new([2, 2]).unwrap())
        .add(Flatten::default())
        .add(nn::linear(vs.root() / 4, 32, 32, Default::default()))
        .add(ottt())
        .add(nn::linear(vs.root() / 6, 32, 10, Default::default()));
    let mut sgd = nn::sgd(0.9, 0.0, 0.0, false).build(&vs, 0.01).unwrap();
    let loss = OtttLoss::new(0.05, TIME_STEPS).unwrap();
    let label = repeat_over_time(&Tensor::from_slice(&[3i64, 7]), TIME_STEPS).unwrap();

    // Early steps fill libtorch's caches and the allocator's pools.
    let warm = STEPS / 4;
    let mut before = 0;
    for step in (0..STEPS).step_by(TIME_STEPS as usize) {
        let x = Tensor::rand([2, 1, 8, 8], FLOAT);
        match sort {
            Step::Train => {
                let x = repeat_over_time(&x, TIME_STEPS).unwrap();
                let loss = |y: &Tensor, l: &Tensor| loss.forward(y, l);
                ottt_online_training(&mut net, &mut sgd, &x, &label, loss, Update::EveryStep).unwrap();
            }
            Step::FailInBackward | Step::DropTheGraph => {
                for _ in 0..TIME_STEPS {
                    let y = net.step(&(&x).into(), true).unwrap().into_value();
                    let y = Refuses.apply(&[&y]).unwrap().remove(0);
                    if matches!(sort, Step::FailInBackward) {
                        y.sum(Kind::Float).f_backward().unwrap_err();
                    }
                }
            }
        }
        net.reset();
        if step == warm {
            before = resident();
        }
        if step % (STEPS / 8) == 0 {
            println!("{sort:?}: step {step:>6}, {} kB resident", resident());
        }
    }
    let grown = resident() - before;
    println!("{sort:?}: grown by {grown} kB over the last {} steps", STEPS - warm);
    // A tensor's handle alone is some 200 bytes: one left behind a step would be 3 MB.
    assert!(grown < 1024, "resident memory grew by {grown} kB");
}
