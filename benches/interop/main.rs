//! Our side of `scripts/interop-check`: reads what `reference.py` wrote into a folder, compares, and writes its own.
//!
//! `interop FOLDER` prints lines `row PART WHAT FILES WORST TOLERANCE`, separated by tabs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use spiketrace::model::VggStage::{AvgPool, Conv};
use spiketrace::model::{
    from_ottt_snn, OtttSpikingVgg, OtttSpikingVggConfig, VggArchitecture, VggClassifier,
};
use spiketrace::train::{ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update};
use spiketrace::{
    Flatten, LoadConfig, OnlineModule, OtttLifNode, OtttSequential, Part, ReadConfig, ScriptConfig,
    ScriptModule, StateDict,
};
use tch::nn::{Path as Variables, VarStore};
use tch::{Device, Kind, Tensor};

const TIME_STEPS: i64 = 6;
/// The modules that Python scripted, by their places in the network.
const SCRIPTS: [(i64, &str); 4] = [(0, "conv"), (2, "pool"), (3, "block"), (6, "mlp")];

/// A file of weights.
#[derive(serde::Deserialize)]
struct Entry {
    file: String,
    /// The kind of its numbers: f32, f64, f16, bf16.
    variant: String,
    key: Option<String>,
    /// Whether its names are OTTT-SNN's.
    authors: bool,
}

fn main() -> Result<()> {
    let Some(folder) = std::env::args().skip(1).find(|argument| argument != "--bench") else {
        println!("run scripts/interop-check, which starts this and the reference in turn");
        return Ok(());
    };
    let folder = Path::new(&folder);
    tch::set_num_threads(1);
    std::fs::create_dir(folder.join("ours"))?;
    let mut table = Table::default();
    let files: Vec<Entry> = serde_json::from_str(&std::fs::read_to_string(folder.join("plan.json"))?)?;
    for entry in &files {
        weights(folder, entry, &mut table).with_context(|| entry.file.clone())?;
    }
    for variant in ["f32", "f64"] {
        write_weights(folder, variant)?;
        scripts(folder, variant, &mut table)?;
    }
    table.print();
    Ok(())
}

fn vgg(vs: &Variables) -> spiketrace::Result<OtttSpikingVgg> {
    let cfg = &[Conv(6), AvgPool, Conv(8)];
    let architecture =
        VggArchitecture { cfg, weight_standardization: true, classifier: VggClassifier::Light };
    let config = OtttSpikingVggConfig { num_classes: 5, in_channels: 2, fc_hw: 2, ..Default::default() };
    OtttSpikingVgg::new(vs, architecture, config)
}

/// Loads a file and compares what the network then answers and learns.
fn weights(folder: &Path, entry: &Entry, table: &mut Table) -> Result<()> {
    let mut vs = VarStore::new(Device::Cpu);
    if entry.variant == "f64" {
        vs.set_kind(Kind::Double);
    }
    let mut net = vgg(&vs.root())?;
    let mut state = StateDict::read_with(folder.join(&entry.file), ReadConfig { key: entry.key.clone() })?;
    if entry.authors {
        state = state.iter().map(|(name, tensor)| (from_ottt_snn(name), tensor.shallow_clone())).collect();
    }
    let strict = entry.variant.starts_with("f32") || entry.variant.starts_with("f64");
    let report = state.load_into(&net.variables(), LoadConfig { strict })?;
    let whole = report.missing.is_empty() && report.unexpected.is_empty() && report.other_shape.is_empty();
    ensure!(whole && report.loaded.len() == net.variables().len(), "{report}");
    let expected = read(folder, &format!("{}.safetensors", entry.variant))?;
    compare(&mut net, &vs, &expected, "a", &entry.variant, table)
}

/// Answers in evaluation; outputs, loss and all gradients in training.
fn compare(
    net: &mut impl OnlineModule,
    vs: &VarStore,
    expected: &HashMap<String, Tensor>,
    part: &'static str,
    variant: &str,
    table: &mut Table,
) -> Result<()> {
    let get = |name: &str| expected.get(name).with_context(|| format!("the reference has no {name}"));
    let x_seq = get("x")?;
    let target_seq = repeat_over_time(get("target")?, TIME_STEPS)?;
    let loss = OtttLoss::new(0.05, TIME_STEPS)?;
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    // The script modules' statistics move in training, and their answers are of behind it.
    if part == "a" {
        table.add(part, "answers", variant, &answers(net, x_seq)?, get("logits")?)?;
    }
    let mut still = Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.0, ..Default::default() })?;
    let out = ottt_online_training(net, &mut still, x_seq, &target_seq, loss, Update::EndOfSequence)?;
    net.reset();
    table.add(part, "outputs in training", variant, &out.outputs, get("outputs")?)?;
    table.add(part, "losses", variant, &out.loss, get("loss")?)?;
    for p in net.parameters() {
        table.add(part, "gradients", variant, &p.tensor.grad(), get(&format!("grad.{}", p.name))?)?;
    }
    if part == "c" {
        table.add(part, "answers", variant, &answers(net, x_seq)?, get("eval_outputs")?)?;
    }
    table.count(part, variant);
    Ok(())
}

/// Trains on what Python trained, and writes it for Python with some answers.
fn write_weights(folder: &Path, variant: &str) -> Result<()> {
    let mut vs = VarStore::new(Device::Cpu);
    if variant == "f64" {
        vs.set_kind(Kind::Double);
    }
    let mut net = vgg(&vs.root())?;
    let state = StateDict::read(folder.join(variant).join("state_dict.pth"))?;
    state.load_into(&net.variables(), LoadConfig::default())?;
    let given = read(folder, &format!("{variant}.safetensors"))?;
    train_on(&mut net, &vs, &given)?;
    for ending in ["pt", "pth", "bin", "safetensors"] {
        StateDict::of(&net.variables()).write(folder.join("ours").join(format!("{variant}.{ending}")))?;
    }
    write_answers(folder, &format!("ours.{variant}.safetensors"), &mut net, &given["inputs"])
}

/// Scripted modules in a network: compared, trained on, and written.
fn scripts(folder: &Path, variant: &str, table: &mut Table) -> Result<()> {
    let vs = VarStore::new(Device::Cpu);
    let load = |(place, name): (i64, &str)| {
        let file = if name == "pool" { "pool.pt".to_owned() } else { format!("{name}.{variant}.pt") };
        ScriptModule::load(vs.root() / place, folder.join(file), ScriptConfig::default())
    };
    let modules: Vec<ScriptModule> = SCRIPTS.into_iter().map(load).collect::<Result<_, _>>()?;
    let mut net = OtttSequential::new()
        .add(modules[0].shallow_clone())
        .add(OtttLifNode::new(Default::default())?)
        .add(modules[1].shallow_clone())
        .add(modules[2].shallow_clone())
        .add(OtttLifNode::new(Default::default())?)
        .add(Flatten::default())
        .add(modules[3].shallow_clone());
    let given = read(folder, &format!("scripts.{variant}.safetensors"))?;
    compare(&mut net, &vs, &given, "c", variant, table)?;
    train_on(&mut net, &vs, &given)?;
    for (module, (_, name)) in modules.iter().zip(SCRIPTS) {
        module.save(folder.join("ours").join(format!("{name}.{variant}.pt")))?;
    }
    write_answers(folder, &format!("our_scripts.{variant}.safetensors"), &mut net, &given["inputs"])
}

/// Three sequences, the weights moving after every time step.
fn train_on(net: &mut impl OnlineModule, vs: &VarStore, given: &HashMap<String, Tensor>) -> Result<()> {
    let config = SgdConfig { lr: 0.05, momentum: 0.9, ..Default::default() };
    let mut sgd = Sgd::new(&vs.trainable_variables(), config)?;
    let loss = OtttLoss::new(0.05, TIME_STEPS)?;
    let target_seq = repeat_over_time(&given["target"], TIME_STEPS)?;
    for _ in 0..3 {
        let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        ottt_online_training(net, &mut sgd, &given["x"], &target_seq, loss, Update::EveryStep)?;
        net.reset();
    }
    Ok(())
}

fn write_answers(folder: &Path, file: &str, net: &mut impl OnlineModule, inputs: &Tensor) -> Result<()> {
    let answers = answers(net, inputs)?;
    let named = [("inputs", inputs), ("logits", &answers)];
    Ok(Tensor::write_safetensors(&named, folder.join(file))?)
}

/// What the network answers at each step of `[B, T, ...]`, in evaluation.
fn answers(net: &mut impl OnlineModule, x_seq: &Tensor) -> Result<Tensor> {
    net.reset();
    let _no_grad = tch::no_grad_guard();
    let step = |t| net.step(&x_seq.select(1, t).into(), false).map(|y| y.into_value());
    let steps: Vec<Tensor> = (0..TIME_STEPS).map(step).collect::<Result<_, _>>()?;
    net.reset();
    Ok(Tensor::stack(&steps, 1))
}

fn read(folder: &Path, file: &str) -> Result<HashMap<String, Tensor>> {
    Ok(Tensor::read_safetensors(folder.join(file))?.into_iter().collect())
}

/// The worst relative difference of each comparison, by part, what, and variant.
#[derive(Default)]
struct Table {
    worst: BTreeMap<(&'static str, &'static str, String), f64>,
    files: BTreeMap<(&'static str, String), usize>,
}

impl Table {
    fn add(
        &mut self,
        part: &'static str,
        what: &'static str,
        variant: &str,
        got: &Tensor,
        expected: &Tensor,
    ) -> Result<()> {
        ensure!(got.defined(), "{what}: none");
        ensure!(
            got.size() == expected.size() && got.kind() == expected.kind(),
            "{what}: of another shape or kind"
        );
        let difference = (got - expected).abs().max() / expected.abs().max();
        let difference = f64::try_from(difference)?;
        let worst = self.worst.entry((part, what, variant.to_owned())).or_default();
        // NaN counts as the worst.
        *worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
        Ok(())
    }

    fn count(&mut self, part: &'static str, variant: &str) {
        *self.files.entry((part, variant.to_owned())).or_default() += 1;
    }

    fn print(&self) {
        for ((part, what, variant), worst) in &self.worst {
            let files = self.files[&(*part, variant.clone())] * if *part == "c" { SCRIPTS.len() } else { 1 };
            let tolerance = if variant == "f64" { 1e-5 } else { 1e-4 };
            println!("row\t{part}\t{what}, {variant}\t{files}\t{worst:e}\t{tolerance:e}");
        }
    }
}
