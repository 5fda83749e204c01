//! A state dict as torch.save writes it: a zip archive of a pickle and of storages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use rawzip::extra_fields::ExtraFieldId;
use rawzip::{Header, ZipArchiveWriter};
use tch::{Kind, Tensor};

use super::plain::{on_cpu, Problem};
use crate::error::{Error, Result};
use crate::ffi::bytes;
use crate::state_dict::contents::contiguous;
use crate::state_dict::names::shown;
use crate::state_dict::StateDict;

/// The folder that all entries lie in.
const FOLDER: &str = "archive";

/// Storages begin at multiples of this, so that they can be mapped into memory.
const ALIGNMENT: u64 = 64;

pub(super) fn write(state: &StateDict, file: &mut BufWriter<File>) -> Result<(), Problem> {
    let mut storages: Vec<Tensor> = Vec::new();
    let mut places = HashMap::new();
    let mut rows = Vec::new();
    for (name, tensor) in state.iter() {
        let class = storage_class(name, tensor)?;
        // Equal views of one memory stay one storage.
        // A conjugate and a negative are views with a flag.
        let flags = (tensor.is_conj(), tensor.is_neg(), format!("{:?}", tensor.device()));
        let view = (tensor.data_ptr() as usize, tensor.size(), tensor.stride(), class, flags);
        let place = *places.entry(view).or_insert_with(|| {
            storages.push(tensor.shallow_clone());
            storages.len() - 1
        });
        rows.push(Row { name, class, place, size: tensor.size() });
    }
    let mut archive = ZipArchiveWriter::new(file);
    entry(&mut archive, "data.pkl", &pickle(&rows)?)?;
    entry(&mut archive, "byteorder", b"little")?;
    for (i, tensor) in storages.iter().enumerate() {
        entry(&mut archive, &format!("data/{i}"), &bytes(on_cpu(tensor)?)?)?;
    }
    entry(&mut archive, "version", b"3\n")?;
    archive.finish().map_err(io_error)?;
    Ok(())
}

/// Appends an entry, stored as it is, whose bytes begin at a multiple of the alignment.
fn entry<W: Write>(archive: &mut ZipArchiveWriter<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let name = format!("{FOLDER}/{name}");
    // The header's fixed part and the padding's own head.
    let begin = archive.stream_offset() + 30 + name.len() as u64 + 4;
    let padding = vec![b'Z'; (begin.next_multiple_of(ALIGNMENT) - begin) as usize];
    // PyTorch's field for it is called FB.
    let field = ExtraFieldId::new(u16::from_le_bytes(*b"FB"));
    let file = archive.new_file(&name).extra_field(field, &padding, Header::LOCAL).map_err(io_error)?;
    let (mut entry, config) = file.start().map_err(io_error)?;
    let mut data = config.wrap(&mut entry);
    data.write_all(bytes)?;
    let (_, descriptor) = data.finish().map_err(io_error)?;
    entry.finish(descriptor).map_err(io_error)?;
    Ok(())
}

/// What the operating system said, where it was that, so that it can be told from others.
fn io_error(error: rawzip::Error) -> io::Error {
    match error.kind() {
        rawzip::ErrorKind::IO(own) => match own.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(own.kind(), own.to_string()),
        },
        _ => io::Error::other(error),
    }
}

/// A tensor of the pickle.
struct Row<'a> {
    name: &'a str,
    class: &'static str,
    /// Number of its storage.
    place: usize,
    size: Vec<i64>,
}

/// `OrderedDict` of `_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`, in protocol 2.
fn pickle(rows: &[Row<'_>]) -> Result<Vec<u8>> {
    let mut out = b"\x80\x02".to_vec();
    out.extend(b"ccollections\nOrderedDict\n)R(");
    for Row { name, class, place, size } in rows {
        text(&mut out, name)?;
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage")?;
        out.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut out, &place.to_string())?;
        text(&mut out, "cpu")?;
        int(&mut out, size.iter().product());
        // End of the storage's id, and the offset.
        out.extend(b"tQK\x00");
        ints(&mut out, size);
        ints(&mut out, &contiguous(size));
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let len = u32::try_from(text.len())
        .map_err(|_| Error::argument("a name's length", "below 4 GB", text.len()))?;
    out.push(b'X');
    out.extend(len.to_le_bytes());
    out.extend(text.bytes());
    Ok(())
}

fn ints(out: &mut Vec<u8>, values: &[i64]) {
    out.push(b'(');
    values.iter().for_each(|value| int(out, *value));
    out.push(b't');
}

fn int(out: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend(value.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(value.to_le_bytes());
        }
    }
}

fn storage_class(name: &str, tensor: &Tensor) -> Result<&'static str> {
    Ok(match tensor.f_kind()? {
        Kind::Bool => "BoolStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Int8 => "CharStorage",
        Kind::Int16 => "ShortStorage",
        Kind::Int => "IntStorage",
        Kind::Int64 => "LongStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Float => "FloatStorage",
        Kind::Double => "DoubleStorage",
        Kind::ComplexFloat => "ComplexFloatStorage",
        Kind::ComplexDouble => "ComplexDoubleStorage",
        got => {
            let expected = "a kind that torch.save has a storage of".to_owned();
            return Err(Error::Kind { what: format!("the state dict's {}", shown(name)), expected, got });
        }
    })
}
