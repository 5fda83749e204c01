use rstest::rstest;
use spiketrace::{Error, LoadConfig, OnlineModule, Part, StateDict, Variable};
use tch::{Device, Kind, Tensor};

use super::{fixture, hex, manifest, model};

const LENIENT: LoadConfig = LoadConfig { strict: false };

fn bits(state: &[Variable]) -> Vec<String> {
    state.iter().map(|p| hex(&p.tensor)).collect()
}

#[test]
fn a_model_has_the_values_of_the_file_however_python_wrapped_it() {
    let manifest = manifest();
    let files = manifest["read"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, file)| file["model"].as_bool() == Some(true));
    let mut count = 0;
    for (file, expected) in files {
        let (_vs, net) = model(Device::Cpu);
        let report = StateDict::read(fixture(file))
            .unwrap()
            .load_into(&net.variables(), LoadConfig::default())
            .unwrap();
        assert!(report.is_exact(), "{file}: {report}");
        assert_eq!(report.to_string(), "7 fit");
        for Variable { name, tensor, .. } in net.variables() {
            let mut tensors = expected["tensors"].as_object().unwrap().iter();
            let wanted = tensors.find(|(own, _)| own.replace(".op.", ".").ends_with(&name)).unwrap().1;
            assert_eq!(hex(&tensor), wanted["bytes"].as_str().unwrap(), "{file}: {name}");
        }
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn loaded_weights_still_learn() {
    let (_vs, mut net) = model(Device::Cpu);
    StateDict::read(fixture("ddp.pt")).unwrap().load_into(&net.variables(), LoadConfig::default()).unwrap();
    let y = net.step(&Tensor::rand([5, 3], (Kind::Float, Device::Cpu)).into(), true).unwrap().into_value();
    y.sum(Kind::Float).backward();
    assert!(net.parameters().iter().all(|p| p.tensor.requires_grad() && p.tensor.grad().defined()));
}

/// A file that does not fit: a name fewer, one more, another shape, another kind.
fn misfit() -> StateDict {
    let good = StateDict::read(fixture("ordered_dict.pt")).unwrap();
    let changed = good.iter().filter(|(name, _)| *name != "1.bias").map(|(name, tensor)| match name {
        "2.weight" => (name.to_owned(), tensor.reshape([4, 2])),
        "0.bias" => (name.to_owned(), tensor.to_kind(Kind::Double)),
        _ => (name.to_owned(), tensor.shallow_clone()),
    });
    changed.chain([("9.weight".to_owned(), Tensor::from(1.0))]).collect()
}

#[test]
fn a_strict_load_that_does_not_fit_changes_nothing_and_says_all() {
    let (_vs, net) = model(Device::Cpu);
    let before = bits(&net.variables());
    let error = misfit().load_into(&net.variables(), LoadConfig::default()).unwrap_err();
    assert!(matches!(error, Error::StateDict(_)));
    assert_eq!(
        error.to_string(),
        "the state dict does not fit the model, nothing was changed: \
         5 fit, 1 missing, 1 unexpected, 1 of another shape, 1 of another kind\n  \
         missing      1.bias\n  \
         unexpected   9.weight\n  \
         other shape  2.weight  model [2, 4], file [4, 2]\n  \
         other kind   0.bias  model Float, file Double"
    );
    assert_eq!(bits(&net.variables()), before);
}

#[test]
fn a_lenient_load_takes_what_fits() {
    let (_vs, net) = model(Device::Cpu);
    let before = bits(&net.variables());
    let report = misfit().load_into(&net.variables(), LENIENT).unwrap();
    assert_eq!(report.loaded, ["0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"]);
    assert_eq!(
        (&report.missing[..], &report.unexpected[..]),
        (&["1.bias".into()][..], &["9.weight".into()][..])
    );
    let good = StateDict::read(fixture("ordered_dict.pt")).unwrap();
    for (Variable { name, tensor, .. }, before) in net.variables().iter().zip(before) {
        let loaded = report.loaded.contains(name);
        assert_eq!(hex(tensor), if loaded { hex(good.get(name).unwrap()) } else { before }, "{name}");
        assert_eq!(tensor.kind(), Kind::Float);
    }
}

#[test]
fn a_comparison_changes_nothing() {
    let (_vs, net) = model(Device::Cpu);
    let before = bits(&net.variables());
    assert!(!misfit().compare(&net.variables()).unwrap().is_exact());
    assert_eq!(bits(&net.variables()), before);
}

#[rstest]
#[case::into_undefined(false)]
#[case::of_undefined(true)]
fn an_undefined_tensor_is_an_error(#[case] in_file: bool) {
    let (one, none) = (Tensor::from(1.0f32), Tensor::new());
    let (model, file) = if in_file { (one, none) } else { (none, one) };
    let state: StateDict = [("w".to_owned(), file)].into_iter().collect();
    let text = state.load_into(&[Variable::parameter("w", &model)], LENIENT).unwrap_err().to_string();
    assert!(text.contains("an undefined tensor"), "{text}");
}

#[test]
fn a_long_report_is_cut() {
    let state: StateDict = (0..30).map(|i| (format!("layer.{i}"), Tensor::from(0.0))).collect();
    let text = state.load_into(&[], LoadConfig::default()).unwrap_err().to_string();
    assert!(text.ends_with("layer.9\n  unexpected   and 20 more"), "{text}");
}

#[rstest]
#[case::of_the_model(2, 1, "a.b in the model")]
#[case::of_the_file(1, 2, "a.b in the state dict")]
fn two_weights_of_one_name_are_not_loaded(#[case] model: usize, #[case] file: usize, #[case] words: &str) {
    let weights = |count, value| {
        (0..count).map(|_| Variable::parameter("a.b", &Tensor::from(value))).collect::<Vec<_>>()
    };
    let model = weights(model, 1.0);
    let text = StateDict::of(&weights(file, 2.0)).load_into(&model, LENIENT).unwrap_err().to_string();
    assert!(text.contains(&format!("the count of {words} is 2, expected 1")), "{text}");
    assert!(model.iter().all(|p| p.tensor.double_value(&[]) == 1.0));
}

/// It would be found out only after other weights have been copied.
#[test]
fn a_model_whose_weight_cannot_be_written_stays_as_it_was() {
    let double = (Kind::Double, Device::Cpu);
    let (a, b) = (Tensor::zeros([2], double), Tensor::zeros([1], double).expand([3], false));
    let model = [Variable::parameter("a", &a), Variable::parameter("b", &b)];
    let mut state = StateDict::default();
    state.insert("a", &Tensor::ones([2], double));
    state.insert("b", &Tensor::ones([3], double));
    let error = state.load_into(&model, LoadConfig::default()).unwrap_err().to_string();
    assert!(error.starts_with("the model's b is one whose elements share memory"), "{error}");
    assert_eq!(a, Tensor::zeros([2], double));
}
