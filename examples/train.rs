//! Trains a spiking network online on real images and shows how it went.
//!
//! `cargo run --release --example train` learns 8x8 digits; `-- --help` lists the options.
//! Ctrl-C stops after the batch at hand and keeps what was learned. Started by torchrun, its processes share each
//! batch, and where `--out` says where, a restart goes on from the last epoch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use spiketrace::distributed::{
    from_env_or_single, restarts, Collectives, DataParallel, ShardedSampler, ShardedSamplerConfig,
};
use spiketrace::train::{
    accuracy, evaluate, ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig,
};
use spiketrace::{with_precision, OnlineModule, OtttSequential};
use tch::nn::VarStore;
use tch::vision::dataset::Dataset;
use tch::{Kind, Tensor};

#[path = "train/network.rs"]
mod network;
#[path = "train/options.rs"]
mod options;
#[path = "train/pictures.rs"]
mod pictures;
#[path = "train/report.rs"]
mod report;
#[path = "train/restart.rs"]
mod restart;

use options::{Options, Settings};
use report::{Epoch, Report};

fn main() -> Result<()> {
    spiketrace::keep_freed_memory();
    let (settings, data) = Options::parse().resolve()?;
    let group = from_env_or_single(Duration::from_secs(settings.timeout))?;
    let first = group.rank() == 0;
    // Only rank 0 prints, draws and saves.
    let mut report = if first { Some(Report::create(&settings, restarts() > 0)?) } else { None };
    if settings.threads > 0 {
        tch::set_num_threads(settings.threads);
    }
    // Rank 0's weights become all ranks'; what a rank draws later is its own.
    tch::manual_seed(settings.seed + group.rank());
    let vs = VarStore::new(settings.device);
    let mut net = network::build(&vs.root(), &settings, &data)?;
    if first {
        println!("{net}");
    }

    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;

    let config = SgdConfig { momentum: 0.9, weight_decay: settings.weight_decay, ..Default::default() };
    let mut optimizer = Sgd::new(&vs.trainable_variables(), config)?;
    let done = restart::resume(&*group, report.as_mut(), &vs, &mut optimizer)?;
    let mut optimizer = DataParallel::new(&*group, &net, optimizer)?;
    for epoch in done + 1..=settings.epochs {
        let lr = cosine(settings.lr, epoch, settings.epochs);
        optimizer.inner_mut().set_lr(lr);
        let (loss, train_accuracy, images_per_second, stopped) =
            train_epoch(&*group, &mut net, &mut optimizer, &data, &settings, epoch, &stop)?;
        let test_accuracy = test(&*group, &mut net, &data, &settings)?;
        optimizer.expect_identical()?;
        if let Some(report) = &mut report {
            report.add(Epoch { epoch, loss, train_accuracy, test_accuracy, images_per_second, lr }, &vs)?;
            restart::save(report.folder(), epoch, &vs, optimizer.inner())?;
        }
        if stopped {
            if first {
                println!("stopped in epoch {epoch}; what was learned is kept");
            }
            break;
        }
    }
    if let Some(report) = report {
        let image = data.test_images.narrow(0, 0, 1).to_device(settings.device);
        let label = data.test_labels.int64_value(&[0]);
        report.draw(&mut net, &image, label, &settings)?;
        println!("run kept in {}", report.folder().display());
        println!("test accuracy {:.4}", report.test_accuracy());
    }
    Ok(())
}

/// One pass over the training images: mean loss, accuracy, images per second, over all processes; whether to stop.
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
    let (mut loss_sum, mut hits, mut seen) = (0.0, 0.0, 0.0);

    for indices in sampler.epoch(epoch as u64) {
        let count = indices.size()[0] as f64;
        if count == 0.0 {
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
        // All stop behind the same batch.
        if group.sum(&[f64::from(stop.load(Ordering::Relaxed))])?[0] > 0.0 {
            stop.store(true, Ordering::Relaxed);
            break;
        }
    }
    bar.finish_and_clear();
    let all = group.sum(&[loss_sum, hits, seen])?;
    let stopped = stop.load(Ordering::Relaxed);
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

/// The learning rate falls from `lr` towards 0 along half a cosine.
fn cosine(lr: f64, epoch: i64, epochs: i64) -> f64 {
    lr * 0.5 * (1.0 + (std::f64::consts::PI * (epoch - 1) as f64 / epochs as f64).cos())
}
