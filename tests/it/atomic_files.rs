//! Several writers of one file or of one folder, threads and processes: nobody ever sees half a file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spiketrace::train::{Checkpoint, Sgd, SgdConfig};
use spiketrace::{OtttSequential, StateDict};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

use crate::common::FLOAT;

/// Where a writer in a process of its own is to write.
const PLACE: &str = "SPIKETRACE_TEST_WRITES";

/// Each writer's weights are all of one value.
fn weights(value: f64) -> StateDict {
    let mut state = StateDict::default();
    state.insert("w", &Tensor::full([1 << 16], value, FLOAT));
    state
}

fn write_often(path: &Path, value: f64) {
    let state = weights(value);
    (0..40).for_each(|_| state.write(path).unwrap());
}

/// Reads the file until `done`, and fails where it is ever anything else than one writer's.
fn read_while(path: &Path, mut done: impl FnMut() -> bool) {
    while !done() {
        let state = StateDict::read(path).unwrap();
        let w = state.get("w").unwrap();
        assert_eq!(w.min(), w.max(), "a mixture of two writers");
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn threads_that_write_one_file_never_show_half_of_it() {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["safetensors", "pt"] {
        let path = folder.path().join(format!("w.{ending}"));
        weights(0.0).write(&path).unwrap();
        std::thread::scope(|scope| {
            let writers = [1.0, 2.0, 3.0].map(|value| {
                scope.spawn({
                    let path = &path;
                    move || write_often(path, value)
                })
            });
            read_while(&path, || writers.iter().all(|writer| writer.is_finished()));
        });
    }
    assert_eq!(count(folder.path()), 2, "something was left");
}

#[test]
fn processes_that_write_one_file_never_show_half_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    weights(0.0).write(&path).unwrap();
    let mut writers: Vec<_> = (0..2)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "atomic_files::writer", "--ignored", "--test-threads=1"]);
            command.env(PLACE, &path).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let mut ended = vec![None; writers.len()];
    read_while(&path, || {
        for (ended, writer) in ended.iter_mut().zip(&mut writers) {
            *ended = ended.or_else(|| writer.try_wait().unwrap());
        }
        ended.iter().all(Option::is_some)
    });
    assert!(ended.iter().flatten().all(|status| status.success()));
    assert_ne!(StateDict::read(&path).unwrap().get("w").unwrap().double_value(&[0]), 0.0, "nobody wrote");
    assert_eq!(count(folder.path()), 1, "something was left");
}

/// One of the processes of the test above.
#[test]
#[ignore = "does nothing by itself"]
fn writer() {
    if let Some(path) = std::env::var_os(PLACE) {
        write_often(&PathBuf::from(path), f64::from(std::process::id()));
    }
}

#[test]
fn trainings_that_save_into_one_folder_do_not_remove_what_the_other_is_writing() {
    let folder = tempfile::tempdir().unwrap();
    let save = |offset: u64| {
        let vs = VarStore::new(Device::Cpu);
        let mut net = OtttSequential::new().add(nn::linear(vs.root(), 64, 64, Default::default()));
        let sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default()).unwrap();
        for epoch in 1..=20 {
            let mut checkpoint = Checkpoint::of(&mut net, &sgd).unwrap();
            (checkpoint.epoch, checkpoint.step) = (epoch, offset);
            checkpoint.save_in(&folder, 4).unwrap();
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|offset| {
            drop(scope.spawn({
                let save = &save;
                move || save(offset)
            }))
        })
    });
    assert_eq!(Checkpoint::latest(&folder).unwrap().unwrap().epoch, 20);
    let leftover = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().ends_with(".partial")
    };
    assert!(!std::fs::read_dir(&folder).unwrap().any(leftover));
}

/// A link like /dev/stdout leads to what has no path.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_is_written_to_by_its_name() {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    let (mut from, to) = std::io::pipe().unwrap();
    let monitor = spiketrace::Monitor::new(Default::default()).unwrap();
    monitor.write_csv(format!("/proc/self/fd/{}", to.as_raw_fd())).unwrap();
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    assert_eq!(text, "call,name,quantity,value\n");
}

#[test]
fn a_name_may_be_as_long_as_the_filesystem_allows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{}.csv", "n".repeat(251)));
    spiketrace::Monitor::new(Default::default()).unwrap().write_csv(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "call,name,quantity,value\n");
}
