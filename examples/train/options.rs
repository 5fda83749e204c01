//! The command line, and what it means for the data set at hand.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use spiketrace::train::{OtttTrainingConfig, Update};
use spiketrace::Precision;
use tch::vision::dataset::Dataset;
use tch::Device;

/// Trains a spiking network online (OTTT) on real images.
#[derive(Parser)]
#[command(version)]
pub struct Options {
    /// The images to learn
    #[arg(long, value_enum, default_value = "digits")]
    dataset: DatasetName,
    /// Folder of the IDX files of mnist or fashion-mnist
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The network
    #[arg(long, value_enum, default_value = "conv")]
    network: NetworkName,
    /// Time steps an image is shown
    #[arg(long, value_name = "T", default_value = "6", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    time_steps: i64,
    /// When weights move: after each time step, or once a sequence
    #[arg(long, value_enum, default_value = "step")]
    update: UpdateName,
    /// Time steps that go through each layer together, with --update sequence
    #[arg(long, value_name = "K", default_value = "1", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    steps_per_pass: i64,
    /// What the weighted layers compute in; all else stays f32
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
    /// Images a batch, over all processes together [default: 32 for digits, 64 else]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    /// Passes over the images [default: 20 for digits, 4 else]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..))]
    epochs: Option<i64>,
    /// First learning rate of SGD with momentum 0.9; it falls to 0 by a cosine
    #[arg(long, default_value = "0.05", allow_negative_numbers = true, value_parser = positive)]
    lr: f64,
    /// Share of the mean square error in the loss
    #[arg(long, default_value = "0.05", allow_negative_numbers = true, value_parser = share)]
    lambda: f64,
    /// Pull of the weights towards 0
    #[arg(long, default_value = "0.0001", allow_negative_numbers = true, value_parser = share)]
    weight_decay: f64,
    /// Number that a run can be repeated from
    #[arg(long, default_value = "1")]
    seed: i64,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = device)]
    device: Device,
    /// Threads of libtorch [default: its own choice]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
    threads: Option<i32>,
    /// Seconds that processes wait for each other
    #[arg(long, value_name = "SECONDS", default_value = "300", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Folder for the run, new or empty [default: the next free runs/NAME-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    Digits,
    Mnist,
    FashionMnist,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkName {
    Mlp,
    Conv,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateName {
    Step,
    Sequence,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionName {
    F32,
    Bf16,
    F16,
}

/// The options with every default filled in; written to the run's config.json.
#[derive(Serialize)]
pub struct Settings {
    pub dataset: DatasetName,
    pub network: NetworkName,
    pub time_steps: i64,
    pub update: UpdateName,
    pub steps_per_pass: i64,
    pub precision: PrecisionName,
    pub batch: i64,
    pub epochs: i64,
    pub lr: f64,
    pub lambda: f64,
    pub weight_decay: f64,
    pub seed: i64,
    #[serde(serialize_with = "as_text")]
    pub device: Device,
    /// 0: libtorch's own choice.
    pub threads: i32,
    pub timeout: u64,
    #[serde(skip)]
    pub out: Option<PathBuf>,
}

impl Options {
    /// Fills in the defaults and reads the data.
    pub fn resolve(self) -> Result<(Settings, Dataset)> {
        let small = self.dataset == DatasetName::Digits;
        let data = match self.dataset {
            DatasetName::Digits if self.data_dir.is_some() => {
                bail!("the digits lie inside the program; --data-dir goes with mnist and fashion-mnist")
            }
            DatasetName::Digits => spiketrace::data::digits()?,
            DatasetName::Mnist => spiketrace::data::mnist(
                self.data_dir.context("say with --data-dir where MNIST's four IDX files lie")?,
            )?,
            DatasetName::FashionMnist => {
                let debian = Path::new("/usr/share/datasets/fashion-mnist");
                let found = self.data_dir.or_else(|| debian.is_dir().then(|| debian.to_owned()));
                spiketrace::data::mnist(found.context(
                    "Fashion-MNIST was not found; install Debian's package dataset-fashion-mnist, \
                     or say with --data-dir where its four IDX files lie",
                )?)?
            }
        };
        let settings = Settings {
            dataset: self.dataset,
            network: self.network,
            time_steps: self.time_steps,
            update: self.update,
            steps_per_pass: self.steps_per_pass,
            precision: self.precision,
            batch: self.batch.unwrap_or(if small { 32 } else { 64 }),
            epochs: self.epochs.unwrap_or(if small { 20 } else { 4 }),
            lr: self.lr,
            lambda: self.lambda,
            weight_decay: self.weight_decay,
            seed: self.seed,
            device: self.device,
            threads: self.threads.unwrap_or(0),
            timeout: self.timeout,
            out: self.out,
        };
        Ok((settings, data))
    }
}

impl Settings {
    pub fn training(&self) -> OtttTrainingConfig {
        let update = match self.update {
            UpdateName::Step => Update::EveryStep,
            UpdateName::Sequence => Update::EndOfSequence,
        };
        OtttTrainingConfig { update, steps_per_pass: self.steps_per_pass }
    }

    /// How often the weights move in a batch.
    pub fn updates(&self) -> i64 {
        match self.update {
            UpdateName::Step => self.time_steps,
            UpdateName::Sequence => 1,
        }
    }

    pub fn precision(&self) -> Precision {
        match self.precision {
            PrecisionName::F32 => Precision::Full,
            PrecisionName::Bf16 => Precision::BFloat16,
            PrecisionName::F16 => Precision::Half,
        }
    }

    /// For instance `digits-mlp`.
    pub fn name(&self) -> String {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|v| v.get_name().to_owned()).unwrap_or_default()
        };
        let dataset = name(&|| self.dataset.to_possible_value());
        let network = name(&|| self.network.to_possible_value());
        format!("{dataset}-{network}")
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (value > 0.0 && value.is_finite()).then_some(value).ok_or("expected a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or("expected a number from 0 to 1".to_owned())
}

fn device(text: &str) -> Result<Device, String> {
    spiketrace::device(text).map_err(|error| error.to_string())
}

fn as_text<S: serde::Serializer>(device: &Device, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{device:?}"))
}
