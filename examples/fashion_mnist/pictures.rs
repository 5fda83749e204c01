//! Learning curves of all methods, firing rates of all layers, accuracy along a stream: as PNG.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use spiketrace::Record;

use crate::chart::{axes, legend, line, BLUE, ORANGE};
use crate::files::picture;
use crate::results::Epoch;
use crate::stream::Moment;

const COLORS: [RGBColor; 7] = [
    BLUE,
    ORANGE,
    RGBColor(44, 140, 60),
    RGBColor(148, 60, 160),
    RGBColor(110, 110, 110),
    RGBColor(200, 160, 0),
    RGBColor(0, 160, 170),
];

/// Points of a line, by its name.
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// Lines over one height.
struct Panel<'a> {
    y_label: &'a str,
    lines: Lines,
    /// Whether the height begins at 0; else a little below the lowest point.
    from_0: bool,
}

impl<'a> Panel<'a> {
    fn new(y_label: &'a str, lines: Lines, from_0: bool) -> Self {
        Self { y_label, lines, from_0 }
    }

    /// The lowest and the highest of the points' numbers.
    fn range(&self, number: fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let numbers = || self.lines.values().flatten().map(number);
        (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// Training and test error over epochs, a line a method, mean of its runs.
pub fn learning_curves(path: &Path, preset: &str, epochs: &[Epoch]) -> Result<()> {
    let error = |of: fn(&Epoch) -> f64| {
        let mut sums: BTreeMap<String, BTreeMap<u64, (f64, f64)>> = BTreeMap::new();
        for epoch in epochs.iter().filter(|epoch| epoch.preset == preset) {
            let sum = sums.entry(epoch.method.clone()).or_default().entry(epoch.epoch).or_default();
            *sum = (sum.0 + 100.0 * (1.0 - of(epoch)), sum.1 + 1.0);
        }
        let mean = |(epoch, (sum, count)): (u64, (f64, f64))| (epoch as f64, sum / count);
        sums.into_iter().map(|(name, line)| (name, line.into_iter().map(mean).collect())).collect::<Lines>()
    };
    let panels = [
        Panel::new("training error (%)", error(|e| e.train_accuracy), false),
        Panel::new("test error (%)", error(|e| e.test_accuracy), false),
    ];
    draw(path, &format!("Fashion-MNIST, {preset}: mean of the runs of each method"), "epoch", &panels)
}

/// Firing rate and share of silent neurons of each layer, over the watched batches of a run.
pub fn firing_rates(path: &Path, title: &str, records: &[Record]) -> Result<()> {
    let percent = |quantity: &str| {
        let mut lines = Lines::new();
        for record in records.iter().filter(|record| record.quantity == quantity) {
            let line = lines.entry(format!("layer {}", record.name)).or_default();
            line.push((record.call as f64, 100.0 * record.value));
        }
        lines
    };
    let panels = [
        Panel::new("firing rate (%)", percent("rate"), true),
        Panel::new("silent neurons (%)", percent("silent"), true),
    ];
    draw(path, title, "batch", &panels)
}

/// Accuracy on images before they are learned, and memory, along the stream.
pub fn stream(path: &Path, title: &str, moments: &[Moment]) -> Result<()> {
    let along = |of: fn(&Moment) -> f64| {
        let mut lines = Lines::new();
        for moment in moments {
            let line = lines.entry(format!("batch {}", moment.batch)).or_default();
            line.push((moment.seen as f64, of(moment)));
        }
        lines
    };
    let panels = [
        Panel::new("accuracy on images not yet learned (%)", along(|m| 100.0 * m.recent_accuracy), true),
        Panel::new("resident memory (MB)", along(|m| m.memory), true),
    ];
    draw(path, title, "images seen", &panels)
}

/// Two panels of lines side by side.
fn draw(path: &Path, title: &str, x_label: &str, panels: &[Panel; 2]) -> Result<()> {
    picture(path, (1300, 560), title, |root| {
        let (left, right) = root.split_horizontally(650);
        for (area, panel) in [left, right].iter().zip(panels) {
            if panel.lines.is_empty() {
                continue;
            }
            let ((first, last), (least, most)) = (panel.range(|point| point.0), panel.range(|point| point.1));
            let low = if panel.from_0 { 0.0 } else { 0.95 * least };
            let (x, y) = (first..last.max(first + 1.0), low..(1.05 * most).max(low + 1.0));
            let mut chart = axes(area, (x, x_label), (y, panel.y_label))?;
            for ((name, points), color) in panel.lines.iter().zip(COLORS.iter().cycle()) {
                line(&mut chart, points, *color, name)?;
                if points.len() < 30 {
                    chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
                }
            }
            legend(&mut chart)?;
        }
        Ok(())
    })
}
