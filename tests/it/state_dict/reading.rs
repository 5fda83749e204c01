use rstest::rstest;
use spiketrace::{ReadConfig, StateDict};

use super::{dtype, fixture, hex, manifest};

#[test]
fn every_file_of_python_has_its_names_kinds_shapes_and_bits() {
    let manifest = manifest();
    let files = manifest["read"].as_object().unwrap();
    assert!(files.len() > 20);
    for (file, expected) in files {
        let key = expected["key"].as_str().map(str::to_owned);
        let state = StateDict::read_with(fixture(file), ReadConfig { key }).unwrap();
        let tensors = expected["tensors"].as_object().unwrap();
        let mut names: Vec<&str> = state.names().collect();
        let mut wanted: Vec<&str> = tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{file}");
        for (name, tensor) in state.iter() {
            let wanted = &tensors[name];
            assert_eq!(dtype(tensor.kind()), wanted["dtype"].as_str().unwrap(), "{file}: {name}");
            assert_eq!(serde_json::json!(tensor.size()), wanted["shape"], "{file}: {name}");
            assert_eq!(hex(tensor), wanted["bytes"].as_str().unwrap(), "{file}: {name}");
        }
        let others: Vec<&str> = state.others().map(|(name, _)| name).collect();
        assert_eq!(serde_json::json!(others), expected["others"], "{file}");
    }
}

#[test]
fn a_checkpoint_of_a_usual_key_needs_no_key() {
    for file in ["checkpoint_state_dict.pt", "checkpoint_model.pt", "checkpoint_net.pt"] {
        let state = StateDict::read(fixture(file)).unwrap();
        assert_eq!(state.names().next(), Some("0.weight"), "{file}");
        assert_eq!(state.len(), 8, "{file}");
    }
}

#[test]
fn views_keep_their_strides_and_share_their_memory() {
    let state = StateDict::read(fixture("views.pt")).unwrap();
    let get = |name| state.get(name).unwrap();
    assert_eq!(get("transposed").stride(), [1, 8]);
    assert_eq!(get("steps").stride(), [16, 2]);
    assert_eq!(get("expanded").stride(), [1, 0]);
    assert_eq!(get("channels_last").stride(), [48, 1, 12, 3]);
    let base = get("base");
    assert_eq!(base.data_ptr(), get("tied").data_ptr());
    let _ = get("row").shallow_clone().fill_(5.0);
    assert_eq!(base.double_value(&[4, 7]), 5.0);
    assert_eq!(get("transposed").double_value(&[7, 4]), 5.0);
}

/// The file, and words that its refusal needs.
#[rstest]
#[case("before_1_6.pt", &["before PyTorch 1.6", "torch.save(torch.load(path), path)"])]
#[case("whole_module.pt", &["nothing of it was run", "torch.save(model.state_dict(),"])]
#[case("os_system.pt", &["`posix.system`", "nothing of it was run"])]
#[case("list.pt", &["holds a list, expected a state dict"])]
#[case("no_tensors.pt", &["\"epoch\", \"parts\"", "ReadConfig"])]
#[case("torchscript.pt", &["TorchScript", "tch::CModule"])]
#[case("compressed.pt", &["is compressed", "save it anew in Python"])]
#[case("nowhere.pt", &["cannot be read"])]
#[case(".", &["cannot be read"])]
fn what_is_no_state_dict_is_refused_with_the_way_out(#[case] file: &str, #[case] words: &[&str]) {
    let text = StateDict::read(fixture(file)).unwrap_err().to_string();
    for word in words.iter().chain(&[file]) {
        assert!(text.contains(word), "{word:?} not in: {text}");
    }
}

#[test]
fn a_wrong_key_names_the_right_ones() {
    let key = |key: &str| ReadConfig { key: Some(key.to_owned()) };
    let text = StateDict::read_with(fixture("checkpoint_named.pt"), key("teacher")).unwrap_err().to_string();
    assert!(text.contains("no dict under the key \"teacher\"; its keys are \"ema\", \"student\""), "{text}");
    let text = StateDict::read_with(fixture("kinds.safetensors"), key("net")).unwrap_err().to_string();
    assert!(text.contains("has no keys"), "{text}");
}

#[test]
fn what_is_no_tensor_is_named_in_words() {
    let state = StateDict::read(fixture("others.pt")).unwrap();
    let other = |name| state.others().find(|(own, _)| *own == name).unwrap().1;
    assert_eq!(other("sparse"), "a sparse tensor");
    assert_eq!(other("uint16"), "a tensor of a dtype that is not supported");
    assert_eq!(other("epoch"), "a number");
    assert_eq!(other("losses"), "a list");
}
