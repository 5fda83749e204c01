//! The command line, and what it means for the data set at hand.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Deserializer, Serialize};
use spiketrace::distributed::{from_env_or_single, is_launched, local_rank, restarts, Collectives};
use spiketrace::setting::Precision;
use spiketrace::train::{OtttTrainingConfig, Update};
use tch::vision::dataset::Dataset;
use tch::Device;

use crate::arguments::{as_text, device, fashion_mnist, positive, spelled};

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
    /// Folder for the run, new or empty, but where torchrun starts anew [default: the next free runs/NAME-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder, which all processes see, from its last checkpoint; all else is as it was
    #[arg(long, value_name = "DIR", exclusive = true)]
    resume: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    Digits,
    Mnist,
    FashionMnist,
}

#[derive(Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkName {
    Mlp,
    Conv,
}

#[derive(Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateName {
    Step,
    Sequence,
}

#[derive(Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionName {
    F32,
    Bf16,
    F16,
}

/// The options with every default filled in; written to the run's config.json.
#[derive(Serialize, Deserialize)]
pub struct Settings {
    pub dataset: DatasetName,
    pub data_dir: Option<PathBuf>,
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
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub device: Device,
    /// 0: libtorch's own choice.
    pub threads: i32,
    pub timeout: u64,
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// The run that goes on.
    #[serde(skip)]
    pub resumed: Option<PathBuf>,
}

impl Options {
    /// Fills in the defaults, or takes all from a run that goes on, and reads the data.
    pub fn resolve(self) -> Result<(Settings, Dataset)> {
        let mut settings = match self.resume {
            Some(folder) => Settings::of_run(folder)?,
            None => self.settings(),
        };
        if let (Device::Cuda(_), true) = (settings.device, is_launched()) {
            // Each process has a GPU of its own.
            settings.device = spiketrace::device(&format!("cuda:{}", local_rank()?))?;
        }
        let data = settings.data()?;
        Ok((settings, data))
    }

    fn settings(self) -> Settings {
        let small = self.dataset == DatasetName::Digits;
        Settings {
            dataset: self.dataset,
            data_dir: self.data_dir,
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
            // Started again by torchrun, after a failure.
            resumed: self.out.clone().filter(|_| restarts() > 0),
            out: self.out,
        }
    }
}

impl Settings {
    /// Those of the run in a folder.
    fn of_run(folder: PathBuf) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} holds no run to go on with", folder.display()))?;
        let settings: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is broken", path.display()))?;
        Ok(Self { resumed: Some(folder), ..settings })
    }

    /// The processes that a launcher started together, or this one by itself.
    pub fn group(&self) -> Result<Box<dyn Collectives>> {
        let timeout = Duration::from_secs(self.timeout);
        #[cfg(feature = "nccl")]
        if let (Device::Cuda(gpu), true) = (self.device, is_launched()) {
            return Ok(Box::new(spiketrace::distributed::ProcessGroup::from_env_nccl(timeout, gpu)?));
        }
        Ok(from_env_or_single(timeout)?)
    }

    fn data(&self) -> Result<Dataset> {
        let folder = self.data_dir.as_deref();
        Ok(match self.dataset {
            DatasetName::Digits if folder.is_some() => {
                bail!("the digits lie inside the program; --data-dir goes with mnist and fashion-mnist")
            }
            DatasetName::Digits => spiketrace::data::digits()?,
            DatasetName::Mnist => spiketrace::data::mnist(
                folder.context("say with --data-dir where MNIST's four IDX files lie")?,
            )?,
            DatasetName::FashionMnist => fashion_mnist(folder)?,
        })
    }

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
        format!("{}-{}", spelled(self.dataset), spelled(self.network))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or("expected a number from 0 to 1".to_owned())
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Device, D::Error> {
    device(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
