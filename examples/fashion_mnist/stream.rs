//! Learning in earnest online: each image is seen once, tested, then learned, weights moving at every time step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use spiketrace::train::{accuracy, evaluate, repeat_over_time};
use tch::vision::dataset::Dataset;
use tch::{Device, Kind, Tensor};

use crate::options::Settings;
use crate::training::Run;

/// How many points a stream gives.
const MOMENTS: i64 = 60;

/// A line of stream.csv.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    pub method: String,
    pub seed: i64,
    pub batch: i64,
    pub seen: i64,
    /// On the images since the last moment, each tested before it was learned.
    pub recent_accuracy: f64,
    /// The same on all images so far.
    pub accuracy: f64,
    /// Resident, in MB.
    pub memory: f64,
    pub images_per_second: f64,
}

/// One pass in batches of `settings.batch`; the moments, and the accuracy on the test images behind it.
pub fn stream(
    settings: &Settings,
    seed: i64,
    data: &Dataset,
    stop: &AtomicBool,
) -> Result<(Vec<Moment>, f64)> {
    let images = data.train_images.size()[0];
    let mut run = Run::new(settings, seed, images)?;
    let style = "batch {prefix} {bar:30} {percent:>3} %, {eta} left, {msg}";
    let bar = ProgressBar::new(images as u64).with_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(settings.batch.to_string());
    let order = Tensor::randperm(images, (Kind::Int64, Device::Cpu));
    let (mut moments, start) = (Vec::new(), Instant::now());
    let (mut hits, mut seen, mut recent) = (0.0, 0, (0.0, 0));
    while seen < images && !stop.load(Ordering::Relaxed) {
        let count = settings.batch.min(images - seen);
        let chosen = order.narrow(0, seen, count);
        let (x, labels) =
            (data.train_images.index_select(0, &chosen), data.train_labels.index_select(0, &chosen));
        let answer = evaluate(&mut run.net, &repeat_over_time(&x, settings.time_steps)?)?;
        let right = accuracy(&answer, &labels)? * count as f64;
        run.learn(&x, &labels, None)?;
        hits += right;
        seen += count;
        recent = (recent.0 + right, recent.1 + count);
        bar.inc(count as u64);
        if recent.1 * MOMENTS >= images || seen == images {
            let moment = Moment {
                method: settings.method.name(),
                seed,
                batch: settings.batch,
                seen,
                recent_accuracy: recent.0 / recent.1 as f64,
                accuracy: hits / seen as f64,
                memory: resident_memory()?,
                images_per_second: seen as f64 / start.elapsed().as_secs_f64(),
            };
            bar.set_message(format!("accuracy {:.4} of the last {}", moment.recent_accuracy, recent.1));
            moments.push(moment);
            recent = (0.0, 0);
        }
    }
    bar.finish_and_clear();
    let test = run.test(data)?;
    Ok((moments, test))
}

/// In MB.
fn resident_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is read from Linux's /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
