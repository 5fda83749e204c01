//! examples/train.rs, a process a fault.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use spiketrace::train::Checkpoint;
use spiketrace::StateDict;

use super::{each_fault, files, folder, Fault};
use crate::checkpoint::example;

/// Trains in `run`, or goes on where it has begun.
pub fn train(run: &Path) -> Command {
    let mut command = Command::new(example());
    match run.join("config.json").exists() {
        true => command.arg("--resume").arg(run),
        false => {
            let small = "--network mlp --time-steps 1 --batch 512 --epochs 2 --threads 1 --seed 3";
            command.args(small.split(' ')).arg("--out").arg(run)
        }
    };
    command
}

/// A run that failed has told so in one line, and holds nothing that is not whole.
pub fn failed_soundly(output: &Output, run: &Path) -> String {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("error: ") && told.lines().count() == 1, "{told}");
    if !run.exists() {
        return told;
    }
    assert!(run.join("config.json").exists(), "half a run was left: {told}");
    for (path, bytes) in files(run) {
        let full = run.join(&path);
        let whole = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
            Some("csv") => bytes.ends_with(b"\n"),
            Some("png") => bytes.ends_with(b"IEND\xae\x42\x60\x82"),
            Some("safetensors") if path.starts_with("checkpoints") => Checkpoint::read(full).is_ok(),
            Some("safetensors") => StateDict::read(full).is_ok(),
            _ => false,
        };
        assert!(whole, "{} is left, not whole: {told}", path.display());
    }
    told
}

/// The files of a run, without its speed.
fn outcome(run: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files(run).into_iter().filter(|(path, _)| path != Path::new("metrics.csv")).collect()
}

#[test]
#[ignore = "scripts/file-faults runs it"]
fn the_example_fails_in_one_line_and_goes_on() {
    let place = folder();
    let undisturbed = place.path().join("undisturbed");
    assert!(train(&undisturbed).status().unwrap().success());
    let expected = outcome(&undisturbed);
    // Once from the beginning, and once from after the first of two epochs.
    for begun in [false, true] {
        let count = each_fault(|fault: Fault| {
            let (folder, elsewhere) = (folder(), tempfile::tempdir().unwrap());
            let (run, fired) = (folder.path().join("run"), elsewhere.path().join("fired"));
            if begun {
                copy(&undisturbed, &run);
                fs::remove_file(run.join("checkpoints/checkpoint-000002-000000000.safetensors")).unwrap();
            }
            let mut command = train(&run);
            command.env("FAULT", fault.text()).env("FAULT_FOLDER", folder.path());
            command.env("FAULT_FIRED", &fired).env("FAULT_STDOUT", "1");
            let output = command.output().unwrap();
            if output.status.success() {
                assert!(outcome(&run) == expected, "{fault:?}: success with another outcome");
                return fired.exists();
            }
            assert!(fired.exists(), "{output:?}");
            fault.is_told_by(&failed_soundly(&output, &run));
            // Whatever it was, it is over now.
            if fault.error == super::ERRORS[0] {
                let output = train(&run).output().unwrap();
                assert!(output.status.success(), "{fault:?}: {output:?}");
                assert!(outcome(&run) == expected, "{fault:?}: another outcome than undisturbed");
            }
            true
        });
        println!("examples/train {}: {count} faults", if begun { "--resume" } else { "--out" });
    }
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
