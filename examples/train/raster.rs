//! The spike raster of one image, as PNG.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use spiketrace::train::repeat_over_time;
use spiketrace::{OtttSequential, Part};
use tch::{Kind, Tensor};

use crate::chart::{BLUE, ORANGE};
use crate::files::{picture, Area, FONT};

/// Layers with more neurons show this many, evenly spaced.
const MOST_ROWS: i64 = 128;

/// The spikes of one spiking layer: name, and per time step the firing neurons.
struct Spikes {
    title: String,
    neurons: i64,
    steps: Vec<Vec<bool>>,
}

/// What every spiking layer does with one image, beside the image and the outputs.
pub fn raster(
    path: &Path,
    net: &mut OtttSequential,
    image: &Tensor,
    label: i64,
    time_steps: i64,
) -> Result<()> {
    let (layers, outputs) = record(net, image, time_steps)?;
    let height = 70 + 260 * layers.len().max(2) as u32;
    let answer = (0..outputs.len()).max_by(|&a, &b| outputs[a].total_cmp(&outputs[b])).unwrap_or(0);
    let title = format!("One test image of class {label}, taken for {answer}");
    picture(path, (1200, height), &title, |root| {
        let (left, right) = root.split_horizontally(820);
        for (area, layer) in left.split_evenly((layers.len(), 1)).iter().zip(&layers) {
            draw_layer(area, layer)?;
        }
        let (top, bottom) = right.split_vertically((height - 40) / 2);
        draw_image(&top, image)?;
        draw_outputs(&bottom, &outputs)
    })
}

/// Runs the image through the network and notes every neuron's spikes.
fn record(net: &mut OtttSequential, image: &Tensor, time_steps: i64) -> Result<(Vec<Spikes>, Vec<f64>)> {
    let x_seq = repeat_over_time(image, time_steps)?;
    let mut layers: Vec<Spikes> = Vec::new();
    let mut outputs = Vec::new();
    net.reset();
    for t in 0..time_steps {
        let mut spiking = 0;
        let y = tch::no_grad(|| {
            net.step_inspected(&x_seq.select(1, t).into(), false, |index, module, signal| {
                let name = module.name();
                if !name.contains("LifNode") && !name.contains("Feedback") {
                    return;
                }
                let spikes = signal.value().flatten(0, -1);
                let neurons = spikes.size()[0];
                let shown = neurons.min(MOST_ROWS);
                let rows = (0..shown).map(|row| spikes.double_value(&[row * neurons / shown]) > 0.5);
                if t == 0 {
                    let title = format!("module {index}, {neurons} neurons");
                    layers.push(Spikes { title, neurons, steps: Vec::new() });
                }
                layers[spiking].steps.push(rows.collect());
                spiking += 1;
            })
        })?;
        outputs.push(y.into_value());
    }
    net.reset();
    let total = Tensor::f_cat(&outputs, 0)?.f_sum_dim_intlist(0i64, false, Kind::Double)?;
    Ok((layers, Vec::try_from(total)?))
}

fn draw_layer(area: &Area, layer: &Spikes) -> Result<()> {
    let time_steps = layer.steps.len();
    let rows = layer.steps.first().map_or(1, Vec::len);
    let fired: usize = layer.steps.iter().flatten().filter(|&&fired| fired).count();
    let rate = 100.0 * fired as f64 / (rows * time_steps) as f64;
    let shown = if (rows as i64) < layer.neurons { format!(", {rows} shown") } else { String::new() };
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(format!("{}{shown}, on average {rate:.1} % of them fire", layer.title), (FONT, 19))
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0.5..time_steps as f64 + 0.5, 0.0..rows as f64)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("time step")
        .y_desc(if shown.is_empty() { "neuron" } else { "neuron (of those shown)" })
        .x_labels(time_steps.min(12))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .draw()?;
    let spikes = layer.steps.iter().enumerate().flat_map(|(t, rows)| {
        let fired = rows.iter().enumerate().filter(|(_, &fired)| fired);
        fired.map(move |(row, _)| ((t + 1) as f64, row as f64))
    });
    chart.draw_series(
        spikes.map(|(t, row)| Rectangle::new([(t - 0.3, row + 0.1), (t + 0.3, row + 0.9)], BLUE.filled())),
    )?;
    Ok(())
}

fn draw_image(area: &Area, image: &Tensor) -> Result<()> {
    let size = image.size();
    let (height, width) = (size[2], size[3]);
    let area = area.titled("the input", (FONT, 19))?;
    // From its lowest to its highest pixel, whatever their scale.
    let (low, high) = (image.min().double_value(&[]), image.max().double_value(&[]));
    let side = 200 / height.max(width).max(1) as i32;
    let left = (area.dim_in_pixel().0 as i32 - side * width as i32) / 2;
    for y in 0..height {
        for x in 0..width {
            let ink = (image.double_value(&[0, 0, y, x]) - low) / (high - low).max(1e-6);
            let grey = (255.0 * (1.0 - ink)) as u8;
            let (x, y) = (left + side * x as i32, 5 + side * y as i32);
            let color = RGBColor(grey, grey, grey).filled();
            area.draw(&Rectangle::new([(x, y), (x + side, y + side)], color))?;
        }
    }
    Ok(())
}

fn draw_outputs(area: &Area, outputs: &[f64]) -> Result<()> {
    let low = outputs.iter().copied().fold(0.0, f64::min) * 1.1;
    let high = outputs.iter().copied().fold(1e-3, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption("the readout", (FONT, 19))
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.5..outputs.len() as f64 - 0.5, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("class")
        .y_desc("output summed over time")
        .x_labels(outputs.len())
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .light_line_style(WHITE)
        .draw()?;
    let bars = outputs.iter().enumerate().map(|(class, &y)| (class as f64, y));
    chart
        .draw_series(bars.map(|(x, y)| Rectangle::new([(x - 0.35, 0.0), (x + 0.35, y)], ORANGE.filled())))?;
    Ok(())
}
