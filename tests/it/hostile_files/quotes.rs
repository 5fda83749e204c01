//! Errors quote names of the file, and those may have megabytes.

use rstest::rstest;
use spiketrace::{LoadConfig, StateDict, Variable};
use tch::{Device, Kind, Tensor};

use super::{archive, pickled, read, safetensors};

const LONG: usize = 1 << 20;

/// A text of a pickle.
fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// The file of `{name: a tensor}` whose storage has this key and this many elements.
fn tensor(name: &str, key: &str, elements: u8, size: u8) -> Vec<u8> {
    let id = [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text(key), b"NK", &[elements], b"tQ"];
    let arguments = [b"(", &id.concat()[..], b"K\0K", &[size], b"\x85K\x01\x85\x89NtRs."].concat();
    pickled(&[b"}", &text(name)[..], b"ctorch._utils\n_rebuild_tensor_v2\n", &arguments].concat())
}

fn header(header: &str) -> Vec<u8> {
    safetensors::file(header, 12)
}

/// A megabyte, of letters of two bytes that a cut may not halve.
fn long() -> String {
    "a".to_owned() + &"é".repeat(LONG / 2)
}

/// An entry's name has 64 kB at most.
fn entry() -> String {
    "a/".to_owned() + &long()[..60_001]
}

fn info(dtype: &str, shape: &str, begin: usize) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},12]}}"#)
}

#[rstest]
#[case::a_missing_storage(tensor(&long(), &long(), 4, 4), "the storage of")]
#[case::another_length(tensor(&long(), "0", 5, 4), "claims 20")]
#[case::beyond_its_storage(tensor(&long(), "0", 4, 5), "does not fit its storage")]
#[case::a_function(pickled(format!("cos\n{}\n.", long()).as_bytes()), "nothing of it was run")]
#[case::a_module(pickled(&[&text(&long())[..], &text("f"), b"\x93."].concat()), "nothing of it was run")]
#[case::no_tensors(pickled(&[b"}", &text(&long())[..], b"Ns."].concat()), "its keys are")]
#[case::an_entry_twice(archive(&[(&entry(), b""), (&entry(), b"")]), "twice")]
#[case::twice(header(&format!(r#"{{"{0}":{1},"{0}":{2}}}"#, long(), info("U8", "12", 0), info("U8", "0", 12))), "twice")]
#[case::elsewhere(header(&format!(r#"{{"{}":{}}}"#, long(), info("U8", "11", 1))), "lies at")]
#[case::another_shape(header(&format!(r#"{{"{}":{}}}"#, long(), info("U8", &("9".to_owned() + &",1".repeat(LONG)), 0))), "12 bytes for the shape")]
#[case::dimensions(header(&format!(r#"{{"{}":{}}}"#, long(), info("U8", &("12".to_owned() + &",1".repeat(LONG)), 0))), "1048577 dimensions")]
#[case::another_dtype(header(&format!(r#"{{"a":{}}}"#, info(&long(), "12", 0))), "unknown variant")]
fn a_reader_quotes_a_long_name_in_short(#[case] file: Vec<u8>, #[case] words: &str) {
    let text = read(&file).unwrap_err().to_string();
    assert!(text.contains(words) && text.len() < 4096, "{} bytes: {text:.4000}", text.len());
}

#[test]
fn a_storage_of_no_truth_values_is_quoted_in_short() {
    let mut file = header(&format!(r#"{{"{}":{}}}"#, long(), info("BOOL", "12", 0)));
    *file.last_mut().unwrap() = 2;
    let text = read(&file).unwrap_err().to_string();
    assert!(text.contains("neither 0 nor 1") && text.len() < 4096, "{} bytes", text.len());
}

#[test]
fn loading_and_writing_quote_a_long_name_in_short() {
    let long = |name: &str| name.to_owned() + &"x".repeat(LONG);
    let zeros = |kind, size: &[i64]| Tensor::zeros(size, (kind, Device::Cpu));
    let float = zeros(Kind::Float, &[1; 64]);
    let state = |other: &Tensor| -> StateDict {
        let rows = (0..30).map(|i| (long(&i.to_string()), other.shallow_clone()));
        rows.chain([(long("own"), float.shallow_clone())]).collect()
    };
    let parameters: Vec<Variable> =
        (0..60).map(|i| Variable::parameter(long(&i.to_string()), &float)).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut texts = Vec::new();
    for other in [zeros(Kind::Double, &[1; 64]), zeros(Kind::Float, &[2; 20]), Tensor::new()] {
        let load = state(&other).load_into(&parameters, LoadConfig::default());
        texts.push(load.unwrap_err().to_string());
        let undefined = [Variable::parameter(long("0"), &Tensor::new())];
        texts.push(state(&float).load_into(&undefined, LoadConfig::default()).unwrap_err().to_string());
    }
    let twice =
        || -> StateDict { ["a", "a"].map(|name| (long(name), float.shallow_clone())).into_iter().collect() };
    for state in [state(&zeros(Kind::ComplexFloat, &[1])), state(&Tensor::new()), twice()] {
        texts.push(state.write(folder.path().join("weights.safetensors")).unwrap_err().to_string());
    }
    for text in texts {
        assert!(text.len() < 16 << 10, "{} bytes: {text:.4000}", text.len());
    }
}
