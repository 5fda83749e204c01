//! The OTTT paper's Fashion-MNIST row, and every rule of this crate on it.
//!
//! `cargo run --release --example fashion_mnist -- --method ottt-a,ottt-o --seeds 1,2,3` trains the recurrent
//! network of the paper; `-- --help` lists the options. Runs gather in one folder, also those made side by side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tch::vision::dataset::Dataset;

#[path = "fashion_mnist/network.rs"]
mod network;
#[path = "fashion_mnist/options.rs"]
mod options;
#[path = "fashion_mnist/training.rs"]
mod training;

use options::{Options, Settings};
use training::Run;

fn main() -> Result<()> {
    spiketrace::keep_freed_memory();
    let plan = Options::parse().resolve()?;
    tch::set_num_threads(plan.threads);
    let data = plan.data()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    for settings in &plan.runs {
        for &seed in &plan.seeds {
            train(settings, seed, &data, &stop)?;
        }
    }
    Ok(())
}

fn train(settings: &Settings, seed: i64, data: &Dataset, stop: &AtomicBool) -> Result<()> {
    let images = data.train_images.size()[0];
    let mut run = Run::new(settings, seed, images)?;
    println!("{}", run.net);
    let style = "{prefix} {bar:30} {percent:>3} %, {eta} left, {msg}";
    let bar =
        ProgressBar::new(settings.epochs * images as u64).with_style(ProgressStyle::with_template(style)?);
    for epoch in 1..=settings.epochs {
        bar.set_prefix(format!("seed {seed}, epoch {epoch}/{}", settings.epochs));
        let progress = run.epoch(data, &bar, stop)?;
        let test = run.test(data)?;
        println!("epoch {epoch:>3}  {progress:?}  test {test:.4}");
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(())
}
