//! Trains a spiking network online on real images and shows how it went.
//!
//! `cargo run --release --example train` learns 8x8 digits; `-- --help` lists the options.
//! Ctrl-C stops after the batch at hand and keeps what was learned. However it was stopped, `-- --resume DIR` goes
//! on from the last whole epoch, with the same result as if it had not been. Started by torchrun, its processes
//! share each batch; a restart goes on with the run in `--out DIR` by itself.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use spiketrace::distributed::{Collectives, DataParallel, ShardedSampler, ShardedSamplerConfig};
use spiketrace::setting::with_precision;
use spiketrace::train::{
    accuracy, evaluate, ottt_online_training, repeat_over_time, Checkpoint, CosineConfig, CosineSchedule,
    OtttLoss, Sgd, SgdConfig,
};
use spiketrace::{OtttSequential, Part};
use tch::nn::VarStore;
use tch::vision::dataset::Dataset;
use tch::{Kind, Tensor};

#[path = "train/arguments.rs"]
mod arguments;
#[path = "train/chart.rs"]
mod chart;
#[path = "train/files.rs"]
mod files;
#[path = "train/network.rs"]
mod network;
#[path = "train/options.rs"]
mod options;
#[path = "train/pictures.rs"]
mod pictures;
#[path = "train/raster.rs"]
mod raster;
#[path = "train/report.rs"]
mod report;

use arguments::say;
use options::{Options, Settings};
use report::{Epoch, Report};

/// Folder of a run's checkpoints, and how many it keeps.
const CHECKPOINTS: &str = "checkpoints";
const KEPT: usize = 2;

fn main() -> ExitCode {
    match train() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn train() -> Result<()> {
    spiketrace::setting::keep_freed_memory();
    let (settings, data) = Options::parse().resolve()?;
    let group = settings.group()?;
    // It alone prints, draws, saves, and restores what was saved.
    let first = group.rank() == 0;
    let checkpoint = match &settings.resumed {
        Some(run) if first => Checkpoint::latest(run.join(CHECKPOINTS))?,
        _ => None,
    };
    let done = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch as i64);
    let mut report = if first { Some(Report::of(&settings, done)?) } else { None };
    let done = group.sum(&[done as f64])?[0] as i64;
    if settings.threads > 0 {
        tch::set_num_threads(settings.threads);
    }
    // Rank 0's weights become all ranks'; what a rank draws later is its own.
    tch::manual_seed(settings.seed + group.rank());
    let vs = VarStore::new(settings.device);
    let mut net = network::build(&vs.root(), &settings, &data)?;
    if first {
        say(&net)?;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;

    let config = SgdConfig { momentum: 0.9, weight_decay: settings.weight_decay, ..Default::default() };
    let mut optimizer = Sgd::new(&vs.trainable_variables(), config)?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.restore(&mut net, &mut optimizer)?;
        say(format_args!("goes on after epoch {done}"))?;
    }
    let mut optimizer = DataParallel::new(&*group, &net, optimizer)?;
    let cosine = CosineConfig { lr: settings.lr, steps: settings.epochs as u64, ..Default::default() };
    let schedule = CosineSchedule::new(cosine)?;
    for epoch in done + 1..=settings.epochs {
        let lr = schedule.lr(epoch as u64 - 1);
        optimizer.inner_mut().set_lr(lr)?;
        let (loss, train_accuracy, images_per_second, stopped) =
            train_epoch(&*group, &mut net, &mut optimizer, &data, &settings, epoch, &stop)?;
        let test_accuracy = test(&*group, &mut net, &data, &settings)?;
        optimizer.expect_identical()?;
        if let Some(report) = &mut report {
            report.add(Epoch { epoch, loss, train_accuracy, test_accuracy, images_per_second, lr }, &net)?;
        }
        if stopped {
            if first {
                say(format_args!(
                    "stopped in epoch {epoch}; what was learned is kept, --resume repeats the epoch"
                ))?;
            }
            break;
        }
        if let Some(report) = &report {
            let mut checkpoint = Checkpoint::of(&mut net, &optimizer)?;
            checkpoint.epoch = epoch as u64;
            checkpoint.config = serde_json::to_string(&settings)?;
            checkpoint.save_in(report.folder().join(CHECKPOINTS), KEPT)?;
        }
    }
    if let Some(report) = report {
        let image = data.test_images.narrow(0, 0, 1).to_device(settings.device);
        let label = data.test_labels.int64_value(&[0]);
        report.draw(&mut net, &image, label, &settings)?;
        say(format_args!("run kept in {}", report.folder().display()))?;
        say(format_args!("test accuracy {:.4}", report.test_accuracy()))?;
    }
    Ok(())
}

/// One pass over the training images: mean loss, accuracy, images per second, over all processes, and whether it was
/// stopped: a process that is to stop stops all, behind the same batch.
fn train_epoch(
    group: &dyn Collectives,
    net: &mut OtttSequential,
    optimizer: &mut DataParallel<Sgd>,
    data: &Dataset,
    settings: &Settings,
    epoch: i64,
    stop: &AtomicBool,
) -> Result<(f64, f64, f64, bool)> {
    let loss_fn = OtttLoss::new(settings.lambda, settings.time_steps)?;
    let config = ShardedSamplerConfig { batch: settings.batch, seed: settings.seed as u64, shuffle: true };
    let sampler = ShardedSampler::new(group, data.train_images.size()[0], config)?;
    let bar = match group.rank() {
        0 => ProgressBar::new(sampler.batches() as u64),
        _ => ProgressBar::hidden(),
    };
    let style = "epoch {prefix} {bar:30} {percent:>3} %, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(format!("{epoch}/{}", settings.epochs));
    let start = Instant::now();
    let (mut loss_sum, mut hits, mut seen, mut stopped) = (0.0, 0.0, 0.0, false);

    for indices in sampler.epoch(epoch as u64) {
        let count = indices.size()[0] as f64;
        if count == 0.0 {
            // The others' share of a last small batch.
            optimizer.sit_out(settings.updates())?;
        } else {
            let x = data.train_images.index_select(0, &indices).to_device(settings.device);
            let labels = data.train_labels.index_select(0, &indices).to_device(settings.device);
            let x_seq = repeat_over_time(&x, settings.time_steps)?;
            let label_seq = repeat_over_time(&labels, settings.time_steps)?;
            let loss = |y: &Tensor, label: &Tensor| loss_fn.forward(y, label);
            let out = with_precision(settings.precision(), || {
                ottt_online_training(net, optimizer, &x_seq, &label_seq, loss, settings.training())
            })?;
            net.reset();

            loss_sum += f64::try_from(&out.loss)? * count;
            let answer = out.outputs.f_sum_dim_intlist(1i64, false, None::<Kind>)?;
            hits += accuracy(&answer, &labels)? * count;
            seen += count;
        }
        bar.inc(1);
        let speed = seen * group.world_size() as f64 / start.elapsed().as_secs_f64();
        bar.set_message(format!(
            "loss {:.4}, accuracy {:.4}, {speed:.0} images/s",
            loss_sum / seen,
            hits / seen
        ));
        stopped = group.sum(&[f64::from(stop.load(Ordering::Relaxed))])?[0] > 0.0;
        if stopped {
            break;
        }
    }
    bar.finish_and_clear();
    let all = group.sum(&[loss_sum, hits, seen])?;
    Ok((all[0] / all[2], all[1] / all[2], all[2] / start.elapsed().as_secs_f64(), stopped))
}

/// The share of test images whose class has the largest output, summed over time.
fn test(
    group: &dyn Collectives,
    net: &mut OtttSequential,
    data: &Dataset,
    settings: &Settings,
) -> Result<f64> {
    let images = data.test_images.size()[0];
    let config =
        ShardedSamplerConfig { batch: 256 * group.world_size(), shuffle: false, ..Default::default() };
    let mut hits = 0.0;
    for indices in ShardedSampler::new(group, images, config)?.epoch(0) {
        let count = indices.size()[0];
        if count > 0 {
            let x = data.test_images.index_select(0, &indices).to_device(settings.device);
            let labels = data.test_labels.index_select(0, &indices).to_device(settings.device);
            let x_seq = repeat_over_time(&x, settings.time_steps)?;
            let answer = with_precision(settings.precision(), || evaluate(net, &x_seq))?;
            hits += accuracy(&answer, &labels)? * count as f64;
        }
    }
    Ok(group.sum(&[hits])?[0] / images as f64)
}
