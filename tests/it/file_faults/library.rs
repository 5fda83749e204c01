//! The library's own reading and writing.

use std::path::Path;

use spiketrace::data::mnist;
use spiketrace::train::{Adam, AdamConfig, Checkpoint};
use spiketrace::{Monitor, MonitorConfig, OtttSequential, Result, ScriptModule, StateDict};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

use super::{each_fault, files, folder, with_fault};
use crate::common::FLOAT;

/// Writes over what `old` left: after each fault each file must be the old or the new one.
fn writing(name: &str, old: impl Fn(&Path), new: impl Fn(&Path) -> Result<()>) {
    let [before, after] = [false, true].map(|both| {
        let folder = folder();
        old(folder.path());
        if both {
            new(folder.path()).unwrap();
        }
        files(folder.path())
    });
    assert_ne!(before, after, "{name} writes nothing");
    let count = each_fault(|fault| {
        let folder = folder();
        old(folder.path());
        let (result, happened) = with_fault(fault, || new(folder.path()));
        let now = files(folder.path());
        match result {
            Ok(()) => assert!(now == after, "{name}, {fault:?}: success, but something else is there"),
            Err(error) => {
                assert!(happened, "{name}: {error}");
                fault.is_told_by(&error.to_string());
                for (path, bytes) in &now {
                    let whole = [&before, &after].iter().any(|files| files.get(path) == Some(bytes));
                    assert!(whole, "{name}, {fault:?}: {} is neither old nor new", path.display());
                }
                let kept = before.keys().filter(|path| after.contains_key(*path));
                kept.for_each(|path| assert!(now.contains_key(path), "{name}, {fault:?}: {path:?} is gone"));
            }
        }
        happened
    });
    println!("{name}: {count} faults");
}

/// Reads what `make` made: after each fault that must have been an error, or the whole.
fn reading<T: PartialEq>(name: &str, make: impl Fn(&Path), read: impl Fn(&Path) -> Result<T>) {
    let folder = folder();
    make(folder.path());
    let whole = read(folder.path()).unwrap();
    let before = files(folder.path());
    let count = each_fault(|fault| {
        let (result, happened) = with_fault(fault, || read(folder.path()));
        match result {
            Ok(got) => assert!(got == whole, "{name}, {fault:?}: success, but something else was read"),
            Err(error) => {
                assert!(happened, "{name}: {error}");
                fault.is_told_by(&error.to_string());
            }
        }
        assert!(files(folder.path()) == before);
        happened
    });
    println!("{name}: {count} faults");
}

/// More than the writer's buffer holds.
fn weights(value: f64) -> StateDict {
    let mut state = StateDict::default();
    for (name, len) in [("small", 3), ("large", 1 << 17), ("other", 1 << 10)] {
        state.insert(name, &Tensor::full([len], value, FLOAT));
    }
    state
}

fn values(state: &StateDict) -> Vec<(String, Vec<f32>)> {
    state
        .iter()
        .map(|(name, tensor)| (name.to_owned(), Vec::try_from(tensor.flatten(0, -1)).unwrap()))
        .collect()
}

fn save(folder: &Path, epoch: u64) -> Result<()> {
    let vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new().add(nn::linear(vs.root(), 300, 300, Default::default()));
    vs.trainable_variables()
        .iter()
        .for_each(|w| drop(tch::no_grad(|| w.shallow_clone().fill_(epoch as f64))));
    let adam = Adam::new(&vs.trainable_variables(), AdamConfig::default())?;
    // The generator's state is in it.
    tch::manual_seed(1);
    let mut checkpoint = Checkpoint::of(&mut net, &adam)?;
    checkpoint.epoch = epoch;
    checkpoint.save_in(folder, 2).map(drop)
}

fn module(name: &str) -> Result<(VarStore, ScriptModule)> {
    let vs = VarStore::new(Device::Cpu);
    let path = crate::parity::fixture::folder().join("script_modules").join(name);
    let module = ScriptModule::load(vs.root(), path, Default::default())?;
    Ok((vs, module))
}

#[test]
#[ignore = "scripts/file-faults runs it"]
fn writing_is_whole_or_not_at_all() {
    for ending in ["safetensors", "pt"] {
        let write = |folder: &Path, value| weights(value).write(folder.join(format!("w.{ending}")));
        writing(&format!("a new .{ending}"), |_| {}, |folder| write(folder, 2.0));
        writing(ending, |folder| write(folder, 1.0).unwrap(), |folder| write(folder, 2.0));
    }
    let old = |folder: &Path| (1..=3).for_each(|epoch| save(folder, epoch).unwrap());
    writing("the first save_in", |_| {}, |folder| save(&folder.join("new"), 1));
    writing("save_in", old, |folder| save(folder, 4));
    let write = |folder: &Path, name: &str| module(name).unwrap().1.save(folder.join("module.pt"));
    writing("ScriptModule::save", |f| write(f, "mlp.f32.pt").unwrap(), |f| write(f, "block.f32.pt"));
    let monitor = Monitor::new(MonitorConfig::default()).unwrap();
    let old = |folder: &Path| std::fs::write(folder.join("monitor.csv"), "old").unwrap();
    writing("Monitor::write_csv", old, |folder| monitor.write_csv(folder.join("monitor.csv")));
}

#[test]
#[ignore = "scripts/file-faults runs it"]
fn reading_is_whole_or_an_error() {
    for ending in ["safetensors", "pt"] {
        let path = |folder: &Path| folder.join(format!("w.{ending}"));
        reading(
            ending,
            |folder| weights(1.0).write(path(folder)).unwrap(),
            |folder| StateDict::read(path(folder)).map(|state| values(&state)),
        );
    }
    reading(
        "latest",
        |folder| (1..=3).for_each(|epoch| save(folder, epoch).unwrap()),
        |folder| {
            Ok(Checkpoint::latest(folder)?.map(|checkpoint| (checkpoint.epoch, values(checkpoint.weights()))))
        },
    );
    reading(
        "ScriptModule::load",
        |folder| module("mlp.f32.pt").unwrap().1.save(folder.join("module.pt")).unwrap(),
        |folder| {
            let vs = VarStore::new(Device::Cpu);
            ScriptModule::load(vs.root(), folder.join("module.pt"), Default::default())?;
            Ok(values(&vs.variables().into_iter().collect()).len())
        },
    );
    let idx = |size: &[u32], values: &[u8]| {
        let header = size.iter().flat_map(|dim| dim.to_be_bytes());
        [0, 0, 8, size.len() as u8]
            .into_iter()
            .chain(header)
            .chain(values.iter().copied())
            .collect::<Vec<_>>()
    };
    reading(
        "mnist",
        |folder| {
            for part in ["train", "t10k"] {
                let write =
                    |name: &str, bytes| std::fs::write(folder.join(format!("{part}-{name}")), bytes).unwrap();
                write("images-idx3-ubyte", idx(&[2, 2, 2], &[7; 8]));
                write("labels-idx1-ubyte", idx(&[2], &[1, 2]));
            }
        },
        |folder| mnist(folder).map(|data| Vec::<i64>::try_from(data.test_labels).unwrap()),
    );
}
