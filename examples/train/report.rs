//! The folder of a run: configuration, metrics, weights, pictures.

use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use spiketrace::{OtttSequential, Part, StateDict};
use tch::Tensor;

use crate::arguments::say;
use crate::files::write_whole;
use crate::options::Settings;
use crate::{pictures, raster};

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.csv";

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
    /// The run that goes on after epoch `done`, or a new one.
    pub fn of(settings: &Settings, done: i64) -> Result<Self> {
        let Some(folder) = &settings.resumed else { return Self::create(settings) };
        let path = folder.join(CONFIG);
        match fs::read_to_string(&path) {
            Ok(config) if config == serde_json::to_string_pretty(settings)? => {
                Self::open(folder.clone(), done)
            }
            Ok(_) => {
                bail!("{} holds a run with other options; choose another folder with --out", folder.display())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(settings),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Makes the folder, before anything is learned that could be lost: a run that has a config.json can go on.
    fn create(settings: &Settings) -> Result<Self> {
        let folder = match &settings.out {
            Some(folder) => folder.clone(),
            None => next_free(&settings.name()),
        };
        let is_new = !folder.exists();
        if !is_new && !folder.is_dir() {
            bail!("{} is not a folder; choose another with --out", folder.display());
        }
        if [CONFIG, METRICS].iter().any(|name| folder.join(name).exists()) {
            bail!("{} already holds a run; choose another folder with --out", folder.display());
        }
        let unwritable = || format!("{} cannot be written to; choose another with --out", folder.display());
        if !is_new {
            let entries: io::Result<Vec<_>> = fs::read_dir(&folder).and_then(Iterator::collect);
            if !entries.with_context(unwritable)?.iter().all(is_leftover) {
                bail!("{} is not empty; choose another folder with --out", folder.display());
            }
        }
        fs::create_dir_all(&folder).with_context(unwritable)?;
        let config = serde_json::to_string_pretty(settings)?;
        if let Err(error) = write_whole(&folder.join(CONFIG), config.as_bytes()) {
            if is_new {
                // Nothing is in it.
                let _ = fs::remove_dir(&folder);
            }
            return Err(error.context(unwritable()));
        }
        Self::open(folder, 0)
    }

    /// Opens the run in a folder, with its metrics up to epoch `done`: what follows is noted anew.
    fn open(folder: PathBuf, done: i64) -> Result<Self> {
        // What a killed run left goes when it goes on; what cannot be removed does no harm.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.filter(is_leftover).for_each(|entry| drop(fs::remove_file(entry.path())));
        let path = folder.join(METRICS);
        let rows = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            rows => rows.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        let rows: csv::Result<Vec<Epoch>> = csv::Reader::from_reader(&rows[..]).into_deserialize().collect();
        let mut epochs = rows.with_context(|| format!("{} is broken", path.display()))?;
        epochs.retain(|row| row.epoch <= done);
        Ok(Self { folder, epochs })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn test_accuracy(&self) -> f64 {
        self.epochs.last().map_or(0.0, |epoch| epoch.test_accuracy)
    }

    /// Prints and keeps an epoch, with the weights it led to.
    pub fn add(&mut self, epoch: Epoch, net: &OtttSequential) -> Result<()> {
        say(format_args!(
            "epoch {:>3}  loss {:.4}  train accuracy {:.4}  test accuracy {:.4}  {:>6.0} images/s",
            epoch.epoch, epoch.loss, epoch.train_accuracy, epoch.test_accuracy, epoch.images_per_second
        ))?;
        self.epochs.push(epoch);
        let mut metrics = csv::Writer::from_writer(Vec::new());
        self.epochs.iter().try_for_each(|row| metrics.serialize(row))?;
        write_whole(&self.folder.join(METRICS), &metrics.into_inner()?)?;
        Ok(StateDict::of(&net.variables()).write(self.folder.join("weights.safetensors"))?)
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

/// Whether it is what a killed program was writing.
fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().into_owned();
    name.starts_with('.') && name.ends_with(".partial")
}
