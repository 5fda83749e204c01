//! The folder of a run: configuration, metrics, weights, pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use spiketrace::{OnlineModule, OtttSequential, StateDict};
use tch::Tensor;

use crate::options::Settings;
use crate::{pictures, raster};

const CONFIG: &str = "config.json";
const PARTIAL_CONFIG: &str = "config.partial";

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
    metrics: csv::Writer<fs::File>,
    epochs: Vec<Epoch>,
}

impl Report {
    /// The run that goes on behind epoch `done`, or a new one.
    pub fn of(settings: &Settings, done: i64) -> Result<Self> {
        let Some(folder) = &settings.resumed else { return Self::create(settings) };
        match fs::read_to_string(folder.join(CONFIG)) {
            Ok(config) if config == serde_json::to_string_pretty(settings)? => {
                Self::open(folder.clone(), settings, done)
            }
            Ok(_) => {
                bail!("{} holds a run with other options; choose another folder with --out", folder.display())
            }
            Err(_) => Self::create(settings),
        }
    }

    /// Makes the folder, before anything is learned that could be lost.
    fn create(settings: &Settings) -> Result<Self> {
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
        // Half a configuration is left where a run was killed at its start.
        let foreign =
            |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|e| e.file_name() != PARTIAL_CONFIG);
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.any(foreign)) {
            bail!("{} is not empty; choose another folder with --out", folder.display());
        }
        Self::open(folder, settings, 0)
    }

    /// Opens the run in a folder, with its metrics up to epoch `done`: what follows is noted anew.
    ///
    /// Files are renamed when whole: a run that has a config.json can go on.
    fn open(folder: PathBuf, settings: &Settings, done: i64) -> Result<Self> {
        let unwritable = || format!("{} cannot be written to; choose another with --out", folder.display());
        fs::create_dir_all(&folder).with_context(unwritable)?;
        let config = serde_json::to_string_pretty(settings)?;
        fs::write(folder.join(PARTIAL_CONFIG), config).with_context(unwritable)?;
        fs::rename(folder.join(PARTIAL_CONFIG), folder.join(CONFIG)).with_context(unwritable)?;

        let (path, partial) = (folder.join("metrics.csv"), folder.join("metrics.partial"));
        // The last line may be half of one.
        let rows = csv::Reader::from_path(&path).into_iter().flat_map(csv::Reader::into_deserialize);
        let mut epochs: Vec<Epoch> = rows.map_while(Result::ok).collect();
        epochs.retain(|row| row.epoch <= done);
        let mut metrics = csv::Writer::from_path(&partial).with_context(unwritable)?;
        epochs.iter().try_for_each(|row| metrics.serialize(row))?;
        metrics.flush()?;
        fs::rename(partial, path).with_context(unwritable)?;
        Ok(Self { folder, metrics, epochs })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn test_accuracy(&self) -> f64 {
        self.epochs.last().map_or(0.0, |epoch| epoch.test_accuracy)
    }

    /// Prints and keeps an epoch, with the weights it led to.
    pub fn add(&mut self, epoch: Epoch, net: &OtttSequential) -> Result<()> {
        println!(
            "epoch {:>3}  loss {:.4}  train accuracy {:.4}  test accuracy {:.4}  {:>6.0} images/s",
            epoch.epoch, epoch.loss, epoch.train_accuracy, epoch.test_accuracy, epoch.images_per_second
        );
        self.metrics.serialize(&epoch)?;
        self.metrics.flush()?;
        self.epochs.push(epoch);
        Ok(StateDict::of(&net.state()).write(self.folder.join("weights.safetensors"))?)
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
