//! Learning in earnest online: each image is seen once, tested, then learned, weights moving at every time step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use spiketrace::train::{accuracy, evaluate, repeat_over_time};
use tch::vision::dataset::Dataset;

use crate::options::Settings;
use crate::training::Run;

/// How many points a stream gives at the most.
const MOMENTS: i64 = 60;

/// A line of stream.csv.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    pub run: String,
    pub batch: i64,
    pub lr: f64,
    pub seen: i64,
    /// Images since the last moment.
    pub recent: i64,
    /// On them, each tested before it was learned.
    pub recent_accuracy: f64,
    /// The same on all images so far.
    pub accuracy: f64,
    /// Resident, in MB.
    pub memory: f64,
    pub images_per_second: f64,
    /// On the test images, behind the last.
    pub test_accuracy: Option<f64>,
}

/// One pass in batches of `settings.batch`, and the test behind it; `None` where it was stopped.
pub fn stream(
    name: &str,
    settings: &Settings,
    data: &Dataset,
    stop: &AtomicBool,
) -> Result<Option<Vec<Moment>>> {
    let images = data.train_images.size()[0];
    let mut run = Run::new(settings, images)?;
    let style = "batch {prefix} {bar:30} {percent:>3} %, {eta} left, {msg}";
    let bar = ProgressBar::new(images as u64).with_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(settings.batch.to_string());
    let order = run.order(images);
    let (mut moments, start) = (Vec::<Moment>::new(), Instant::now());
    let (mut hits, mut seen, mut recent) = (0.0, 0, (0.0, 0));
    while seen < images {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
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
        let moments_until = |seen: i64| seen * MOMENTS / images;
        if moments_until(seen) > moments_until(seen - count) {
            let moment = Moment {
                run: name.to_owned(),
                batch: settings.batch,
                lr: settings.lr,
                seen,
                recent: recent.1,
                recent_accuracy: recent.0 / recent.1 as f64,
                accuracy: hits / seen as f64,
                memory: resident_memory()?,
                images_per_second: seen as f64 / start.elapsed().as_secs_f64(),
                test_accuracy: None,
            };
            bar.set_message(format!("accuracy {:.4} of the last {}", moment.recent_accuracy, recent.1));
            moments.push(moment);
            recent = (0.0, 0);
        }
    }
    bar.finish_and_clear();
    let test = run.test(data)?;
    if let Some(last) = moments.last_mut() {
        last.test_accuracy = Some(test);
    }
    Ok(Some(moments))
}

/// In MB.
fn resident_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is read from Linux's /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
