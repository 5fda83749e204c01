//! A file of weights into a state dict.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::safetensors;
#[cfg(feature = "pytorch")]
use super::torch;
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::ffi::bytes_mut;
use crate::state_dict::contents::{Contents, Dtype, Entry, Storage};
use crate::state_dict::names::shown;
use crate::state_dict::StateDict;

/// How [`StateDict::read_with`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConfig {
    /// The key of the state dict in a checkpoint; by default `state_dict`, `model`, `net` or `model_state_dict`.
    pub key: Option<String>,
}

impl StateDict {
    /// Reads a file of weights, onto the CPU.
    ///
    /// Tensors keep their strides, and those that share memory in the file share it here.
    ///
    /// # Cost
    /// Memory and work are linear in the file's length. Each storage is read once, to where it stays. Beside them
    /// no more than 16 MiB of header or pickle is read, of which no more than two million objects are made.
    ///
    /// # Errors
    /// When the file cannot be read, is broken, or holds something else than tensors and plain containers.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_with(path, ReadConfig::default())
    }

    /// [`read`](StateDict::read) with options.
    pub fn read_with(path: impl AsRef<Path>, config: ReadConfig) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = |error| Error::io(path, "cannot be read", error);
        let mut file = Watched::new(File::open(path).map_err(unreadable)?);
        Self::read_from(&mut file, path, config)
            .map_err(|error| file.refusal.take().map(unreadable).unwrap_or(error))
    }

    fn read_from(file: &mut Watched, path: &Path, config: ReadConfig) -> Result<Self> {
        let broken = |problem: String| Error::data(path, problem);
        let contents = parse(file, config.key.as_deref()).map_err(broken)?;
        let mut truths = vec![None; contents.storages.len()];
        for entry in contents.tensors.iter().filter(|entry| entry.dtype == Dtype::Bool) {
            truths[entry.storage].get_or_insert(entry.name.as_str());
        }
        let storages = contents.storages.iter().zip(truths);
        let storages = storages.map(|(storage, truths)| read_storage(file, storage, truths, &broken));
        let storages: Vec<Tensor> = storages.collect::<Result<_>>()?;
        let Contents { tensors, others, metadata, .. } = contents;
        let mut state = Self::default();
        state.others = others;
        *state.metadata_mut() = metadata;
        for Entry { name, dtype, size, stride, offset, storage } in tensors {
            let tensor = storages[storage].f_view_dtype(kind(dtype))?;
            state.push(name, tensor.f_as_strided(&size[..], &stride[..], offset)?);
        }
        Ok(state)
    }
}

/// What the file holds; `key` names the dict in a checkpoint of several.
fn parse(file: &mut (impl Read + Seek), key: Option<&str>) -> Result<Contents, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let len = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let mut head = Vec::new();
    file.by_ref().take(16).read_to_end(&mut head).map_err(unreadable)?;
    let contents = match &head[..] {
        [] => return Err("is empty".into()),
        // First, since the length of its header may begin like the others.
        [_, _, _, _, _, _, _, _, b'{', ..] if key.is_some() => {
            return Err("is a safetensors file, which has no keys; leave ReadConfig's key out".into())
        }
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::parse(file, len)?,
        #[cfg(feature = "pytorch")]
        [b'P', b'K', ..] => torch::parse(file, len, key)?,
        #[cfg(not(feature = "pytorch"))]
        [b'P', b'K', ..] => return Err("is a file of torch.save; build with the feature pytorch".into()),
        [0x80, ..] => return Err(OLD_FORMAT.into()),
        _ => {
            return Err("is neither a safetensors file nor one of torch.save, or its beginning is lost".into())
        }
    };
    contents.check(len)?;
    Ok(contents)
}

const OLD_FORMAT: &str = "is a bare pickle, as torch.save wrote before PyTorch 1.6; save it anew in Python: \
                          torch.save(torch.load(path), path)";

/// Reads bytes of the file into a new tensor; those of a tensor of truth values, of which there is the name, are to
/// be 0 or 1.
fn read_storage(
    file: &mut Watched,
    storage: &Storage,
    truths: Option<&str>,
    broken: &impl Fn(String) -> Error,
) -> Result<Tensor> {
    let unreadable = |error| broken(format!("cannot be read: {error}"));
    let mut tensor = Tensor::f_empty([storage.len as i64], (Kind::Uint8, Device::Cpu))?;
    file.seek(SeekFrom::Start(storage.begin)).map_err(unreadable)?;
    let (mut checksum, mut bits) = (crc32fast::Hasher::new(), 0);
    // In pieces, so that the checks meet them in the cache.
    for piece in bytes_mut(&mut tensor)?.chunks_mut(1 << 18) {
        file.read_exact(piece).map_err(unreadable)?;
        if storage.crc32.is_some() {
            checksum.update(piece);
        }
        if truths.is_some() {
            bits |= piece.iter().fold(0, |all, byte| all | byte);
        }
    }
    if storage.crc32.is_some_and(|crc32| crc32 != checksum.finalize()) {
        return Err(broken(
            "is damaged: a storage does not have its checksum (or it was saved without: \
             torch.serialization.set_crc32_options(True), and save it again)"
                .into(),
        ));
    }
    if let Some(name) = truths.filter(|_| bits > 1) {
        let name = shown(name);
        return Err(broken(format!(
            "is broken: the storage of {name} holds truth values that are neither 0 nor 1"
        )));
    }
    Ok(tensor)
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bool => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::C64 => Kind::ComplexFloat,
        Dtype::C128 => Kind::ComplexDouble,
    }
}
