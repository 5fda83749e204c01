use std::fs;

use rstest::rstest;
use spiketrace::{StateDict, Variable};
use tch::{Device, Kind, Tensor};

use super::{fixture, hex, manifest};

/// All kinds, views, a scalar and an empty tensor.
fn state(ending: &str) -> StateDict {
    let complex = |name: &str| name == "complex64" && ending == "safetensors";
    let files = ["kinds.pt", "views.pt"].map(|file| StateDict::read(fixture(file)).unwrap());
    let tensors = files.iter().flat_map(StateDict::iter).filter(|(name, _)| !complex(name));
    tensors.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect()
}

#[rstest]
#[case("pt")]
#[case("pth")]
#[case("bin")]
#[case("safetensors")]
fn what_is_written_reads_the_same_bit_for_bit(#[case] ending: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("weights.{ending}"));
    let state = state(ending);
    state.write(&path).unwrap();
    let again = StateDict::read(&path).unwrap();
    assert_eq!(again.len(), state.len());
    for (name, tensor) in state.iter() {
        let got = again.get(name).unwrap();
        assert_eq!((got.kind(), got.size(), hex(got)), (tensor.kind(), tensor.size(), hex(tensor)), "{name}");
        assert!(got.is_contiguous());
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no partial file is left");
}

#[test]
fn the_order_of_a_pt_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let state = state("pt");
    state.write(&path).unwrap();
    assert!(StateDict::read(&path).unwrap().names().eq(state.names()));
}

#[test]
fn tied_weights_are_one_storage_of_a_pt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let weight = Tensor::rand([1000], (Kind::Float, Device::Cpu));
    let state =
        ["a", "b"].map(|name| (name.to_owned(), weight.shallow_clone())).into_iter().collect::<StateDict>();
    state.write(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 6000);
    let again = StateDict::read(&path).unwrap();
    assert_eq!(again.get("a").unwrap().data_ptr(), again.get("b").unwrap().data_ptr());
}

#[test]
fn storages_of_a_pt_lie_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let weight = Tensor::from_slice(&[1.25f64, -7.5]);
    let state = [("w".to_owned(), weight)].into_iter().collect::<StateDict>();
    state.write(&path).unwrap();
    let file = fs::read(&path).unwrap();
    let bytes: Vec<u8> = [1.25f64, -7.5].iter().flat_map(|x| x.to_le_bytes()).collect();
    let place = file.windows(16).position(|window| window == bytes).unwrap();
    assert_eq!(place % 64, 0);
}

#[test]
fn metadata_of_safetensors_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut state = StateDict::read(fixture("ordered_dict.safetensors")).unwrap();
    assert_eq!(state.metadata()["format"], "pt");
    state.metadata_mut().insert("note".into(), "\"quoted\"\n".into());
    state.write(&path).unwrap();
    assert_eq!(StateDict::read(&path).unwrap().metadata(), state.metadata());
}

/// A safetensors file begins with its header's length, which may look like another format's first bytes.
#[test]
fn a_safetensors_header_of_any_length_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut state = StateDict::default();
    state.insert("w", &tch::Tensor::from_slice(&[1.5f32, -2.0]));
    let mut seen = std::collections::BTreeSet::new();
    for padding in 0..512 {
        state.metadata_mut().insert("note".into(), "x".repeat(padding));
        state.write(&path).unwrap();
        seen.insert(fs::read(&path).unwrap()[0]);
        let text = StateDict::read(&path).map(|read| read.len()).map_err(|error| error.to_string());
        assert_eq!(text, Ok(1), "padding {padding}");
    }
    assert!(seen.contains(&0x80), "one looked like a pickle: {seen:?}");
}

#[rstest]
#[case("weights.onnx", "expected .safetensors, .pt, .pth or .bin")]
#[case("weights", "expected .safetensors, .pt, .pth or .bin")]
#[case("nowhere/weights.pt", "cannot be written")]
fn a_wrong_place_is_an_error(#[case] name: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let text = state("pt").write(folder.path().join(name)).unwrap_err().to_string();
    assert!(text.contains(words), "{text}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_failed_write_leaves_the_former_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    StateDict::read(fixture("ordered_dict.pt")).unwrap().write(&path).unwrap();
    let before = fs::read(&path).unwrap();
    // Complex numbers are beyond safetensors.
    let text = StateDict::read(fixture("kinds.pt")).unwrap().write(&path).unwrap_err().to_string();
    assert!(text.contains("complex64 holds ComplexFloat"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(manifest()["read"]["kinds.pt"]["tensors"].as_object().unwrap().len(), 14);
}

/// Two weights of one name: neither is lost without a word.
#[rstest]
#[case("pt")]
#[case("safetensors")]
fn two_weights_of_one_name_are_not_written(#[case] ending: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("weights.{ending}"));
    let parameters = [1.0, 2.0].map(|value| Variable::parameter("a.b.weight", &Tensor::from(value)));
    let state = StateDict::of(&parameters);
    assert_eq!(state.len(), 2);
    let text = state.write(&path).unwrap_err().to_string();
    assert!(text.contains("the count of a.b.weight in the state dict is 2, expected 1"), "{text}");
    assert!(!path.exists());

    // Who replaces on purpose does so by insert.
    let mut state = StateDict::of(&parameters[..1]);
    assert!(state.insert("a.b.weight", &parameters[1].tensor).is_some());
    state.write(&path).unwrap();
    assert_eq!(StateDict::read(&path).unwrap().get("a.b.weight").unwrap().double_value(&[]), 2.0);
}

/// libtorch keeps the negative of a tensor as a flag where it can.
#[rstest]
#[case("safetensors")]
#[case("pt")]
fn a_negated_view_is_written_by_its_values(#[case] ending: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("w.{ending}"));
    let w = Tensor::from_slice(&[1.0f32, -2.0]);
    let mut state = StateDict::default();
    state.insert("w", &w.internal_neg_view());
    state.write(&path).unwrap();
    assert_eq!(StateDict::read(&path).unwrap().get("w").unwrap(), &-w);
}

/// Both are views of one memory, in which the signs are those of the first.
#[test]
fn a_tensor_and_its_conjugate_stay_two_in_a_pt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    let z = Tensor::complex(&Tensor::from_slice(&[1.0, 2.0]), &Tensor::from_slice(&[3.0, 4.0]));
    let mut state = StateDict::default();
    state.insert("z", &z);
    state.insert("conj", &z.conj());
    state.write(&path).unwrap();
    let read = StateDict::read(&path).unwrap();
    assert_eq!(read.get("z").unwrap().imag().double_value(&[0]), 3.0);
    assert_eq!(read.get("conj").unwrap().imag().double_value(&[0]), -3.0);
}
