//! Training that stops, at any moment, and goes on as if it never had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use spiketrace::train::{
    ottt_online_training, repeat_over_time, Adam, AdamConfig, Checkpoint, Optimizer, OtttLoss, Sgd,
    SgdConfig, Update,
};
use spiketrace::{
    ws_linear, Dropout, Feedback, NdotLifNode, OtttLifNode, OtttSequential, Part, SlttLifConfig, SlttLifNode,
    StateDict,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, numbers};
use crate::parity::fixture::folder;
use crate::state_dict::hex;

/// A network with running statistics.
pub fn network() -> (VarStore, OtttSequential) {
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let net = OtttSequential::new()
        .add(nn::linear(&p / 0, 6, 16, Default::default()))
        .add(nn::batch_norm1d(&p / 1, 16, Default::default()))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(nn::linear(&p / 3, 16, 3, Default::default()));
    (vs, net)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sort {
    Plain,
    Momentum,
    Adam,
}

fn optimizer(vs: &VarStore, sort: Sort) -> Box<dyn Optimizer> {
    let parameters = vs.trainable_variables();
    let momentum = if sort == Sort::Momentum { 0.9 } else { 0.0 };
    match sort {
        Sort::Adam => Box::new(Adam::new(&parameters, AdamConfig::default()).unwrap()),
        _ => Box::new(Sgd::new(&parameters, SgdConfig { lr: 0.1, momentum, ..Default::default() }).unwrap()),
    }
}

/// One sequence; the membranes live on over several.
pub fn train(net: &mut OtttSequential, optimizer: &mut dyn Optimizer, number: i64) {
    let loss = OtttLoss::new(0.05, 3).unwrap();
    // Numbers of its own, since the random generator is everybody's in this process.
    let x = (Tensor::arange(8 * 3 * 6, (Kind::Float, Device::Cpu)) * (number + 3) as f64).sin().abs() * 2.0;
    let x = x.view([8, 3, 6]);
    let label = Tensor::arange(8, (Kind::Int64, Device::Cpu)).remainder(3);
    let label = repeat_over_time(&label, 3).unwrap();
    ottt_online_training(net, optimizer, &x, &label, |y, l| loss.forward(y, l), Update::EveryStep).unwrap();
}

/// All that training has made.
pub fn bits(net: &mut OtttSequential, optimizer: &dyn Optimizer) -> Vec<String> {
    let mut bits: Vec<String> = net.variables().iter().map(|p| hex(&p.tensor)).collect();
    bits.extend(optimizer.state().unwrap().iter().map(|(name, tensor)| format!("{name} {}", hex(tensor))));
    bits.extend(net.memories().into_iter().filter_map(|m| m.get()).map(hex));
    bits
}

#[rstest]
fn a_training_goes_on_from_a_file_as_if_it_had_not_stopped(
    #[values(Sort::Plain, Sort::Momentum, Sort::Adam)] sort: Sort,
) {
    let folder = tempfile::tempdir().unwrap();
    let (vs, mut net) = network();
    let mut own = optimizer(&vs, sort);
    for number in 0..5 {
        train(&mut net, &mut *own, number);
        if number == 1 {
            let mut checkpoint = Checkpoint::of(&mut net, &*own).unwrap();
            (checkpoint.epoch, checkpoint.step, checkpoint.config) = (2, 7, "{\"lr\": 0.1}\n".into());
            checkpoint.save_in(&folder, 1).unwrap();
        }
    }
    let whole = bits(&mut net, &*own);

    let (vs, mut net) = network();
    let mut own = optimizer(&vs, sort);
    assert_ne!(bits(&mut net, &*own), whole);
    let checkpoint = Checkpoint::latest(&folder).unwrap().unwrap();
    assert_eq!((checkpoint.epoch, checkpoint.step, &*checkpoint.config), (2, 7, "{\"lr\": 0.1}\n"));
    checkpoint.restore(&mut net, &mut *own).unwrap();
    (2..5).for_each(|number| train(&mut net, &mut *own, number));
    assert_eq!(bits(&mut net, &*own), whole);
}

#[test]
fn a_checkpoint_is_a_copy() {
    let (vs, mut net) = network();
    let mut own = optimizer(&vs, Sort::Momentum);
    train(&mut net, &mut *own, 0);
    let before = bits(&mut net, &*own);
    let checkpoint = Checkpoint::of(&mut net, &*own).unwrap();
    train(&mut net, &mut *own, 1);
    assert_ne!(bits(&mut net, &*own), before);
    checkpoint.restore(&mut net, &mut *own).unwrap();
    assert_eq!(bits(&mut net, &*own), before);
}

#[rstest]
#[case::another_optimizer(Sort::Adam, "a name in Sgd's state is 0.")]
#[case::the_other_way(Sort::Momentum, "Adam's state")]
fn a_checkpoint_that_does_not_fit_changes_nothing(#[case] kept: Sort, #[case] words: &str) {
    let (vs, mut net) = network();
    let mut own = optimizer(&vs, kept);
    train(&mut net, &mut *own, 0);
    let checkpoint = Checkpoint::of(&mut net, &*own).unwrap();
    train(&mut net, &mut *own, 1);
    let mut other = optimizer(&vs, if kept == Sort::Adam { Sort::Momentum } else { Sort::Adam });
    let before = bits(&mut net, &*other);
    let text = checkpoint.restore(&mut net, &mut *other).unwrap_err().to_string();
    assert!(text.contains(words), "{text}");
    assert_eq!(bits(&mut net, &*other), before);

    let wide = VarStore::new(Device::Cpu);
    let mut wide_net = OtttSequential::new().add(nn::linear(wide.root(), 6, 17, Default::default()));
    let mut own = optimizer(&wide, kept);
    let before = bits(&mut wide_net, &*own);
    let text = checkpoint.restore(&mut wide_net, &mut *own).unwrap_err().to_string();
    assert!(text.contains("does not fit the model"), "{text}");
    assert_eq!(bits(&mut wide_net, &*own), before);
}

/// Files and other processes hand on values, not strides; libtorch's fused optimizers go by address.
#[rstest]
fn an_optimizers_state_is_laid_out_as_its_parameters(#[values(Sort::Momentum, Sort::Adam)] sort: Sort) {
    let values = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    let weight = || {
        let vs = VarStore::new(Device::Cpu);
        let permuted = values.permute([2, 0, 1]).contiguous().permute([1, 2, 0]);
        let _ = vs.root().add("0", permuted.set_requires_grad(true), true);
        vs
    };
    let step = |vs: &VarStore, own: &mut dyn Optimizer| {
        own.zero_grad().unwrap();
        let weight = &vs.trainable_variables()[0];
        (weight * weight * &values).sum(Kind::Float).backward();
        own.step().unwrap();
        weight.detach().copy()
    };
    let vs = weight();
    let mut own = optimizer(&vs, sort);
    let _ = step(&vs, &mut *own);
    let copied = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.contiguous().copy());
    let state: StateDict = own.state().unwrap().iter().map(copied).collect();
    let other = weight();
    let mut restored = optimizer(&other, sort);
    restored.load_state(&state).unwrap();
    tch::no_grad(|| other.trainable_variables()[0].copy_(&vs.trainable_variables()[0]));
    assert_ne!(vs.trainable_variables()[0].stride(), [12, 4, 1]);
    assert_eq!(step(&other, &mut *restored), step(&vs, &mut *own));
}

#[test]
fn tchs_optimizers_cannot_be_kept() {
    let (vs, mut net) = network();
    let adam = nn::adam(0.9, 0.999, 0.0).build(&vs, 1e-3).unwrap();
    let text = Checkpoint::of(&mut net, &adam).unwrap_err().to_string();
    assert!(text.contains("such as Sgd or Adam"), "{text}");
}

/// A folder with the checkpoints of epochs 1 to `count`, of which two are kept.
fn kept(count: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (vs, mut net) = network();
    let own = optimizer(&vs, Sort::Momentum);
    fs::write(folder.path().join(".checkpoint-000001-000000000.safetensors.1.partial"), "half of one")
        .unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    for epoch in 1..=count {
        let mut checkpoint = Checkpoint::of(&mut net, &*own).unwrap();
        checkpoint.epoch = epoch;
        checkpoint.save_in(&folder, 2).unwrap();
    }
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_newest_are_kept_and_nothing_of_others_is_touched() {
    let folder = kept(12);
    let name = |epoch: u64| format!("checkpoint-{epoch:06}-000000000.safetensors");
    assert_eq!(names(folder.path()), [name(11), name(12), "notes.txt".into()]);
}

#[rstest]
#[case::cut(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 5))]
#[case::empty(|bytes: &mut Vec<u8>| bytes.clear())]
#[case::a_bit_of_a_weight(|bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1)]
#[case::a_bit_of_the_position(|bytes: &mut Vec<u8>| {
    let at = bytes.windows(9).position(|window| window == b"\"epoch\":\"").unwrap() + 9;
    bytes[at] ^= 1;
})]
#[case::other_weights(|bytes: &mut Vec<u8>| {
    *bytes = fs::read(crate::state_dict::fixture("ordered_dict.safetensors")).unwrap();
})]
fn a_broken_checkpoint_is_passed_over(#[case] spoil: fn(&mut Vec<u8>)) {
    let folder = kept(5);
    let spoil = |epoch: u64| {
        let path = folder.path().join(format!("checkpoint-{epoch:06}-000000000.safetensors"));
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    assert_eq!(Checkpoint::latest(&folder).unwrap().unwrap().epoch, 5);
    spoil(5);
    assert_eq!(Checkpoint::latest(&folder).unwrap().unwrap().epoch, 4);
    spoil(4);
    let text = Checkpoint::latest(&folder).unwrap_err().to_string();
    assert!(text.contains("checkpoint-000005"), "{text}");
}

/// What the operating system refuses says nothing about the file, and an older one would be the wrong answer.
#[test]
fn a_checkpoint_that_cannot_be_read_is_not_passed_over() {
    let folder = kept(2);
    let unreadable = folder.path().join("checkpoint-000003-000000000.safetensors");
    fs::create_dir(&unreadable).unwrap();
    let text = Checkpoint::latest(&folder).unwrap_err().to_string();
    assert_eq!(text, format!("{}: cannot be read: Is a directory (os error 21)", unreadable.display()));
}

#[test]
fn no_folder_has_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Checkpoint::latest(folder.path()).unwrap().is_none());
    assert!(Checkpoint::latest(folder.path().join("nowhere")).unwrap().is_none());
}

/// examples/train.rs, which cargo builds beside the tests.
pub fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap();
    let path = folder.join(format!("examples/train{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "no {}; `cargo test` without `--test` builds it", path.display());
    path
}

/// Starts a small training in `run`, or goes on with the one that is there.
fn start(run: &Path) -> Command {
    let mut command = Command::new(example());
    match run.join("config.json").exists() {
        true => command.arg("--resume").arg(run),
        false => {
            // Killed before there was anything to go on with.
            let _ = fs::remove_dir_all(run);
            let small = "--network mlp --time-steps 2 --batch 256 --epochs 5 --threads 1 --seed 3";
            command.args(small.split(' ')).arg("--out").arg(run)
        }
    };
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Epochs, losses and accuracies of a run; its speed differs.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
    text.lines().map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",")).collect()
}

#[test]
fn a_training_killed_20_times_ends_with_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let started = Instant::now();
    assert!(start(&whole).status().unwrap().success());
    let duration = started.elapsed();

    let mut random = StdRng::seed_from_u64(4);
    let (mut kills, mut whole_runs) = (0, 0);
    while kills < 20 {
        let mut run = start(&killed).spawn().unwrap();
        sleep(duration.mul_f64(random.gen_range(0.0..0.5)));
        match run.try_wait().unwrap() {
            None => {
                // SIGKILL: nothing of it can be caught.
                run.kill().unwrap();
                run.wait().unwrap();
                kills += 1;
            }
            Some(_) => {
                let end = run.wait_with_output().unwrap();
                assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
                compare(&whole, &killed);
                fs::remove_dir_all(&killed).unwrap();
                whole_runs += 1;
            }
        }
    }
    let last = start(&killed).output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    compare(&whole, &killed);
    println!("20 kills over {} runs", whole_runs + 1);
}

fn compare(whole: &Path, killed: &Path) {
    let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert!(weights(whole) == weights(killed), "the weights differ");
    let last =
        |run: &Path| fs::read(run.join("checkpoints/checkpoint-000005-000000000.safetensors")).unwrap();
    // The configuration names the folder nowhere, so all of it is the same: momentum and generator, too.
    assert!(last(whole) == last(killed), "the checkpoints differ");
    assert_eq!(metrics(whole), metrics(killed));
}

/// The file was written by the library as it was before its traits were rebuilt, after one sequence of the training below;
/// the next one had the loss 3.643168.
#[test]
fn a_checkpoint_of_format_1_is_read_and_its_training_goes_on() {
    let (vs, lively) = (VarStore::new(Device::Cpu), SlttLifConfig { v_threshold: 0.1, ..Default::default() });
    let p = vs.root();
    let block = OtttSequential::new().add(SlttLifNode::new(lively).unwrap());
    let mut net = OtttSequential::new()
        .add(ws_linear(&p / 0, 5, 6, Default::default()).unwrap())
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Dropout::new(0.25).unwrap())
        .add(nn::batch_norm1d(&p / 3, 6, Default::default()))
        .add(NdotLifNode::new(Default::default()).unwrap())
        .add(nn::linear(&p / 5, 6, 4, Default::default()))
        .add(Feedback::new(nn::linear(&p / "back", 4, 4, Default::default()), block))
        .add_named("readout", nn::linear(&p / 7, 4, 2, Default::default()))
        .unwrap();
    let parameters: Vec<Tensor> = net.parameters().into_iter().map(|p| p.tensor).collect();
    let mut sgd = Sgd::new(&parameters, SgdConfig { momentum: 0.9, ..Default::default() }).unwrap();
    let file = folder().join("checkpoints/format_1.safetensors");
    let checkpoint = Checkpoint::read(&file).unwrap();
    assert_eq!((checkpoint.epoch, checkpoint.step, &*checkpoint.config), (3, 12, "of before"));
    checkpoint.restore(&mut net, &mut sgd).unwrap();

    let all = StateDict::read(&file).unwrap();
    for variable in net.variables() {
        assert_eq!(&variable.tensor, all.get(&format!("model.{}", variable.name)).unwrap());
    }
    for (i, memory) in net.memories().into_iter().enumerate() {
        assert_eq!(memory.get(), all.get(&format!("memory.{i}")));
    }
    let x = (numbers(&[3, 5], 50) * 2.0 + 0.5).to_kind(Kind::Float);
    let (x, target) = (repeat_over_time(&x, 4).unwrap(), numbers(&[3, 2], 51).to_kind(Kind::Float));
    let target = repeat_over_time(&target, 4).unwrap();
    let out = ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EveryStep).unwrap();
    assert!((out.loss.double_value(&[]) - 3.643168).abs() < 1e-4, "{}", out.loss);
}
