//! CUDA held to the CPU, its speed, and its memory: what `scripts/gpu-check` runs on a machine with a GPU.

use std::process::{exit, Command};
use std::time::Instant;

use anyhow::{ensure, Result};
use spiketrace::setting::{with_fast_paths, with_precision, FastPaths, Precision};
use spiketrace::train::{
    ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Sgd, SgdConfig, Update,
};
use spiketrace::{OnlineModule, OtttLifConfig, OtttLifNode, Part, Signal};
use tch::nn::VarStore;
use tch::{Cuda, Device, Kind, Tensor};

#[path = "compare/networks.rs"]
mod networks;

const TIME_STEPS: i64 = 6;

type Section = fn(Device) -> Result<()>;

fn main() {
    let device = match spiketrace::device("cuda") {
        Ok(device) => device,
        Err(error) => return println!("nothing to measure: {error}"),
    };
    let parts: [(&str, Section); 4] =
        [("neuron", neuron), ("training", training), ("speed", speed), ("memory", memory)];
    let failed = parts.iter().filter(|(name, part)| {
        part(device).map_err(|error| println!("{name:10} FAILED: {error:#}")).is_err()
    });
    exit(i32::from(failed.count() > 0));
}

/// One line of the table.
fn row(part: &str, what: &str, figure: String) {
    println!("{part:10} {what:56} {figure}");
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) =
        (a.to_device(Device::Cpu).to_kind(Kind::Double), b.to_device(Device::Cpu).to_kind(Kind::Double));
    ((a - &b).abs().max() / b.abs().max().clamp_min(1e-30)).double_value(&[])
}

/// Spikes, traces, potentials and gradients of five steps on both devices.
fn neuron(device: Device) -> Result<()> {
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-12)] {
        for v_reset in [None, Some(-0.25)] {
            for decay_input in [false, true] {
                let x = Tensor::randn([5, 64, 100], (Kind::Double, Device::Cpu)) * 1.5;
                let run = |device| -> Result<Vec<Tensor>> {
                    let config = OtttLifConfig { tau: 2.0, v_reset, decay_input, ..Default::default() };
                    let mut node = OtttLifNode::new(config)?;
                    let mut all = Vec::new();
                    for t in 0..5 {
                        let x = x.get(t).to_kind(kind).to_device(device).set_requires_grad(true);
                        let y = node.step(&Signal::Dense(x.shallow_clone()), true)?;
                        let upstream = Tensor::arange(6400, (kind, device)).sin().view([64, 100]);
                        (y.value() * upstream).sum(kind).f_backward()?;
                        all.extend([y.value().detach(), x.grad()]);
                        all.extend(y.trace().into_iter().chain(node.v()).map(Tensor::copy));
                    }
                    Ok(all)
                };
                let worst = run(device)?
                    .iter()
                    .zip(&run(Device::Cpu)?)
                    .map(|(a, b)| difference(a, b))
                    .fold(0.0, f64::max);
                let what =
                    format!("{kind:?}, v_reset {v_reset:?}, decay_input {decay_input}: largest difference");
                row("neuron", &what, format!("{worst:.1e}"));
                ensure!(worst <= tolerance, "{what} {worst:e}");
            }
        }
    }
    Ok(())
}

/// What a network's training takes.
struct Setting {
    vs: VarStore,
    net: spiketrace::OtttSequential,
    sgd: Sgd,
    x_seq: Tensor,
    label_seq: Tensor,
}

impl Setting {
    fn new(network: &str, kind: Kind, device: Device, batch: i64) -> Result<Self> {
        let mut vs = VarStore::new(Device::Cpu);
        let net = networks::build(network, &vs.root())?;
        for (i, parameter) in net.parameters().into_iter().enumerate() {
            // The same numbers on both devices.
            let size = parameter.tensor.size();
            let count: i64 = size.iter().product();
            let fan_in = (count / size[0]).max(1) as f64;
            let values =
                (Tensor::arange(count, (Kind::Double, Device::Cpu)) * (1.3 + i as f64)).sin() / fan_in.sqrt();
            let values = if parameter.name.ends_with("gain") { values + 1.0 } else { values };
            tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&values.view(&*size)));
        }
        if kind == Kind::Double {
            vs.double();
        }
        vs.set_device(device);
        let sgd =
            Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.01, momentum: 0.9, ..Default::default() })?;
        let size = if network == "vgg" { vec![batch, 3, 32, 32] } else { vec![batch, 1, 28, 28] };
        let x =
            (Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu)) * 0.71).sin() * 2.0;
        let x_seq = repeat_over_time(&x.view(&*size).to_kind(kind).to_device(device), TIME_STEPS)?;
        let label = Tensor::arange(batch, (Kind::Int64, device)).remainder(10);
        Ok(Self { vs, net, sgd, x_seq, label_seq: repeat_over_time(&label, TIME_STEPS)? })
    }

    fn sequence(&mut self, config: OtttTrainingConfig) -> Result<()> {
        let loss = OtttLoss::new(0.05, TIME_STEPS)?;
        let forward = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        ottt_online_training(&mut self.net, &mut self.sgd, &self.x_seq, &self.label_seq, forward, config)?;
        self.net.reset();
        Ok(())
    }
}

const CONFIGS: [(&str, OtttTrainingConfig); 3] = [
    ("every step", OtttTrainingConfig { update: Update::EveryStep, steps_per_pass: 1 }),
    ("K 1", OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 1 }),
    ("K 6", OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 6 }),
];

/// The weights after three sequences on both devices, in f64.
fn training(device: Device) -> Result<()> {
    for (name, config) in CONFIGS {
        let run = |device| -> Result<Vec<Tensor>> {
            let mut setting = Setting::new("conv", Kind::Double, device, 4)?;
            for _ in 0..3 {
                setting.sequence(config)?;
            }
            Ok(setting.net.parameters().into_iter().map(|p| p.tensor.detach()).collect())
        };
        let worst =
            run(device)?.iter().zip(&run(Device::Cpu)?).map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
        row("training", &format!("{name}: largest difference of the weights, f64"), format!("{worst:.1e}"));
        ensure!(worst <= 1e-8, "{name}: the weights differ by {worst:e}");
    }
    Ok(())
}

/// The VGG's sequences a second, with and without the fast paths, in f32 and bf16.
fn speed(device: Device) -> Result<()> {
    for (name, config) in CONFIGS {
        let time = |paths, precision| -> Result<f64> {
            let mut setting = Setting::new("vgg", Kind::Float, device, 64)?;
            with_fast_paths(paths, || {
                with_precision(precision, || {
                    let mut seconds = Vec::new();
                    for round in 0..9 {
                        let start = Instant::now();
                        setting.sequence(config)?;
                        Cuda::synchronize(0);
                        if round > 1 {
                            seconds.push(start.elapsed().as_secs_f64());
                        }
                    }
                    seconds.sort_by(f64::total_cmp);
                    Ok(seconds[seconds.len() / 2])
                })
            })
        };
        let plain = time(FastPaths::NONE, Precision::Full)?;
        let fast = time(FastPaths::default(), Precision::Full)?;
        let bf16 = time(FastPaths::default(), Precision::BFloat16)?;
        let what = format!("VGG, batch 64, {name}: ms plain, fast, fast in bf16");
        row("speed", &what, format!("{:.1}  {:.1}  {:.1}", plain * 1e3, fast * 1e3, bf16 * 1e3));
    }
    Ok(())
}

/// The GPU's memory in use after 100 and after 1,000 sequences.
fn memory(device: Device) -> Result<()> {
    let used = || -> Result<f64> {
        let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
        let output = Command::new("nvidia-smi").args(query).output()?;
        Ok(String::from_utf8(output.stdout)?.lines().next().unwrap_or_default().trim().parse()?)
    };
    let mut setting = Setting::new("conv", Kind::Float, device, 16)?;
    let mut at = Vec::new();
    for sequence in 1..=1000 {
        setting.sequence(CONFIGS[0].1)?;
        if sequence == 100 || sequence == 1000 {
            Cuda::synchronize(0);
            at.push(used()?);
        }
    }
    row("memory", "MB of the GPU after 100 and 1,000 sequences", format!("{}  {}", at[0], at[1]));
    ensure!(
        setting.vs.device() == device && at[1] <= at[0] * 1.02 + 8.0,
        "memory grew from {} to {} MB",
        at[0],
        at[1]
    );
    Ok(())
}
