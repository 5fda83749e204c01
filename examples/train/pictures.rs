//! The learning curve, as PNG.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::chart::{axes, legend, line, BLUE, ORANGE};
use crate::files::picture;
use crate::report::Epoch;

/// Loss and accuracies over epochs.
pub fn learning_curve(path: &Path, epochs: &[Epoch], title: &str) -> Result<()> {
    let along = || (1.0..(epochs.len() as f64).max(2.0), "epoch");
    let most = epochs.iter().map(|e| e.loss).fold(0.0, f64::max) * 1.05;
    let errors = |e: &Epoch| [100.0 * (1.0 - e.train_accuracy), 100.0 * (1.0 - e.test_accuracy)];
    let worst = epochs.iter().flat_map(errors).fold(0.0, f64::max) * 1.05;

    picture(path, (1200, 500), &format!("Online training: {title}"), |root| {
        let (left, right) = root.split_horizontally(600);
        let mut losses = axes(&left, along(), (0.0..most.max(1e-3), "loss a sequence"))?;
        let points: Vec<_> = epochs.iter().map(|e| (e.epoch as f64, e.loss)).collect();
        losses.draw_series(LineSeries::new(points, ORANGE.stroke_width(2)))?;
        let mut rates = axes(&right, along(), (0.0..worst.max(1.0), "error (%)"))?;
        for (i, (color, name)) in [(ORANGE, "training"), (BLUE, "test")].into_iter().enumerate() {
            let points: Vec<_> = epochs.iter().map(|e| (e.epoch as f64, errors(e)[i])).collect();
            line(&mut rates, &points, color, name)?;
            rates.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
        }
        legend(&mut rates)
    })
}
