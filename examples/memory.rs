//! How much memory training takes as time grows: OTTT against backpropagation through time.
//!
//! `cargo run --release --example memory` trains one convolutional network with T = 2 ... 64 steps, each run in
//! its own process, and leaves a table (CSV) and a picture. It needs Linux, which tells a process's peak.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use clap::{Parser, ValueEnum};
use plotters::prelude::*;
use spiketrace::train::{
    bptt_training, ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Sgd, SgdConfig,
    Update,
};
use spiketrace::{ws_conv2d, AvgPool2d, Flatten, OtttLifNode, OtttSequential, Part, Scale, WsConv2dConfig};
use tch::nn::{linear, Path as Variables, VarStore};
use tch::{Device, Kind, Tensor};

#[path = "train/files.rs"]
mod files;

use files::{picture, FONT};

const TIME_STEPS: [i64; 6] = [2, 4, 6, 16, 32, 64];
const BATCH: i64 = 32;

/// Measures peak memory over time steps
#[derive(Parser)]
struct Options {
    /// Folder for memory.csv and memory.png
    #[arg(long, default_value = "runs/memory")]
    out: PathBuf,
    /// One run only, in this process: prints its extra peak in MB
    #[arg(long, value_enum, requires = "time_steps")]
    method: Option<Method>,
    /// Time steps of that run
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    time_steps: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Method {
    Bptt,
    OtttK1,
    OtttK4,
}

impl Method {
    fn label(self) -> &'static str {
        match self {
            Self::Bptt => "BPTT",
            Self::OtttK1 => "OTTT, 1 step a pass",
            Self::OtttK4 => "OTTT, 4 steps a pass",
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(method), Some(time_steps)) = (options.method, options.time_steps) {
        println!("{:.1}", train(method, time_steps)?);
        return Ok(());
    }
    std::fs::create_dir_all(&options.out)?;
    let mut rows = Vec::new();
    for &method in Method::value_variants() {
        for time_steps in TIME_STEPS {
            let peak = in_own_process(method, time_steps)?;
            println!("{:22} T {time_steps:3}  {peak:8.1} MB", method.label());
            rows.push((method, time_steps, peak));
        }
    }
    let mut table = csv::Writer::from_path(options.out.join("memory.csv"))?;
    table.write_record(["method", "time_steps", "peak_mb"])?;
    for (method, time_steps, peak) in &rows {
        table.write_record([method.label(), &time_steps.to_string(), &peak.to_string()])?;
    }
    table.flush()?;
    draw(&options.out.join("memory.png"), &rows)?;
    println!("table and picture kept in {}", options.out.display());
    Ok(())
}

fn in_own_process(method: Method, time_steps: i64) -> Result<f64> {
    let name = method.to_possible_value().context("a value of the command line")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--method", name.get_name(), "--time-steps", &time_steps.to_string()])
        // Each tensor from its own pages: what is measured is tensors, not the holes that glibc leaves between.
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Trains on a few sequences and returns the peak of memory above that before the first, in MB.
fn train(method: Method, time_steps: i64) -> Result<f64> {
    let vs = VarStore::new(Device::Cpu);
    let mut net = network(&vs.root())?;
    let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig { momentum: 0.9, ..Default::default() })?;
    let x_seq = repeat_over_time(&Tensor::rand([BATCH, 3, 32, 32], (Kind::Float, Device::Cpu)), time_steps)?;
    let labels = Tensor::randint(10, [BATCH], (Kind::Int64, Device::Cpu));
    let label_seq = repeat_over_time(&labels, time_steps)?;
    let loss = OtttLoss::new(0.05, time_steps)?;
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    let before = status_mb("VmRSS")?;
    std::fs::write("/proc/self/clear_refs", "5")?; // the peak counts from here
    for _ in 0..3 {
        let steps_per_pass = if method == Method::OtttK4 { 4 } else { 1 };
        let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
        match method {
            Method::Bptt => bptt_training(&mut net, &mut sgd, &x_seq, &label_seq, loss)?,
            _ => ottt_online_training(&mut net, &mut sgd, &x_seq, &label_seq, loss, config)?,
        };
        net.reset();
    }
    Ok(status_mb("VmHWM")? - before)
}

fn network(p: &Variables) -> Result<OtttSequential> {
    let mut net = OtttSequential::new();
    for (channels, out) in [(3, 32), (32, 64), (64, 64)] {
        let same = WsConv2dConfig { padding: 1, ..Default::default() };
        let layer = ws_conv2d(p / net.len(), channels, out, 3, same)?;
        let node = OtttLifNode::new(Default::default())?;
        net = net.add(layer).add(node).add(Scale(2.74)).add(AvgPool2d::new(2, Default::default())?);
    }
    Ok(net.add(Flatten::default()).add(linear(p / "fc", 64 * 16, 10, Default::default())))
}

/// A figure of this process, in MB.
fn status_mb(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("peak memory is told by Linux only")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)).context("no such figure")?;
    Ok(kb.parse::<f64>()? / 1024.0)
}

fn draw(path: &Path, rows: &[(Method, i64, f64)]) -> Result<()> {
    let most = rows.iter().map(|row| row.2).fold(0.0, f64::max) * 1.05;
    picture(path, (900, 550), "Peak memory of training", |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(15)
            .x_label_area_size(50)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..66.0, 0.0..most)?;
        chart
            .configure_mesh()
            .x_desc("time steps T")
            .y_desc("peak above the loaded process (MB)")
            .x_label_formatter(&|t| format!("{t:.0}"))
            .y_label_formatter(&|mb| format!("{mb:.0}"))
            .label_style((FONT, 16))
            .axis_desc_style((FONT, 18))
            .light_line_style(WHITE)
            .draw()?;
        let colors = [RGBColor(214, 93, 14), RGBColor(31, 97, 173), RGBColor(60, 140, 60)];
        for (&method, color) in Method::value_variants().iter().zip(colors) {
            let own = rows.iter().filter(|row| row.0 == method).map(|row| (row.1 as f64, row.2));
            chart
                .draw_series(LineSeries::new(own.clone(), color.stroke_width(2)))?
                .label(method.label())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
            chart.draw_series(own.map(|point| Circle::new(point, 4, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK)
            .background_style(WHITE)
            .label_font((FONT, 16))
            .draw()?;
        Ok(())
    })
}
