//! A state dict into a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::files::shown;
use super::StateDict;
use crate::atomic_file::write_atomically;
use crate::check::expect_defined;
use crate::error::{guarded, Error, Result};
use crate::ffi::bytes;

impl StateDict {
    /// Writes a file of the format that its name ends in: `.safetensors`, or `.pt`, `.pth` or `.bin` (feature
    /// `pytorch`), which `torch.load(path, weights_only=True)` reads as an `OrderedDict` of tensors.
    ///
    /// It is written under a temporary name beside its own, forced to the disk and renamed: a crash leaves the
    /// former file whole. Tensors are written contiguously, those of CUDA by way of the CPU. In a `.pt`, equal
    /// views of one memory (tied weights) are written once; safetensors has no such thing.
    ///
    /// # Errors
    /// When the file cannot be written, its name has another ending, two tensors have one name, or one has a kind
    /// that the format lacks.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let write = match ending {
            "safetensors" => safetensors,
            #[cfg(feature = "pytorch")]
            "pt" | "pth" | "bin" => super::torch_save::torch_save,
            #[cfg(not(feature = "pytorch"))]
            "pt" | "pth" | "bin" => {
                return Err(Error::argument(
                    "the file's ending",
                    ".safetensors without the feature pytorch",
                    ending,
                ))
            }
            _ => {
                return Err(Error::argument(
                    "the file's ending",
                    ".safetensors, .pt, .pth or .bin",
                    format!("{ending:?}"),
                ))
            }
        };
        self.expect_names_once("the state dict")?;
        for (name, tensor) in self.iter() {
            expect_defined(format_args!("the state dict's {}", shown(name)), tensor)?;
        }
        write_atomically(path, |file| write(self, file)).map_err(|problem| problem.at(path))
    }
}

/// What went wrong in writing.
pub(super) enum Problem {
    Io(std::io::Error),
    Other(Error),
}

impl Problem {
    fn at(self, path: &Path) -> Error {
        match self {
            Self::Io(error) => Error::io(path, "cannot be written", error),
            Self::Other(error) => error,
        }
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// The tensor itself where it lies contiguously on the CPU, else such a copy.
pub(super) fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    guarded("a copy to the CPU", || {
        Ok(tensor.f_detach()?.f_to_device(Device::Cpu)?.f_resolve_conj()?.f_contiguous()?)
    })
}

/// Header and tensors, the widest elements first, so that each lies aligned.
fn safetensors(state: &StateDict, file: &mut BufWriter<File>) -> Result<(), Problem> {
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
