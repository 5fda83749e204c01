//! Weights in and out of files: those that Python wrote, those that we write, and what fits what.

mod loading;
mod reading;
mod writing;

use std::path::PathBuf;

use serde_json::Value;
use spiketrace::{OtttLifNode, OtttSequential};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

/// A file that `tests/fixtures/state_dicts.py` wrote.
pub fn fixture(name: &str) -> PathBuf {
    let own = || [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures"].iter().collect();
    let folder: PathBuf = std::env::var_os("SPIKETRACE_FIXTURES").map_or_else(own, PathBuf::from);
    folder.join("state_dicts").join(name)
}

pub fn manifest() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("manifest.json")).unwrap()).unwrap()
}

/// The model whose weights most of the files hold, with a neuron that has none.
pub fn model(device: Device) -> (VarStore, OtttSequential) {
    let vs = VarStore::new(device);
    let p = vs.root();
    let bias = nn::LinearConfig { bias: false, ..Default::default() };
    let net = OtttSequential::new()
        .add(nn::linear(&p / 0, 3, 4, Default::default()))
        .add(nn::batch_norm1d(&p / 1, 4, Default::default()))
        .add(nn::linear(&p / 2, 4, 2, bias))
        .add(OtttLifNode::new(Default::default()).unwrap());
    (vs, net)
}

/// The elements' bytes, row after row, in hexadecimal digits.
pub fn hex(tensor: &Tensor) -> String {
    let tensor = tensor.detach().contiguous();
    if tensor.numel() == 0 {
        return String::new();
    }
    let bytes = Vec::<u8>::try_from(tensor.view([-1]).view_dtype(Kind::Uint8)).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// torch's name of a kind.
pub fn dtype(kind: Kind) -> &'static str {
    match kind {
        Kind::Double => "float64",
        Kind::Float => "float32",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        Kind::ComplexFloat => "complex64",
        other => panic!("{other:?} is in no file"),
    }
}
