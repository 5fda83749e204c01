//! The header of a safetensors file.
//!
//! The crate `safetensors` has the format's types; its own reader wants the whole file in memory and buffers the
//! header in a form many times its size, so the header's map is walked here.
//!
//! Source: <https://github.com/huggingface/safetensors>.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::rc::Rc;

use safetensors::tensor::{Dtype as Name, TensorInfo};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::state_dict::contents::{contiguous, Contents, Dtype, Entry, Storage, MAX_HEADER};
use crate::state_dict::names::shown;

pub(super) fn parse(file: &mut (impl Read + Seek), len: u64) -> Result<Contents, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let mut begin = [0; 8];
    file.read_exact(&mut begin).map_err(unreadable)?;
    let header = u64::from_le_bytes(begin);
    let data = header.checked_add(8).filter(|&data| data <= len);
    let data =
        data.ok_or_else(|| format!("is broken or cut off: a header of {header} bytes in a file of {len}"))?;
    if header > MAX_HEADER {
        return Err(format!("has a header of {header} bytes, more than {MAX_HEADER}"));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(unreadable)?;
    let Header { metadata, mut tensors } =
        serde_json::from_slice(&text)
            .map_err(|error| error.to_string())
            .map_err(|error| format!("is no safetensors file, or its header is broken: {}", shown(&error)))?;

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut contents = Contents { metadata, ..Default::default() };
    let mut names = HashSet::new();
    let mut end = 0;
    for (name, info) in &tensors {
        if !names.insert(name) {
            return Err(format!("is broken: it holds {} twice", shown(name)));
        }
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if from != end || to < from || to > len - data {
            return Err(format!(
                "is broken or cut off: {} lies at {from} to {to} of {} bytes, expected from {end} on",
                shown(name),
                len - data
            ));
        }
        end = to;
        let elements = info.shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
        let bytes = elements.and_then(|n| n.checked_mul(info.dtype.size() as u64));
        if bytes != Some(to - from) {
            let (name, bytes, shape) = (shown(name), to - from, format!("{:?}", info.shape));
            let (shape, dtype) = (shown(&shape), info.dtype);
            return Err(format!("is broken: {name} has {bytes} bytes for the shape {shape} of {dtype:?}"));
        }
        let Some(dtype) = dtype(info.dtype) else {
            contents
                .others
                .push((name.clone(), format!("a tensor of {:?}, which tch does not know", info.dtype)));
            continue;
        };
        let size: Rc<[i64]> = info.shape.iter().map(|&dim| dim as i64).collect();
        let stride = contiguous(&size).into();
        let storage = contents.storages.len();
        contents.storages.push(Storage { begin: data + from, len: to - from, crc32: None });
        contents.tensors.push(Entry { name: name.clone(), dtype, size, stride, offset: 0, storage });
    }
    if end != len - data {
        return Err(format!("is broken or cut off: {} bytes of data, expected {end}", len - data));
    }
    Ok(contents)
}

fn dtype(name: Name) -> Option<Dtype> {
    Some(match name {
        Name::BOOL => Dtype::Bool,
        Name::U8 => Dtype::U8,
        Name::I8 => Dtype::I8,
        Name::I16 => Dtype::I16,
        Name::I32 => Dtype::I32,
        Name::I64 => Dtype::I64,
        Name::F16 => Dtype::F16,
        Name::BF16 => Dtype::BF16,
        Name::F32 => Dtype::F32,
        Name::F64 => Dtype::F64,
        _ => return None,
    })
}

/// The header in the order it is written.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { metadata: BTreeMap::new(), tensors: Vec::new() };
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "__metadata__" => header.metadata = map.next_value()?,
                        _ => header.tensors.push((name, map.next_value()?)),
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Walk)
    }
}
