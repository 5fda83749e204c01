//! The folder of a run: configuration, metrics, weights, pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use spiketrace::OtttSequential;
use tch::nn::VarStore;
use tch::Tensor;

use crate::options::Settings;
use crate::pictures;

/// One line of metrics.csv.
#[derive(Serialize, Deserialize)]
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
    epochs: Vec<Epoch>,
}

impl Report {
    /// Makes the folder, before anything is learned that could be lost. A restart finds it made.
    pub fn create(settings: &Settings, restarted: bool) -> Result<Self> {
        let folder = match &settings.out {
            Some(folder) => folder.clone(),
            None => next_free(&settings.name()),
        };
        if folder.exists() && !folder.is_dir() {
            bail!("{} is not a folder; choose another with --out", folder.display());
        }
        let restarted = restarted && settings.out.is_some();
        if folder.join("metrics.csv").exists() && !restarted {
            bail!("{} already holds a run; choose another folder with --out", folder.display());
        }
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) && !restarted {
            bail!("{} is not empty; choose another folder with --out", folder.display());
        }
        let unwritable = || format!("{} cannot be written to; choose another with --out", folder.display());
        fs::create_dir_all(&folder).with_context(unwritable)?;
        let config = serde_json::to_string_pretty(settings)?;
        fs::write(folder.join("config.json"), config).with_context(unwritable)?;
        let read = csv::Reader::from_path(folder.join("metrics.csv"));
        let epochs = match read {
            Ok(csv) => csv.into_deserialize().collect::<Result<_, _>>()?,
            Err(_) => Vec::new(),
        };
        Ok(Self { folder, epochs })
    }

    /// Goes on behind epoch `done`.
    pub fn resume(&mut self, done: i64) {
        self.epochs.truncate(done as usize);
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
        self.epochs.push(epoch);
        // Renamed when whole: a crash leaves what was there before.
        let partial = |name: &str| self.folder.join(format!("partial.{name}"));
        let mut metrics = csv::Writer::from_path(partial("metrics.csv"))?;
        self.epochs.iter().try_for_each(|epoch| metrics.serialize(epoch))?;
        metrics.flush()?;
        vs.save(partial("weights.safetensors"))?;
        for name in ["metrics.csv", "weights.safetensors"] {
            fs::rename(partial(name), self.folder.join(name))?;
        }
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
        pictures::raster(&self.folder.join("raster.png"), net, image, label, settings.time_steps)
    }
}

/// The first of runs/NAME-1, runs/NAME-2 ... that does not exist.
fn next_free(name: &str) -> PathBuf {
    let mut numbered = (1u64..).map(|n| Path::new("runs").join(format!("{name}-{n}")));
    numbered.find(|folder| !folder.exists()).expect("numbers do not run out")
}
