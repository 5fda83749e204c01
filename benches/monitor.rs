//! What looking costs: training with a monitor over training without, in turns.
//!
//! `cargo bench --bench monitor` prints, for the recurrent network of the OTTT paper and for a convolutional one, the
//! median ratio of pairs of runs: watched at every batch, watched at every 50th (the default), and not at all, which
//! is the noise.

use std::time::Instant;

use spiketrace::train::{ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update};
use spiketrace::{
    ws_conv2d, ws_linear, AvgPool2d, Feedback, Flatten, Monitor, MonitorConfig, OtttLifNode, OtttSequential,
    Part, Result, Scale, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

const PAIRS: usize = 21;
const BATCHES: usize = 50;
const TIME_STEPS: i64 = 5;

fn node() -> Result<OtttLifNode> {
    OtttLifNode::new(Default::default())
}

fn r400(vs: &VarStore) -> Result<OtttSequential> {
    let p = vs.root();
    let back = nn::linear(&p / 1, 400, 400, Default::default());
    Ok(OtttSequential::new()
        .add(Flatten::default())
        .add(ws_linear(&p / 0, 784, 400, Default::default())?)
        .add(Feedback::new(back, node()?))
        .add(nn::linear(&p / 2, 400, 10, Default::default())))
}

fn conv(vs: &VarStore) -> Result<OtttSequential> {
    let p = vs.root();
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    Ok(OtttSequential::new()
        .add(ws_conv2d(&p / 0, 1, 8, 3, same)?)
        .add(node()?)
        .add(Scale(2.74))
        .add(AvgPool2d::new(2, Default::default())?)
        .add(ws_conv2d(&p / 1, 8, 16, 3, same)?)
        .add(node()?)
        .add(Scale(2.74))
        .add(Flatten::default())
        .add(nn::linear(&p / 2, 16 * 14 * 14, 10, Default::default())))
}

/// Seconds of some batches.
fn seconds(
    net: &mut OtttSequential,
    sgd: &mut Sgd,
    x: &Tensor,
    mut monitor: Option<&mut Monitor>,
) -> Result<f64> {
    let label = repeat_over_time(&Tensor::zeros([x.size()[0]], (Kind::Int64, Device::Cpu)), TIME_STEPS)?;
    let loss = OtttLoss::new(0.05, TIME_STEPS)?;
    let start = Instant::now();
    for _ in 0..BATCHES {
        let x = repeat_over_time(x, TIME_STEPS)?;
        let mut train = |net: &mut OtttSequential| {
            ottt_online_training(net, sgd, &x, &label, |y, l| loss.forward(y, l), Update::EveryStep)
        };
        match &mut monitor {
            Some(monitor) => monitor.watch(net, train)?,
            None => train(net)?,
        };
        net.reset();
    }
    Ok(start.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    tch::set_num_threads(1);
    type Build = fn(&VarStore) -> Result<OtttSequential>;
    for (name, build, batch) in [("r400", r400 as Build, 128), ("conv", conv, 16)] {
        let vs = VarStore::new(Device::Cpu);
        let mut net = build(&vs)?;
        let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig { momentum: 0.9, ..Default::default() })?;
        let x = Tensor::rand([batch, 1, 28, 28], (Kind::Float, Device::Cpu));
        seconds(&mut net, &mut sgd, &x, None)?;
        for (what, every) in [("not watched", 0), ("every 50th batch", 50), ("every batch", 1)] {
            let mut ratios = Vec::new();
            for _ in 0..PAIRS {
                let mut monitor = (every > 0).then(|| Monitor::new(MonitorConfig { every })).transpose()?;
                let watched = seconds(&mut net, &mut sgd, &x, monitor.as_mut())?;
                ratios.push(watched / seconds(&mut net, &mut sgd, &x, None)?);
            }
            ratios.sort_by(f64::total_cmp);
            println!("{name:5} {what:17} {:.3} of the time without a monitor", ratios[PAIRS / 2]);
        }
    }
    Ok(())
}
