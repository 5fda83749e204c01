//! A disk that is really full: scripts/file-faults mounts a small one at FAULT_DISK.

use std::fs;
use std::path::{Path, PathBuf};

use spiketrace::{Error, StateDict};
use tch::Tensor;

use super::example::{failed_soundly, train};
use super::files;
use crate::common::FLOAT;

fn disk() -> PathBuf {
    std::env::var_os("FAULT_DISK").expect("scripts/file-faults runs this").into()
}

/// Fills the disk but for about so many bytes.
fn fill(disk: &Path, free: usize) {
    let filler = disk.join("filler");
    let mut bytes = vec![0; 64 << 20];
    while fs::write(&filler, &bytes).is_err() {
        let len = fs::metadata(&filler).map_or(0, |filler| filler.len() as usize);
        bytes.truncate(len.saturating_sub(free));
    }
}

fn clear(disk: &Path) {
    for entry in fs::read_dir(disk).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
}

#[test]
#[ignore = "scripts/file-faults runs it"]
fn a_full_disk_leaves_the_old_file() {
    let disk = disk();
    let weights = |value| {
        let mut state = StateDict::default();
        state.insert("w", &Tensor::full([1 << 16], value, FLOAT));
        state
    };
    for ending in ["safetensors", "pt"] {
        let (mut failed, mut done) = (0, 0);
        for free in (0..=400 << 10).step_by(20 << 10) {
            clear(&disk);
            let path = disk.join(format!("w.{ending}"));
            weights(1.0).write(&path).unwrap();
            fill(&disk, free);
            let expected = match weights(2.0).write(&path) {
                Ok(()) => {
                    done += 1;
                    2.0
                }
                Err(error) => {
                    failed += 1;
                    let text = error.to_string();
                    let Error::Data { io: Some(io), .. } = error else { panic!("{text}") };
                    assert_eq!(io.kind(), std::io::ErrorKind::StorageFull);
                    1.0
                }
            };
            assert_eq!(StateDict::read(&path).unwrap().get("w").unwrap().double_value(&[0]), expected);
            assert_eq!(files(&disk).len(), 2, "something was left");
        }
        assert!(failed > 0 && done > 0, "{failed} failed, {done} did not");
        println!("{ending}: {failed} of {} disks were full", failed + done);
    }
    clear(&disk);
}

#[test]
#[ignore = "scripts/file-faults runs it"]
fn the_example_on_a_full_disk_fails_in_one_line() {
    let disk = disk();
    let (mut failed, mut done) = (0, 0);
    for free in (0..=800 << 10).step_by(50 << 10) {
        clear(&disk);
        fill(&disk, free);
        let run = disk.join("run");
        let output = train(&run).output().unwrap();
        if output.status.success() {
            done += 1;
        } else {
            failed += 1;
            let told = failed_soundly(&output, &run);
            assert!(told.contains("No space left on device"), "{told}");
        }
    }
    clear(&disk);
    assert!(failed > 0 && done > 0, "{failed} failed, {done} did not");
    println!("examples/train: {failed} of {} disks were full", failed + done);
}
