//! One side of `scripts/compare`: trains a case's network when told to, and says how long it took.
//!
//! `compare CASE FILE THREADS` reads input and weights from FILE, prints a line when it is ready, and for
//! each line with a count of sequences on its input a line `seconds loss peak_mb`.

use std::io::{stdin, BufRead};
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use spiketrace::setting::{with_precision, Precision};
use spiketrace::train::{
    ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Sgd, SgdConfig, Update,
};
use spiketrace::{OnlineModule, Part};
use tch::nn::VarStore;
use tch::{Device, Tensor};

#[path = "networks.rs"]
mod networks;

const TIME_STEPS: i64 = 6;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(case), Some(file), Some(threads)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        println!("run scripts/compare, which starts this and the reference side by side");
        return Ok(());
    };
    spiketrace::setting::keep_freed_memory();
    tch::set_num_threads(threads.parse()?);

    let (network, mode) = case.split_once('-').context("a case is called NETWORK-MODE")?;
    let config = match mode {
        "online" => Update::EveryStep.into(),
        "k1" => Update::EndOfSequence.into(),
        "k6" | "k6-bf16" => OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 6 },
        _ => bail!("no mode {mode}"),
    };
    let precision = if mode.ends_with("bf16") { Precision::BFloat16 } else { Precision::Full };
    let vs = VarStore::new(Device::Cpu);
    let mut net = networks::build(network, &vs.root())?;
    let stored: std::collections::HashMap<_, _> = Tensor::read_safetensors(&file)?.into_iter().collect();
    load(&net, &stored)?;
    let x_seq = repeat_over_time(&stored["x"], TIME_STEPS)?;
    let label_seq = repeat_over_time(&stored["label"], TIME_STEPS)?;
    let loss_fn = OtttLoss::new(0.05, TIME_STEPS)?;
    let config_of_sgd = SgdConfig { lr: 1e-3, momentum: 0.9, ..Default::default() };
    let mut optimizer = Sgd::new(&vs.trainable_variables(), config_of_sgd)?;

    let loaded = resident_mb("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").ok(); // the peak counts from here
    println!("ready");
    for line in stdin().lock().lines() {
        let sequences: u32 = line?.trim().parse()?;
        let start = Instant::now();
        let mut loss = 0.0;
        for _ in 0..sequences {
            let forward = |y: &Tensor, label: &Tensor| loss_fn.forward(y, label);
            let out = with_precision(precision, || {
                ottt_online_training(&mut net, &mut optimizer, &x_seq, &label_seq, forward, config)
            })?;
            net.reset();
            loss = f64::try_from(&out.loss)?;
        }
        let seconds = start.elapsed().as_secs_f64() / f64::from(sequences);
        println!("{seconds} {loss} {}", resident_mb("VmHWM") - loaded);
    }
    Ok(())
}

/// Copies the reference's weights: the modules that have any are counted in order.
fn load(net: &impl OnlineModule, stored: &std::collections::HashMap<String, Tensor>) -> Result<()> {
    let (mut count, mut last) = (0, String::new());
    for (i, parameter) in net.parameters().into_iter().enumerate() {
        let (module, name) = parameter.name.rsplit_once('.').context("a name of a module")?;
        if i > 0 && module != last {
            count += 1;
        }
        last = module.to_owned();
        let key = format!("{count}.{name}");
        let value = stored.get(&key).with_context(|| format!("the reference has no {key}"))?;
        ensure!(value.size() == parameter.tensor.size(), "{key} has another shape");
        tch::no_grad(|| parameter.tensor.shallow_clone().f_copy_(value).map(drop))?;
    }
    Ok(())
}

/// A figure of /proc/self/status in MB; NaN where there is none.
fn resident_mb(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse::<f64>().ok());
    kb.map_or(f64::NAN, |kb| kb / 1024.0)
}
