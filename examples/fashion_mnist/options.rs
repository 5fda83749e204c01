//! The command line, and what it means for the preset and the method at hand.

use std::path::PathBuf;

use anyhow::{ensure, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tch::vision::dataset::Dataset;
use tch::{Device, Kind, Tensor};

use crate::arguments::{as_text, device, fashion_mnist, positive, spelled};

/// Of all training pixels, from 0 to 1.
const PIXEL_MEAN: f64 = 0.286;
const PIXEL_DEVIATION: f64 = 0.353;

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
    /// Passes over the images [default: 100; conv: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Time steps an image is shown
    #[arg(long, value_name = "T", default_value = "5", value_parser = clap::value_parser!(i64).range(1..))]
    time_steps: i64,
    /// Time steps with a backward pass, of sltt-k
    #[arg(long, value_name = "K", default_value = "2", value_parser = clap::value_parser!(i64).range(1..))]
    k: i64,
    /// Images a batch [default: 128; --stream: 1, then 64]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    /// The highest learning rate; it falls to 0 by a cosine. With --stream it stays, a 128th of this for each image of a batch
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
    /// Share of spikes dropped [default: 0.2; conv and --stream: 0]
    #[arg(long, value_parser = share)]
    dropout: Option<f64>,
    /// Subtract the mean of the training images, not only of all their pixels [default: true; conv and --stream: false]
    #[arg(long, value_name = "BOOL")]
    mean_image: Option<bool>,
    /// Share of the mean square error in the loss
    #[arg(long, default_value = "0.05", value_parser = share)]
    lambda: f64,
    /// Mirror and shift the training images at random
    #[arg(long)]
    augment: bool,
    /// One pass, each image tested before it is learned: in batches of 1, then of 64
    #[arg(long)]
    stream: bool,
    /// Only gather the results that are there into the table and the pictures
    #[arg(long)]
    table: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = device)]
    device: Device,
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

/// The options with every default filled in, for one run; written to its config.json.
#[derive(Clone, Serialize)]
pub struct Settings {
    pub preset: Preset,
    pub method: Method,
    pub seed: i64,
    pub epochs: u64,
    pub time_steps: i64,
    /// Of sltt-k alone.
    pub k: Option<i64>,
    pub batch: i64,
    pub lr: f64,
    pub warm_up: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub dropout: f64,
    pub mean_image: bool,
    pub lambda: f64,
    pub augment: bool,
    /// The first ones of all.
    pub images: Option<i64>,
    #[serde(serialize_with = "as_text")]
    pub device: Device,
    pub threads: i32,
    pub watch: u64,
}

/// What is to be done.
pub struct Plan {
    pub runs: Vec<Settings>,
    pub stream: bool,
    pub table: bool,
    pub threads: i32,
    images: Option<i64>,
    device: Device,
    mean_image: bool,
    data_dir: Option<PathBuf>,
    pub out: PathBuf,
}

impl Options {
    pub fn resolve(self) -> Result<Plan> {
        let conv = self.preset == Preset::Conv;
        let epochs = match (self.stream, self.epochs, conv) {
            (true, ..) => 1,
            (false, Some(epochs), _) => epochs,
            (false, None, true) => 10,
            (false, None, false) => 100,
        };
        let unheard = [
            ("--epochs", self.epochs.is_some()),
            ("--batch", self.batch.is_some()),
            ("--warm-up", self.warm_up > 0.0),
            ("--augment", self.augment),
        ];
        for (option, given) in unheard {
            ensure!(!(self.stream && given), "{option} has no meaning with --stream");
        }
        ensure!(self.warm_up < epochs as f64, "--warm-up must be below --epochs, {epochs}");
        let draws = self.method.contains(&Method::SlttK);
        ensure!(!draws || self.k <= self.time_steps, "--k must be at most --time-steps, {}", self.time_steps);
        let mean_image = self.mean_image.unwrap_or(!conv && !self.stream);
        let settings = |method: Method, seed: i64| Settings {
            preset: self.preset,
            method,
            seed,
            epochs,
            time_steps: self.time_steps,
            k: (method == Method::SlttK).then_some(self.k),
            batch: self.batch.unwrap_or(128),
            lr: self.lr,
            warm_up: self.warm_up,
            momentum: self.momentum,
            weight_decay: self.weight_decay.unwrap_or(match method {
                _ if self.stream => 0.0,
                method if method.is_online() => 1e-4,
                _ => 5e-4,
            }),
            dropout: self.dropout.unwrap_or(if conv || self.stream { 0.0 } else { 0.2 }),
            mean_image,
            lambda: self.lambda,
            augment: self.augment,
            images: self.images,
            device: self.device,
            threads: self.threads,
            watch: if self.stream { 0 } else { self.watch },
        };
        Ok(Plan {
            runs: self
                .method
                .iter()
                .flat_map(|&method| self.seeds.iter().map(move |&seed| settings(method, seed)))
                .collect(),
            stream: self.stream,
            table: self.table,
            threads: self.threads,
            images: self.images,
            device: self.device,
            mean_image,
            data_dir: self.data_dir,
            out: self.out,
        })
    }
}

impl Plan {
    /// Fashion-MNIST, or its first images, standardized: of mean 0 and deviation 1.
    ///
    /// The mean image is the direction in which pixels vary most: a network without convolutions learns slowly where it is
    /// left in. A stream does not know it beforehand, and a convolution wants the same object to look alike in all places.
    pub fn data(&self) -> Result<Dataset> {
        let mut data = fashion_mnist(self.data_dir.as_deref())?;
        for tensor in
            [&mut data.train_images, &mut data.train_labels, &mut data.test_images, &mut data.test_labels]
        {
            *tensor = tensor.to_device(self.device);
        }
        // In place: the images are most of the memory.
        let (train, test) = (&mut data.train_images, &mut data.test_images);
        let mean = match self.mean_image {
            true => train.f_mean_dim(0i64, true, Kind::Float)?,
            false => Tensor::from(PIXEL_MEAN).to_device(self.device),
        };
        let _ = (train.f_sub_(&mean)?, test.f_sub_(&mean)?);
        let deviation = match self.mean_image {
            true => train.f_std(true)?.f_double_value(&[])?,
            false => PIXEL_DEVIATION,
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
