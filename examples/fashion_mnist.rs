//! The OTTT paper's Fashion-MNIST row, and every rule of this crate on it.
//!
//! `cargo run --release --example fashion_mnist -- --method ottt-a,ottt-o --seeds 1,2,3` trains the recurrent
//! network of the paper; `-- --help` lists the options. Runs gather in one folder, also those made side by side.
//! `scripts/fashion-mnist-table` makes README's table. Ctrl-C stops after the batch at hand; the run at hand then counts
//! for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{ensure, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use spiketrace::{Monitor, MonitorConfig, Record};
use tch::vision::dataset::Dataset;

#[path = "train/arguments.rs"]
mod arguments;
#[path = "train/chart.rs"]
mod chart;
#[path = "train/files.rs"]
mod files;
#[path = "fashion_mnist/network.rs"]
mod network;
#[path = "fashion_mnist/options.rs"]
mod options;
#[path = "fashion_mnist/pictures.rs"]
mod pictures;
#[path = "train/raster.rs"]
mod raster;
#[path = "fashion_mnist/results.rs"]
mod results;
#[path = "fashion_mnist/stream.rs"]
mod stream;
#[path = "fashion_mnist/training.rs"]
mod training;

use arguments::say;
use options::{Options, Plan, Settings};
use results::{Outcome, Results};
use training::Run;

fn main() -> Result<()> {
    spiketrace::setting::keep_freed_memory();
    let plan = Options::parse().resolve()?;
    tch::set_num_threads(plan.threads);
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    let data = (!plan.table).then(|| plan.data()).transpose()?;
    let results = Results::in_folder(&plan.out)?;
    // What cannot be added to is better known before the training.
    results.epochs()?;
    match &data {
        Some(data) if plan.stream => stream_all(&plan, &results, data, &stop)?,
        Some(data) => train_all(&plan, &results, data, &stop)?,
        None => {}
    }
    let epochs = results.epochs()?;
    for preset in ["r400", "conv", "mlp"] {
        if epochs.iter().any(|epoch| epoch.preset == preset) {
            let path = results.path(&format!("learning_curves-{preset}.png"));
            pictures::learning_curves(&path, preset, &epochs)?;
        }
    }
    say(format_args!("\n{}", results.table()?))?;
    say(format_args!(
        "In the paper (T = 5): ST-RSBP 90.00 (T = 400), IDE 90.07. All runs are in {}.",
        plan.out.display()
    ))?;
    ensure!(!stop.load(Ordering::Relaxed), "stopped; runs that came to their end are kept");
    Ok(())
}

/// Every method from every seed.
fn train_all(plan: &Plan, results: &Results, data: &Dataset, stop: &AtomicBool) -> Result<()> {
    let images = data.train_images.size()[0] as u64;
    let style = "{prefix} {bar:30} {percent:>3} %, {eta} left, {msg}";
    let total = plan.runs.iter().map(|settings| settings.epochs * images).sum();
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?);
    for settings in &plan.runs {
        train(settings, results, data, &bar, stop)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// One run, kept in a folder of its own and in the gathered files.
fn train(
    settings: &Settings,
    results: &Results,
    data: &Dataset,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<()> {
    let images = data.train_images.size()[0];
    let name = results.start("", settings, settings)?;
    let folder = results.path(&name);
    let mut run = Run::new(settings, images)?;
    say(format_args!("{name}\n{}", run.net))?;
    let mut monitor = Monitor::new(MonitorConfig { every: settings.watch.max(1) })?;
    let start = Instant::now();
    let (mut train_accuracy, mut test_accuracy) = (0.0, 0.0);
    for epoch in 1..=settings.epochs {
        bar.set_prefix(format!("{name}, epoch {epoch}/{}", settings.epochs));
        let watched = (settings.watch > 0).then_some(&mut monitor);
        let Some(progress) = run.epoch(data, watched, bar, stop)? else { return Ok(()) };
        (train_accuracy, test_accuracy) = (progress.train_accuracy, progress.test_accuracy);
        bar.suspend(|| results.add_epoch(&name, settings, epoch, progress))?;
        monitor.write_csv(folder.join("monitor.csv"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let Settings { time_steps, epochs, batch, lr, warm_up, momentum, weight_decay, .. } = *settings;
    results.append(
        "results.csv",
        &Outcome {
            run: name.clone(),
            preset: settings.preset.name(),
            method: settings.method.name(),
            seed: settings.seed,
            time_steps,
            epochs,
            batch,
            lr,
            warm_up,
            momentum,
            weight_decay,
            dropout: settings.dropout,
            mean_image: settings.mean_image,
            lambda: settings.lambda,
            augment: settings.augment,
            k: settings.k,
            images,
            threads: settings.threads,
            train_accuracy,
            test_accuracy,
            seconds,
        },
    )?;
    bar.suspend(|| print_last_look(&monitor))?;
    run.vs.save(folder.join("weights.safetensors"))?;
    pictures::firing_rates(&folder.join("firing_rates.png"), &name, monitor.records())?;
    let (image, label) = (data.test_images.narrow(0, 0, 1), data.test_labels.int64_value(&[0]));
    raster::raster(&folder.join("raster.png"), &mut run.net, &image, label, settings.time_steps)
}

/// What the neurons did when they were watched last.
fn print_last_look(monitor: &Monitor) -> Result<()> {
    let last = monitor.records().last().map_or(0, |record| record.call);
    for look in monitor.records().iter().filter(|record| record.call == last && record.quantity == "rate") {
        let same =
            |quantity| move |r: &&Record| (r.call, &*r.name, r.quantity) == (last, &*look.name, quantity);
        let percent =
            |quantity| monitor.records().iter().find(same(quantity)).map_or(0.0, |r| 100.0 * r.value);
        say(format_args!(
            "neurons of layer {}: {:.1} % fire at a step, {:.1} % are silent, {:.1} % saturated",
            look.name,
            percent("rate"),
            percent("silent"),
            percent("saturated")
        ))?;
    }
    Ok(())
}

/// Each run's stream, image by image and in batches of 64.
fn stream_all(plan: &Plan, results: &Results, data: &Dataset, stop: &AtomicBool) -> Result<()> {
    for settings in &plan.runs {
        // In proportion to the batch, as in the paper's experiments with batches of one.
        let lr = |batch: i64| settings.lr * batch as f64 / settings.batch as f64;
        let both = [1, 64].map(|batch| Settings { batch, lr: lr(batch), ..settings.clone() });
        let name = results.start("stream-", settings, &both)?;
        let mut all = Vec::new();
        for settings in &both {
            let Some(moments) = stream::stream(&name, settings, data, stop)? else { return Ok(()) };
            moments.iter().try_for_each(|moment| results.append("stream.csv", moment))?;
            if let (Some(first), Some(last)) = (moments.first(), moments.last()) {
                say(format_args!(
                    "batch {:>2}: {} images once, accuracy before learning {:.4} (last {} images {:.4}), \
                     test {:.4}, {:.0} images/s, memory {:.0} MB behind {} images, {:.0} MB behind all",
                    settings.batch,
                    last.seen,
                    last.accuracy,
                    last.recent,
                    last.recent_accuracy,
                    last.test_accuracy.unwrap_or_default(),
                    last.images_per_second,
                    first.memory,
                    first.seen,
                    last.memory
                ))?;
            }
            all.extend(moments);
        }
        pictures::stream(&results.path(&name).join("stream.png"), &name, &all)?;
    }
    Ok(())
}
