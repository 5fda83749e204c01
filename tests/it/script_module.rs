//! TorchScript modules in a network: the same numbers as Python's, trained, frozen, moved, saved.

use std::path::PathBuf;

use rstest::rstest;
use spiketrace::train::{ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update};
use spiketrace::{
    Flatten, Layer, OnlineModule, OtttLifNode, OtttSequential, Part, Pass, ScriptConfig, ScriptModule, Signal,
};
use tch::nn::{OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::parity::all_agree;
use crate::parity::fixture::{folder, Case};

const TIME_STEPS: i64 = 6;

fn file(name: &str) -> PathBuf {
    folder().join("script_modules").join(name)
}

fn load(vs: &VarStore, name: &str) -> spiketrace::Result<ScriptModule> {
    ScriptModule::load(vs.root(), file(name), ScriptConfig::default())
}

/// The refusal of a file, without the folder it is in.
fn refusal(name: &str) -> String {
    let vs = VarStore::new(Device::Cpu);
    let error = load(&vs, name).unwrap_err().to_string();
    assert!(vs.is_empty(), "nothing was put into the VarStore");
    error.strip_prefix(&format!("{}: ", file(name).display())).unwrap_or(&error).to_owned()
}

#[rstest]
fn agrees_with_spikingjellys_container_around_the_same_modules(
    #[values(("f32", 1e-5), ("f64", 1e-10))] (dtype, tolerance): (&str, f64),
) {
    all_agree("script_modules.json", "script_modules", replay, dtype, tolerance);
}

fn replay(case: &mut Case) {
    let suffix = if case.kind == Kind::Float { "f32" } else { "f64" };
    let vs = VarStore::new(Device::Cpu);
    let load = |place: i64, name: &str| {
        ScriptModule::load(vs.root() / place, file(name), ScriptConfig::default()).unwrap()
    };
    let node = || OtttLifNode::new(Default::default()).unwrap();
    let mut net = OtttSequential::new()
        .add(load(0, &format!("conv.{suffix}.pt")))
        .add(node())
        .add(load(2, "pool.pt"))
        .add(load(3, &format!("block.{suffix}.pt")))
        .add(node())
        .add(Flatten::default())
        .add(load(6, &format!("mlp.{suffix}.pt")));
    let table = net.to_string();
    let wrapper = |row: usize| table.lines().nth(row + 1).unwrap().to_owned();
    assert!(wrapper(2).contains("SpikeTraceOp") && wrapper(3).contains("GradWithTrace"), "{table}");

    let (x_seq, target) = (case.get("x"), case.get("target"));
    let target_seq = repeat_over_time(&target, TIME_STEPS).unwrap();
    let mut still = tch::nn::Sgd::default().build(&vs, 0.0).unwrap();
    let loss = OtttLoss::new(0.05, TIME_STEPS).unwrap();
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    let out = ottt_online_training(&mut net, &mut still, &x_seq, &target_seq, loss, Update::EndOfSequence);
    let out = out.unwrap();
    case.value("loss", &out.loss);
    case.value("outputs", &out.outputs);
    for p in net.parameters() {
        case.gradient(&format!("grad.{}", p.name), &p.tensor.grad());
    }
    for name in ["3.1.running_mean", "3.1.running_var"] {
        case.value(&format!("after.{name}"), &vs.variables()[name]);
    }
    net.reset();
    let _no_grad = tch::no_grad_guard();
    let step = |t| net.step(&Signal::from(x_seq.select(1, t)), false).unwrap().into_value();
    let outputs: Vec<Tensor> = (0..TIME_STEPS).map(step).collect();
    case.value("eval_outputs", &Tensor::stack(&outputs, 1));
}

#[rstest]
#[case("mlp.f32.pt", &["0.weight", "0.bias", "2.weight", "2.bias"], &[])]
#[case("traced.pt", &["0.weight", "0.bias", "2.weight", "2.bias"], &[])]
#[case("pool.pt", &[], &[])]
#[case("block.f32.pt", &["0.weight", "1.weight", "1.bias"], &["1.running_mean", "1.running_var", "1.num_batches_tracked"])]
fn parameters_keep_their_names(#[case] name: &str, #[case] parameters: &[&str], #[case] buffers: &[&str]) {
    let vs = VarStore::new(Device::Cpu);
    let module = load(&vs, name).unwrap();
    let names: Vec<String> = module.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(names, parameters);
    let mut stored: Vec<String> = vs.variables().into_keys().collect();
    let mut expected: Vec<&str> = [parameters, buffers].concat();
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
    assert_eq!(vs.trainable_variables().len(), parameters.len());
}

fn input() -> Tensor {
    Tensor::from_slice(&[0.5f32, -1.0, 2.0, 1.5, 0.25, -0.75]).view([2, 3])
}

#[test]
fn a_module_learns_and_a_frozen_one_does_not() {
    let mut vs = VarStore::new(Device::Cpu);
    let mut net = OtttSequential::new().add(load(&vs, "traced.pt").unwrap());
    let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.1, ..Default::default() }).unwrap();
    let (x_seq, label_seq) = (input().unsqueeze(1), Tensor::from_slice(&[0i64, 1]).unsqueeze(1));
    let loss = OtttLoss::new(0.0, 1).unwrap();
    let mut losses = Vec::new();
    for _ in 0..50 {
        let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        let out = ottt_online_training(&mut net, &mut sgd, &x_seq, &label_seq, loss, Update::EveryStep);
        losses.push(f64::try_from(out.unwrap().loss).unwrap());
    }
    assert!(losses[49] < 0.5 * losses[0], "{losses:?}");

    vs.freeze();
    let y = net.step(&input().into(), true).unwrap().into_value();
    assert!(!y.requires_grad());
    vs.unfreeze();
    assert!(net.step(&input().into(), true).unwrap().into_value().requires_grad());
}

/// The signal behind a layer that has weights is dense, whether or not they are frozen.
#[test]
fn a_layer_that_asks_for_no_gradient_in_the_file_keeps_still() {
    let vs = VarStore::new(Device::Cpu);
    let mut module = load(&vs, "half_frozen.pt").unwrap();
    assert_eq!(vs.trainable_variables().len(), 2);
    assert_eq!(module.parameters().len(), 4);
    module.forward(&input(), true).unwrap().sum(Kind::Float).backward();
    for p in module.parameters() {
        assert_eq!(p.tensor.grad().defined(), p.name.starts_with('2'), "{}", p.name);
    }
}

#[test]
fn a_weight_with_two_names_is_trained_once() {
    let vs = VarStore::new(Device::Cpu);
    let module = load(&vs, "tied.pt").unwrap();
    assert_eq!(module.parameters().len(), 4);
    assert_eq!(vs.trainable_variables().len(), 3);
}

#[test]
fn casting_the_var_store_casts_the_module() {
    let mut vs = VarStore::new(Device::Cpu);
    let mut module = load(&vs, "block.f32.pt").unwrap();
    vs.double();
    let x = Tensor::ones([2, 3, 4, 4], (Kind::Double, Device::Cpu));
    assert_eq!(module.forward(&x, true).unwrap().kind(), Kind::Double);
    assert_eq!(vs.variables()["1.running_mean"].kind(), Kind::Double);
    assert_eq!(vs.variables()["1.num_batches_tracked"].kind(), Kind::Int64);
}

#[test]
fn mode_follows_train() {
    let vs = VarStore::new(Device::Cpu);
    let mut module = load(&vs, "block.f32.pt").unwrap();
    let mean = || vs.variables()["1.running_mean"].copy();
    let x = Tensor::ones([2, 3, 4, 4], (Kind::Float, Device::Cpu));
    let before = mean();
    let _ = module.forward(&x, false).unwrap();
    assert_eq!(mean(), before);
    let _ = module.forward(&x, true).unwrap();
    assert_ne!(mean(), before);
    let learned = mean();
    let _ = module.forward(&x, false).unwrap();
    assert_eq!(mean(), learned);
}

#[test]
fn what_was_learned_is_in_the_saved_module() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("learned.pt");
    let vs = VarStore::new(Device::Cpu);
    let mut module = load(&vs, "mlp.f32.pt").unwrap().shallow_clone();
    for mut tensor in vs.trainable_variables() {
        let _ = tch::no_grad(|| tensor.g_add_scalar_(0.125));
    }
    module.save(&path).unwrap();
    let again = VarStore::new(Device::Cpu);
    let mut loaded = ScriptModule::load(again.root(), &path, ScriptConfig::default()).unwrap();
    let x = Tensor::ones([2, 36], (Kind::Float, Device::Cpu));
    assert_eq!(loaded.forward(&x, false).unwrap(), module.forward(&x, false).unwrap());
    assert_ne!(
        load(&VarStore::new(Device::Cpu), "mlp.f32.pt").unwrap().forward(&x, false).unwrap(),
        module.forward(&x, false).unwrap()
    );
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is left beside it");
    let error = module.save(folder.path().join("no/such/folder.pt")).unwrap_err();
    assert!(error.to_string().contains("folder.pt"), "{error}");
}

#[rstest]
#[case("no_such_file.pt", "cannot be read: No such file or directory (os error 2)")]
#[case("", "is not a file")]
#[case("two_inputs.pt", "it has forward(Tensor x, Tensor y) -> Tensor, but a layer takes one tensor and returns one: script a module around it whose forward does")]
#[case("two_outputs.pt", "it has forward(Tensor x) -> Tuple[Tensor, Tensor], but a layer takes one tensor and returns one: script a module around it whose forward does")]
#[case("frozen.pt", "it has no parameters, but 4 tensors (26 numbers) baked in as constants, which cannot learn; script or trace the nn.Module itself, neither frozen nor inside a function; if they are constants by intention, say so with ScriptConfig { constants: true, .. }")]
#[case("baked.pt", "it has no parameters, but 1 tensors (12 numbers) baked in as constants, which cannot learn; script or trace the nn.Module itself, neither frozen nor inside a function; if they are constants by intention, say so with ScriptConfig { constants: true, .. }")]
fn a_module_that_is_no_layer_is_refused_with_the_fix(#[case] name: &str, #[case] sentence: &str) {
    assert_eq!(refusal(name), sentence);
}

#[test]
fn a_file_without_a_module_is_refused() {
    for name in ["no_script.pt", "../models.json"] {
        let error = refusal(name);
        assert!(error.contains("no TorchScript module ("), "{error}");
        assert!(error.ends_with("write one by torch.jit.script(module).save(path)"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(file("mlp.f32.pt")).unwrap();
    for part in 0..20 {
        let path = folder.path().join("part.pt");
        std::fs::write(&path, &whole[..whole.len() * part / 20]).unwrap();
        let vs = VarStore::new(Device::Cpu);
        let error = ScriptModule::load(vs.root(), &path, ScriptConfig::default()).unwrap_err();
        assert!(error.to_string().contains("no TorchScript module"), "{error}");
    }
}

#[test]
fn constants_are_taken_where_they_are_meant() {
    let vs = VarStore::new(Device::Cpu);
    let config = ScriptConfig { constants: true, ..Default::default() };
    let mut module = ScriptModule::load(vs.root(), file("baked.pt"), config).unwrap();
    assert_eq!(module.forward(&input(), true).unwrap().size(), [2, 4]);
}

#[test]
fn an_argument_with_a_default_is_none_that_is_missing() {
    let mut module = load(&VarStore::new(Device::Cpu), "optional_input.pt").unwrap();
    assert_eq!(module.forward(&input(), true).unwrap(), input() * 2.0);
}

#[test]
fn two_modules_do_not_share_a_name() {
    let vs = VarStore::new(Device::Cpu);
    load(&vs, "traced.pt").unwrap();
    let error = load(&vs, "mlp.f32.pt").unwrap_err().to_string();
    assert!(
        error.starts_with("a variable's name is 0.weight, expected one that the VarStore does not"),
        "{error}"
    );
    assert_eq!(vs.len(), 4);
}

#[test]
fn what_fails_inside_is_one_sentence() {
    let mut module = load(&VarStore::new(Device::Cpu), "mlp.f32.pt").unwrap();
    let error = module.forward(&input(), true).unwrap_err().to_string();
    let expected =
        "libtorch: ScriptModule(Sequential): mat1 and mat2 shapes cannot be multiplied (2x3 and 36x8)";
    assert_eq!(error, expected);
    let undefined = module.forward(&Tensor::new(), true).unwrap_err().to_string();
    assert!(undefined.contains("ScriptModule(Sequential)'s input"), "{undefined}");
}

#[test]
fn two_handles_of_a_module_in_two_modes_do_not_mix_them_up() {
    let vs = VarStore::new(Device::Cpu);
    let mut learns = load(&vs, "block.f32.pt").unwrap();
    let mut asked = learns.shallow_clone();
    let x = Tensor::ones([2, 3, 4, 4], (Kind::Float, Device::Cpu));
    let _ = learns.forward(&x, true).unwrap();
    let _ = asked.forward(&x, false).unwrap();
    let before = vs.variables()["1.running_mean"].copy();
    let _ = learns.forward(&x, true).unwrap();
    assert_ne!(vs.variables()["1.running_mean"], before);
}

/// Steps may go together only where the user says that samples are by themselves.
#[test]
fn several_steps_a_pass_are_by_choice() {
    let x = Signal::from(Tensor::cat(&[input(), input()], 0));
    let mut module = load(&VarStore::new(Device::Cpu), "traced.pt").unwrap();
    let error = module.pass(&x, &Pass::new(true).steps(2)).unwrap_err().to_string();
    assert!(error.contains("one time step at a time"), "{error}");
    let config = ScriptConfig { samplewise: true, ..Default::default() };
    let vs = VarStore::new(Device::Cpu);
    let mut module = ScriptModule::load(vs.root(), file("traced.pt"), config).unwrap();
    assert_eq!(module.pass(&x, &Pass::new(true).steps(2)).unwrap().value().size(), [4, 2]);
}
