//! The command lines of examples/train.rs and examples/fashion_mnist.rs, which cargo builds beside the tests.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;

fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push(format!("examples/{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "no {}; `cargo test` without `--test` builds it", path.display());
    Command::new(path)
}

/// The arguments, and words of the sentence they must lead to. FOLDER holds one file, FILE.
#[rstest]
#[case::negative_time(&["--time-steps", "-1"], "-1 is not in 1..")]
#[case::no_epochs(&["--epochs", "0"], "0 is not in 1..")]
#[case::empty_batch(&["--batch", "0"], "0 is not in 1..")]
#[case::lr_nan(&["--lr", "NaN"], "expected a number above 0")]
#[case::lambda(&["--lambda", "2"], "expected a number from 0 to 1")]
#[case::threads(&["--threads", "0"], "0 is not in 1..")]
#[case::network(&["--network", "vgg"], "[possible values: mlp, conv]")]
#[case::device(&["--device", "tpu"], "expected auto, cpu, cuda or cuda:N")]
#[case::device_number(&["--device", "cuda:99"], "there is no CUDA")]
#[case::digits_from_a_folder(&["--data-dir", "FOLDER"], "--data-dir goes with mnist and fashion-mnist")]
#[case::mnist_from_nowhere(&["--dataset", "mnist"], "say with --data-dir where MNIST's four IDX files lie")]
#[case::mnist_from_a_wrong_folder(&["--dataset", "mnist", "--data-dir", "FOLDER"], "is missing, and so is its .gz form")]
#[case::mnist_from_a_file(&["--dataset", "mnist", "--data-dir", "FILE"], "is not a folder")]
#[case::output_in_a_file(&["--out", "FILE"], "is not a folder; choose another with --out")]
#[case::output_below_a_file(&["--out", "FILE/run"], "cannot be written to; choose another with --out")]
#[case::output_over_something_else(&["--epochs", "1", "--out", "FOLDER/other"], "is not empty; choose another folder with --out")]
#[case::output_over_a_run(&["--out", "FOLDER"], "already holds a run")]
#[case::resumed_from_nowhere(&["--resume", "FOLDER/nowhere"], "holds no run to go on with")]
#[case::resumed_from_half_a_run(&["--resume", "FOLDER"], "holds no run to go on with")]
#[case::resumed_with_other_options(&["--resume", "FOLDER", "--epochs", "3"], "cannot be used with")]
fn a_wrong_command_line_is_one_sentence_and_a_failure(#[case] arguments: &[&str], #[case] words: &str) {
    fails("train", arguments, words);
}

#[rstest]
#[case::no_time(&["--time-steps", "0"], "0 is not in 1..")]
#[case::dropout_of_all(&["--dropout", "1"], "expected a number from 0 to below 1")]
#[case::lr(&["--lr", "-1"], "expected a number above 0")]
#[case::method(&["--method", "ottt-a,rtrl"], "[possible values: ottt-a, ottt-o, ndot-a, ndot-o, sltt, sltt-k, bptt]")]
#[case::all_warm_up(&["--warm-up", "2", "--epochs", "2"], "--warm-up must be below --epochs, 2")]
#[case::seeds(&["--seeds", "1,two"], "invalid digit")]
#[case::wrong_folder(&["--data-dir", "FOLDER"], "is missing, and so is its .gz form")]
fn a_wrong_command_line_of_fashion_mnist_too(#[case] arguments: &[&str], #[case] words: &str) {
    fails("fashion_mnist", arguments, words);
}

fn fails(name: &str, arguments: &[&str], words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics.csv");
    fs::write(&file, "").unwrap();
    fs::create_dir_all(folder.path().join("other/kept")).unwrap();
    let place = |argument: &&str| {
        let text = argument.replace("FOLDER", folder.path().to_str().unwrap());
        text.replace("FILE", file.to_str().unwrap())
    };
    let run = example(name).args(arguments.iter().map(place)).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(!run.status.success());
    assert!(stderr.contains(words), "{words:?} not in: {stderr}");
    assert!(!stderr.contains("panicked") && stderr.to_lowercase().starts_with("error"), "{stderr}");
    assert!(!folder.path().join("runs").exists(), "nothing is left behind");
}
