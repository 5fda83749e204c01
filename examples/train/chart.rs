//! What the pictures share: the font, colours, axes.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use crate::files::{Area, FONT};

pub const ORANGE: RGBColor = RGBColor(214, 93, 14);
pub const BLUE: RGBColor = RGBColor(31, 97, 173);

type Plane = Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>;
pub type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Plane>;

/// Axes with whole numbers below and a grid behind.
pub fn axes<'a, 'b>(
    area: &'a Area<'b>,
    (x, x_label): (Range<f64>, &str),
    (y, y_label): (Range<f64>, &str),
) -> Result<Chart<'a, 'b>> {
    // No more labels than whole numbers, or some would stand twice.
    let whole_numbers = (x.end - x.start).clamp(1.0, 10.0) as usize + 1;
    let mut chart = ChartBuilder::on(area)
        .margin(15)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .x_labels(whole_numbers)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style((FONT, 16))
        .axis_desc_style((FONT, 18))
        .light_line_style(WHITE)
        .draw()?;
    Ok(chart)
}

/// A line with its name in the legend.
pub fn line(chart: &mut Chart, points: &[(f64, f64)], color: RGBColor, name: &str) -> Result<()> {
    chart
        .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    Ok(())
}

/// The legend.
pub fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Result<()> {
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .label_font((FONT, 16))
        .draw()?;
    Ok(())
}
