//! The folder of a run: configuration, metrics, weights, pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::Serialize;
use spiketrace::OtttSequential;
use tch::nn::VarStore;
use tch::Tensor;

use crate::options::Settings;
use crate::{pictures, raster};

/// One line of metrics.csv.
#[derive(Serialize)]
pub struct Epoch {
    pub epoch: i64,
    pub loss: f64,
    pub train_accuracy: f64,
    pub test_accuracy: f64,
    pub images_per_second: f64,
    pub lr: f64,
}

pub struct Report {
    folder: PathBuf,
    metrics: csv::Writer<fs::File>,
    epochs: Vec<Epoch>,
}

impl Report {
    /// Makes the folder, before anything is learned that could be lost.
    pub fn create(settings: &Settings) -> Result<Self> {
        let folder = match &settings.out {
            Some(folder) => folder.clone(),
            None => next_free(&settings.name()),
        };
        if folder.exists() && !folder.is_dir() {
            bail!("{} is not a folder; choose another with --out", folder.display());
        }
        if folder.join("metrics.csv").exists() {
            bail!("{} already holds a run; choose another folder with --out", folder.display());
        }
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty; choose another folder with --out", folder.display());
        }
        let unwritable = || format!("{} cannot be written to; choose another with --out", folder.display());
        fs::create_dir_all(&folder).with_context(unwritable)?;
        let config = serde_json::to_string_pretty(settings)?;
        fs::write(folder.join("config.json"), config).with_context(unwritable)?;
        let metrics = csv::Writer::from_path(folder.join("metrics.csv")).with_context(unwritable)?;
        Ok(Self { folder, metrics, epochs: Vec::new() })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn test_accuracy(&self) -> f64 {
        self.epochs.last().map_or(0.0, |epoch| epoch.test_accuracy)
    }

    /// Prints and keeps an epoch, with the weights it led to.
    pub fn add(&mut self, epoch: Epoch, vs: &VarStore) -> Result<()> {
        println!(
            "epoch {:>3}  loss {:.4}  train accuracy {:.4}  test accuracy {:.4}  {:>6.0} images/s",
            epoch.epoch, epoch.loss, epoch.train_accuracy, epoch.test_accuracy, epoch.images_per_second
        );
        self.metrics.serialize(&epoch)?;
        self.metrics.flush()?;
        self.epochs.push(epoch);
        // Renamed when whole: a crash leaves the weights of the epoch before.
        let whole = self.folder.join("weights.safetensors");
        let partial = self.folder.join("partial.safetensors");
        vs.save(&partial)?;
        fs::rename(partial, whole)?;
        Ok(())
    }

    /// Draws the learning curve and a raster of one image.
    pub fn draw(
        &self,
        net: &mut OtttSequential,
        image: &Tensor,
        label: i64,
        settings: &Settings,
    ) -> Result<()> {
        pictures::learning_curve(&self.folder.join("learning_curve.png"), &self.epochs, &settings.name())?;
        raster::raster(&self.folder.join("raster.png"), net, image, label, settings.time_steps)
    }
}

/// The first of runs/NAME-1, runs/NAME-2 ... that does not exist.
fn next_free(name: &str) -> PathBuf {
    let mut numbered = (1u64..).map(|n| Path::new("runs").join(format!("{name}-{n}")));
    numbered.find(|folder| !folder.exists()).expect("numbers do not run out")
}
