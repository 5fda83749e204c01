//! The command line, and what it means for the preset and the method at hand.

use std::path::PathBuf;

use anyhow::{ensure, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tch::vision::dataset::Dataset;
use tch::{Kind, Tensor};

use crate::arguments::{fashion_mnist, positive, spelled};

/// A pixel's mean and deviation, from 0 to 1, over all places.
const STREAM_MEAN: f64 = 0.286;
const STREAM_DEVIATION: f64 = 0.353;

/// Reproduces the Fashion-MNIST row of the OTTT paper (arXiv 2210.04195), and compares the rules on it.
#[derive(Parser)]
#[command(version)]
pub struct Options {
    /// The network: the paper's recurrent one, a convolutional one, one hidden layer
    #[arg(long, value_enum, default_value = "r400")]
    preset: Preset,
    /// The learning rules, one after another: ottt-a,ottt-o,...
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ottt-o")]
    method: Vec<Method>,
    /// Runs of each method, each from its seed: 1,2,3
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<i64>,
    /// Passes over the images [default: 100; conv: 12]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Time steps an image is shown
    #[arg(long, value_name = "T", default_value = "5", value_parser = clap::value_parser!(i64).range(1..))]
    time_steps: i64,
    /// Time steps with a backward pass, of sltt-k
    #[arg(long, value_name = "K", default_value = "2", value_parser = clap::value_parser!(i64).range(1..))]
    k: i64,
    /// Images a batch
    #[arg(long, default_value = "128", value_parser = clap::value_parser!(i64).range(1..))]
    batch: i64,
    /// The highest learning rate; it falls to 0 by a cosine. With --stream it stays, in proportion to the batch
    #[arg(long, default_value = "0.05", allow_negative_numbers = true, value_parser = positive)]
    lr: f64,
    /// Epochs in which the learning rate rises
    #[arg(long, default_value = "0", value_parser = from_0)]
    warm_up: f64,
    /// Share of the last move that is kept
    #[arg(long, default_value = "0.9", value_parser = share)]
    momentum: f64,
    /// Pull of the weights towards 0 [default: 1e-4 for ottt-o and ndot-o, 5e-4 else; --stream: 0]
    #[arg(long, value_parser = from_0)]
    weight_decay: Option<f64>,
    /// Share of spikes dropped [default: 0.2; conv: 0.1; --stream: 0]
    #[arg(long, value_parser = share)]
    dropout: Option<f64>,
    /// Share of the mean square error in the loss
    #[arg(long, default_value = "0.05", value_parser = share)]
    lambda: f64,
    /// Mirror and shift the training images at random
    #[arg(long)]
    augment: bool,
    /// One pass, weights moved after every time step, each image tested before it is learned: at batch 1 and at 64
    #[arg(long)]
    stream: bool,
    /// Only gather the results that are there into the table and the pictures
    #[arg(long)]
    table: bool,
    /// Threads of libtorch
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(i32).range(1..))]
    threads: i32,
    /// Watch every n-th batch: firing rates, membranes, gradients; 0 for never
    #[arg(long, value_name = "N", default_value = "100")]
    watch: u64,
    /// Use the first images only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    images: Option<i64>,
    /// Folder of Fashion-MNIST's four IDX files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder that gathers the runs
    #[arg(long, value_name = "DIR", default_value = "runs/fashion-mnist")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    R400,
    Conv,
    Mlp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// OTTT, weights moved behind the sequence
    OtttA,
    /// OTTT, weights moved after every time step
    OtttO,
    /// NDOT, weights moved behind the sequence
    NdotA,
    /// NDOT, weights moved after every time step
    NdotO,
    /// No traces: the gradient stays inside the time step
    Sltt,
    /// The same at K of the steps
    SlttK,
    /// Backpropagation through time
    Bptt,
}

impl Method {
    pub fn name(self) -> String {
        spelled(self)
    }

    /// Whether weights move after every time step.
    pub fn is_online(self) -> bool {
        matches!(self, Self::OtttO | Self::NdotO)
    }
}

impl Preset {
    pub fn name(self) -> String {
        spelled(self)
    }
}

/// The options with every default filled in, for one method.
#[derive(Clone, Serialize)]
pub struct Settings {
    pub preset: Preset,
    pub method: Method,
    pub epochs: u64,
    pub time_steps: i64,
    pub k: i64,
    pub batch: i64,
    pub lr: f64,
    pub warm_up: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub dropout: f64,
    pub lambda: f64,
    pub augment: bool,
    pub threads: i32,
    pub watch: u64,
}

/// What is to be done.
pub struct Plan {
    pub runs: Vec<Settings>,
    pub seeds: Vec<i64>,
    pub stream: bool,
    pub table: bool,
    pub threads: i32,
    pub images: Option<i64>,
    data_dir: Option<PathBuf>,
    pub out: PathBuf,
}

impl Options {
    pub fn resolve(self) -> Result<Plan> {
        let conv = self.preset == Preset::Conv;
        let epochs = self.epochs.unwrap_or(if conv { 12 } else { 100 });
        ensure!(self.warm_up < epochs as f64, "--warm-up must be below --epochs, {epochs}");
        let settings = |&method: &Method| Settings {
            preset: self.preset,
            method,
            epochs,
            time_steps: self.time_steps,
            k: self.k.min(self.time_steps),
            batch: self.batch,
            lr: self.lr,
            warm_up: self.warm_up,
            momentum: self.momentum,
            weight_decay: self.weight_decay.unwrap_or(match method {
                _ if self.stream => 0.0,
                method if method.is_online() => 1e-4,
                _ => 5e-4,
            }),
            dropout: self.dropout.unwrap_or(match (self.stream, conv) {
                (true, _) => 0.0,
                (false, true) => 0.1,
                (false, false) => 0.2,
            }),
            lambda: self.lambda,
            augment: self.augment,
            threads: self.threads,
            watch: self.watch,
        };
        Ok(Plan {
            runs: self.method.iter().map(settings).collect(),
            seeds: self.seeds,
            stream: self.stream,
            table: self.table,
            threads: self.threads,
            images: self.images,
            data_dir: self.data_dir,
            out: self.out,
        })
    }
}

impl Plan {
    /// Fashion-MNIST, or its first images, standardized: without the mean image, at a deviation of 1.
    ///
    /// The mean of the training images makes learning slow where it is left in. A stream does not know it beforehand:
    /// there each pixel has the same mean.
    pub fn data(&self) -> Result<Dataset> {
        let mut data = fashion_mnist(self.data_dir.as_deref())?;
        // In place: the images are most of the memory.
        let (train, test) = (&mut data.train_images, &mut data.test_images);
        let mean = match self.stream {
            true => Tensor::from(STREAM_MEAN),
            false => train.f_mean_dim(0i64, true, Kind::Float)?,
        };
        let _ = (train.f_sub_(&mean)?, test.f_sub_(&mean)?);
        let deviation = match self.stream {
            true => STREAM_DEVIATION,
            false => train.f_std(true)?.f_double_value(&[])?,
        };
        let _ = (train.f_div_scalar_(deviation)?, test.f_div_scalar_(deviation)?);
        if let Some(images) = self.images {
            let count = images.min(data.train_images.size()[0]);
            data.train_images = data.train_images.narrow(0, 0, count);
            data.train_labels = data.train_labels.narrow(0, 0, count);
        }
        Ok(data)
    }
}

fn from_0(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (value >= 0.0 && value.is_finite()).then_some(value).ok_or("expected a number from 0 on".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.0..1.0).contains(&value).then_some(value).ok_or("expected a number from 0 to below 1".to_owned())
}
