//! The folder that gathers the runs: a line a run, a line an epoch, and the table of them all.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::Settings;
use crate::training::Progress;

/// What the OTTT paper reports in percent: preset, method, figure. T = 5, 100 epochs.
const PAPER: [(&str, &str, f64); 3] =
    [("r400", "bptt", 90.58), ("r400", "ottt-a", 90.36), ("r400", "ottt-o", 90.40)];

/// A line of results.csv: a run that came to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub run: String,
    pub preset: String,
    pub method: String,
    pub seed: i64,
    pub time_steps: i64,
    pub epochs: u64,
    pub batch: i64,
    pub lr: f64,
    pub warm_up: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub dropout: f64,
    pub lambda: f64,
    pub augment: bool,
    pub images: i64,
    pub threads: i32,
    pub train_accuracy: f64,
    /// Of the last epoch.
    pub test_accuracy: f64,
    pub seconds: f64,
}

/// A line of epochs.csv.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Epoch {
    pub run: String,
    pub preset: String,
    pub method: String,
    pub seed: i64,
    pub epoch: u64,
    pub lr: f64,
    pub loss: f64,
    pub train_accuracy: f64,
    pub test_accuracy: f64,
    pub seconds: f64,
}

/// The gathered runs.
pub struct Results {
    folder: PathBuf,
}

impl Results {
    /// Makes the folder, before anything is learned that could be lost.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made; choose another with --out", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new folder for a run: its name, with a number behind it where there is one of that name.
    pub fn start(&self, settings: &Settings, seed: i64) -> Result<String> {
        let stem = format!("{}-{}-seed{seed}", settings.preset.name(), settings.method.name());
        let mut names = (1..).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
        let name = names.find(|name| fs::create_dir(self.path(name)).is_ok() || !self.path(name).exists());
        let name = name.unwrap_or(stem);
        let config = serde_json::to_string_pretty(settings)?;
        fs::write(self.path(&name).join("config.json"), config)
            .with_context(|| format!("{} cannot be written to", self.path(&name).display()))?;
        Ok(name)
    }

    /// Adds a line, whole, so that runs side by side do not mix theirs.
    pub fn append(&self, file: &str, row: &impl Serialize) -> Result<()> {
        let path = self.path(file);
        let is_new = OpenOptions::new().write(true).create_new(true).open(&path).is_ok();
        let mut writer = csv::WriterBuilder::new().has_headers(is_new).from_writer(Vec::new());
        writer.serialize(row)?;
        let line = writer.into_inner()?;
        OpenOptions::new().append(true).open(&path)?.write_all(&line)?;
        Ok(())
    }

    pub fn add_epoch(
        &self,
        run: &str,
        settings: &Settings,
        seed: i64,
        epoch: u64,
        now: Progress,
    ) -> Result<()> {
        let Progress { loss, train_accuracy, test_accuracy, lr, seconds } = now;
        println!(
            "epoch {epoch:>3}  loss {loss:.4}  train accuracy {train_accuracy:.4}  test accuracy {test_accuracy:.4}  \
             {seconds:.1} s"
        );
        let (run, preset, method) = (run.to_owned(), settings.preset.name(), settings.method.name());
        let epoch =
            Epoch { run, preset, method, seed, epoch, lr, loss, train_accuracy, test_accuracy, seconds };
        self.append("epochs.csv", &epoch)
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Vec<T>> {
        let path = self.path(file);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let rows: Result<Vec<T>, _> = csv::Reader::from_path(&path)?.into_deserialize().collect();
        rows.with_context(|| format!("{} is not what this program writes", path.display()))
    }

    /// The epochs of the runs that came to their end, of each method the longest ones.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let outcomes: Vec<Outcome> = self.read("results.csv")?;
        let longest = |run: &&Outcome| {
            let of_kind = |other: &&Outcome| (&other.preset, &other.method) == (&run.preset, &run.method);
            outcomes.iter().filter(of_kind).all(|other| other.epochs <= run.epochs)
        };
        let runs: HashSet<&str> = outcomes.iter().filter(longest).map(|run| &*run.run).collect();
        let mut epochs: Vec<Epoch> = self.read("epochs.csv")?;
        epochs.retain(|epoch| runs.contains(&*epoch.run));
        Ok(epochs)
    }

    /// A row for each setting: mean and standard deviation over its seeds, beside the paper's figure.
    pub fn table(&self) -> Result<String> {
        let outcomes: Vec<Outcome> = self.read("results.csv")?;
        let mut text = String::from(
            "| network | method | T | epochs | batch | seeds | test accuracy (%) | paper (%) | minutes a run |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for group in groups(outcomes) {
            let first = &group[0];
            let accuracies: Vec<f64> = group.iter().map(|run| 100.0 * run.test_accuracy).collect();
            let seeds: Vec<String> = group.iter().map(|run| run.seed.to_string()).collect();
            let is_papers = |&&(preset, method, _): &&(&str, &str, f64)| {
                (preset, method, 5) == (&*first.preset, &*first.method, first.time_steps)
            };
            let paper =
                PAPER.iter().find(is_papers).map_or("".to_owned(), |(_, _, figure)| format!("{figure:.2}"));
            let minutes = group.iter().map(|run| run.seconds).sum::<f64>() / group.len() as f64 / 60.0;
            let Outcome { preset, method, time_steps, epochs, batch, augment, .. } = first;
            let augmented = if *augment { ", augmented" } else { "" };
            writeln!(
                text,
                "| {preset}{augmented} | {method} | {time_steps} | {epochs} | {batch} | {} | {} | {paper} | {minutes:.1} |",
                seeds.join(" "),
                mean_and_deviation(&accuracies),
            )?;
        }
        Ok(text)
    }
}

/// Runs that differ in their seed alone, each seed once, its newest.
fn groups(outcomes: Vec<Outcome>) -> Vec<Vec<Outcome>> {
    let setting = |run: &Outcome| {
        let numbers = [run.lr, run.warm_up, run.momentum, run.weight_decay, run.dropout, run.lambda];
        let counts = (run.time_steps, run.epochs, run.batch, run.augment, run.images);
        format!("{} {} {counts:?} {numbers:?}", run.preset, run.method)
    };
    let mut groups: Vec<(String, Vec<Outcome>)> = Vec::new();
    for run in outcomes {
        let key = setting(&run);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => {
                group.retain(|other| other.seed != run.seed);
                group.push(run);
            }
            None => groups.push((key, vec![run])),
        }
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(_, group)| group).collect();
    groups.iter_mut().for_each(|group| group.sort_by_key(|run| run.seed));
    groups.sort_by_key(|group| (group[0].preset.clone(), group[0].method.clone(), group[0].epochs));
    groups
}

/// `90.40 ± 0.12`, the deviation being that of a sample.
fn mean_and_deviation(numbers: &[f64]) -> String {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    if numbers.len() < 2 {
        return format!("{mean:.2}");
    }
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    format!("{mean:.2} ± {:.2}", (squares / (count - 1.0)).sqrt())
}
