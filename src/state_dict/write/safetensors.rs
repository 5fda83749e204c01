//! A state dict as a safetensors file.
//!
//! Source: <https://github.com/huggingface/safetensors>.

use std::fs::File;
use std::io::{BufWriter, Write};

use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Kind, Tensor};

use super::plain::{on_cpu, Problem};
use crate::error::{Error, Result};
use crate::ffi::bytes;
use crate::state_dict::names::shown;
use crate::state_dict::StateDict;

/// Header and tensors, the widest elements first, so that each lies aligned.
pub(super) fn write(state: &StateDict, file: &mut BufWriter<File>) -> Result<(), Problem> {
    let mut rows = Vec::new();
    for (name, tensor) in state.iter() {
        rows.push((dtype(name, tensor)?, name, tensor));
    }
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut begin = 0;
    let mut header = serde_json::Map::new();
    if !state.metadata().is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(state.metadata()));
    }
    for (dtype, name, tensor) in &rows {
        let end = begin + tensor.numel() * dtype.size();
        let shape = tensor.size().iter().map(|&dim| dim as usize).collect();
        let info = TensorInfo { dtype: *dtype, shape, data_offsets: (begin, end) };
        let info = serde_json::to_value(info).map_err(std::io::Error::from)?;
        header.insert((*name).into(), info);
        begin = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, _, tensor) in rows {
        file.write_all(&bytes(on_cpu(tensor)?)?)?;
    }
    Ok(())
}

fn dtype(name: &str, tensor: &Tensor) -> Result<Dtype> {
    Ok(match tensor.f_kind()? {
        Kind::Bool => Dtype::BOOL,
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        got => {
            let expected = "a kind of safetensors, real or integer".to_owned();
            return Err(Error::Kind { what: format!("the state dict's {}", shown(name)), expected, got });
        }
    })
}
