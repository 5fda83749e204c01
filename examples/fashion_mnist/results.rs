//! The folder that gathers the runs: a line a run, a line an epoch, and the table of them all.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::arguments::say;
use crate::options::Settings;
use crate::training::Progress;

/// All of Fashion-MNIST's training images.
const IMAGES: i64 = 60_000;

/// What the OTTT paper reports in percent: preset, method, figure. T = 5, 100 epochs in batches of 128.
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
    pub mean_image: bool,
    pub lambda: f64,
    pub augment: bool,
    pub k: Option<i64>,
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
    ///
    /// `config` is what its config.json says.
    pub fn start(&self, kind: &str, settings: &Settings, config: &impl Serialize) -> Result<String> {
        let Settings { preset, method, seed, .. } = settings;
        let stem = format!("{kind}{}-{}-seed{seed}", preset.name(), method.name());
        let mut names = (1..).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
        let name = names.find(|name| fs::create_dir(self.path(name)).is_ok() || !self.path(name).exists());
        let name = name.unwrap_or(stem);
        let config = serde_json::to_string_pretty(config)?;
        fs::write(self.path(&name).join("config.json"), config)
            .with_context(|| format!("{} cannot be written to", self.path(&name).display()))?;
        Ok(name)
    }

    /// Adds a line, whole, under the one header, also where runs side by side add theirs.
    pub fn append(&self, file: &str, row: &impl Serialize) -> Result<()> {
        let path = self.path(file);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        file.lock()?;
        let mut header = String::new();
        BufReader::new(&file).read_line(&mut header)?;
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(row)?;
        let text = String::from_utf8(writer.into_inner()?)?;
        let line = match text.strip_prefix(&header) {
            Some(line) => line,
            None => bail!("{} has other columns; choose another folder with --out", path.display()),
        };
        Ok(file.write_all(line.as_bytes())?)
    }

    pub fn add_epoch(&self, run: &str, settings: &Settings, epoch: u64, now: Progress) -> Result<()> {
        let Progress { loss, train_accuracy, test_accuracy, lr, seconds } = now;
        say(format_args!(
            "epoch {epoch:>3}  loss {loss:.4}  train accuracy {train_accuracy:.4}  test accuracy {test_accuracy:.4}  \
             {seconds:.1} s"
        ))?;
        let (run, preset, method) = (run.to_owned(), settings.preset.name(), settings.method.name());
        let seed = settings.seed;
        let epoch =
            Epoch { run, preset, method, seed, epoch, lr, loss, train_accuracy, test_accuracy, seconds };
        self.append("epochs.csv", &epoch)
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Vec<T>> {
        let path = self.path(file);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let file = File::open(&path)?;
        file.lock_shared()?;
        let rows: Result<Vec<T>, _> = csv::Reader::from_reader(file).into_deserialize().collect();
        rows.with_context(|| {
            format!("{} is not what this program writes; choose another folder with --out", path.display())
        })
    }

    /// The epochs of the runs in the table; of each network and method those of the row with the most epochs, of equals
    /// with the most seeds.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let groups = groups(self.read("results.csv")?);
        let kind = |group: &Vec<Outcome>| (group[0].preset.clone(), group[0].method.clone());
        let longest: HashMap<_, _> = groups.iter().map(|group| (kind(group), group)).collect();
        let runs: HashSet<&str> =
            longest.values().flat_map(|group| group.iter().map(|run| &*run.run)).collect();
        let mut epochs: Vec<Epoch> = self.read("epochs.csv")?;
        epochs.retain(|epoch| runs.contains(&*epoch.run));
        Ok(epochs)
    }

    /// A row for each setting: mean and standard deviation over its seeds, beside the paper's figure.
    pub fn table(&self) -> Result<String> {
        let mut text = String::from(
            "| network | method | T | epochs | batch | lr | weight decay | dropout | seeds | test accuracy (%) | paper (%) | minutes a run |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for group in groups(self.read("results.csv")?) {
            let accuracies: Vec<f64> = group.iter().map(|run| 100.0 * run.test_accuracy).collect();
            let seeds: Vec<String> = group.iter().map(|run| run.seed.to_string()).collect();
            let minutes = group.iter().map(|run| run.seconds).sum::<f64>() / group.len() as f64 / 60.0;
            let first = &group[0];
            let Outcome { preset, time_steps, epochs, batch, lr, weight_decay, dropout, .. } = first;
            writeln!(
                text,
                "| {preset} | {} | {time_steps} | {epochs} | {batch} | {lr} | {weight_decay} | {dropout} | {} | {} | {} | {minutes:.1} |",
                first.method_and_options(),
                seeds.join(" "),
                mean_and_deviation(&accuracies),
                first.paper().map_or("".to_owned(), |figure| format!("{figure:.2}")),
            )?;
        }
        Ok(text)
    }
}

impl Outcome {
    /// The method, and what has no column of its own where it is not as usual.
    fn method_and_options(&self) -> String {
        let usual_mean = self.preset != "conv";
        let options = [
            self.k.map(|k| format!("K {k}")),
            (self.mean_image != usual_mean).then(|| format!("mean image {}", self.mean_image)),
            (self.warm_up != 0.0).then(|| format!("warm-up {}", self.warm_up)),
            (self.momentum != 0.9).then(|| format!("momentum {}", self.momentum)),
            (self.lambda != 0.05).then(|| format!("lambda {}", self.lambda)),
            self.augment.then(|| "augmented".to_owned()),
            (self.images != IMAGES).then(|| format!("{} images", self.images)),
        ];
        [Some(self.method.clone())].into_iter().chain(options).flatten().collect::<Vec<_>>().join(", ")
    }

    /// What the paper reports of such a run.
    fn paper(&self) -> Option<f64> {
        let alike = (self.time_steps, self.epochs, self.batch, self.images) == (5, 100, 128, IMAGES);
        let row =
            PAPER.iter().find(|(preset, method, _)| (*preset, *method) == (&*self.preset, &*self.method));
        row.filter(|_| alike).map(|(.., figure)| *figure)
    }
}

/// Runs that differ in their seed alone, each seed once, its newest.
fn groups(outcomes: Vec<Outcome>) -> Vec<Vec<Outcome>> {
    let setting = |run: &Outcome| {
        let numbers = [run.lr, run.warm_up, run.momentum, run.weight_decay, run.dropout, run.lambda];
        let counts = (run.time_steps, run.epochs, run.batch, run.k, run.images, run.augment, run.mean_image);
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
    groups.sort_by_key(|group| {
        let Outcome { preset, method, epochs, .. } = &group[0];
        (preset.clone(), method.clone(), *epochs, group.len())
    });
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
