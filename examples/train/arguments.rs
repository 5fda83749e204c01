//! What the examples' command lines have in common.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serializer;
use tch::vision::dataset::Dataset;
use tch::Device;

/// Fashion-MNIST, from 0 to 1, out of `folder` or where Debian puts it.
pub fn fashion_mnist(folder: Option<&Path>) -> Result<Dataset> {
    let debian = Path::new("/usr/share/datasets/fashion-mnist");
    Ok(spiketrace::data::mnist(folder.or_else(|| debian.is_dir().then_some(debian)).context(
        "Fashion-MNIST was not found; install Debian's package dataset-fashion-mnist, \
         or say with --data-dir where its four IDX files lie",
    )?)?)
}

pub fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (value > 0.0 && value.is_finite()).then_some(value).ok_or("expected a number above 0".to_owned())
}

/// A choice as the command line spells it.
pub fn spelled(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

pub fn device(text: &str) -> Result<Device, String> {
    spiketrace::device(text).map_err(|error| error.to_string())
}

/// A device as `device` reads it.
pub fn as_text<S: Serializer>(device: &Device, serializer: S) -> Result<S::Ok, S::Error> {
    match device {
        Device::Cuda(index) => serializer.collect_str(&format_args!("cuda:{index}")),
        _ => serializer.serialize_str("cpu"),
    }
}

/// Prints a line; unlike `println!` it does not panic where the disk is full or nobody listens any more.
pub fn say(line: impl Display) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("the standard output cannot be written to")
}
