//! What a file of weights holds: where each storage lies in it, and which tensor looks at which storage.
//!
//! A file is not believed: every length is held against the file's own before memory is taken for it. Memory and
//! work are linear in the file's length, and what the readers need beside the tensors is bounded: 16 MiB of
//! header or pickle, of which no more than two million objects are made.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::names::shown;

/// The longest header or pickle that is read.
pub(crate) const MAX_HEADER: u64 = 16 << 20;

/// More tensors than any model has.
pub(crate) const MAX_TENSORS: usize = 1 << 16;

/// A file's tensors, before their values are read.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) storages: Vec<Storage>,
    pub(crate) tensors: Vec<Entry>,
    /// Names of what is no tensor that can be read, and what it is.
    pub(crate) others: Vec<(String, String)>,
    /// Texts beside the tensors.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Bytes of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage {
    pub(crate) begin: u64,
    pub(crate) len: u64,
    /// Their checksum, where the file has one.
    pub(crate) crc32: Option<u32>,
}

/// A tensor's view of a storage; offset and strides are counted in elements.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) size: Rc<[i64]>,
    pub(crate) stride: Rc<[i64]>,
    pub(crate) offset: i64,
    /// Index of the storage.
    pub(crate) storage: usize,
}

/// The element types that tch knows too.
#[cfg_attr(not(feature = "pytorch"), allow(dead_code))] // safetensors has no complex numbers
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
    C64,
    C128,
}

impl Dtype {
    /// Bytes an element.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 | Self::C64 => 8,
            Self::C128 => 16,
        }
    }
}

/// Strides of elements that lie one after another.
pub(crate) fn contiguous(size: &[i64]) -> Vec<i64> {
    let step = |next: &mut i64, dim: &i64| Some(std::mem::replace(next, next.saturating_mul((*dim).max(1))));
    let mut stride: Vec<i64> = size.iter().rev().scan(1, step).collect();
    stride.reverse();
    stride
}

impl Contents {
    /// Errors unless all storages lie in the file, together take no more than it, and all tensors lie in them.
    pub(super) fn check(&self, file: u64) -> Result<(), String> {
        if self.tensors.len() > MAX_TENSORS {
            return Err(format!("holds {} tensors, more than {MAX_TENSORS}", self.tensors.len()));
        }
        let mut total = 0u64;
        for storage in &self.storages {
            let end = storage.begin.checked_add(storage.len).filter(|&end| end <= file);
            end.ok_or("is broken or cut off: a storage ends behind the file")?;
            total = total.saturating_add(storage.len);
        }
        if total > file {
            return Err("is broken: its storages overlap".into());
        }
        for entry in &self.tensors {
            let storage = self.storages[entry.storage].len;
            entry
                .check(storage, file)
                .map_err(|problem| format!("is broken: {} {problem}", shown(&entry.name)))?;
        }
        Ok(())
    }
}

impl Entry {
    fn check(&self, storage: u64, file: u64) -> Result<(), String> {
        let Self { size, stride, offset, .. } = self;
        if size.len() != stride.len() || size.len() > 64 {
            return Err(format!("has {} dimensions and {} strides", size.len(), stride.len()));
        }
        if *offset < 0 || size.iter().chain(&stride[..]).any(|&n| n < 0) {
            return Err(format!("has a negative size {size:?}, stride {stride:?} or offset {offset}"));
        }
        // An expanded tensor may show its storage many times; a few real ones do, in small.
        let limit = file.max(1 << 24) as i128;
        let elements =
            size.iter().try_fold(1i128, |n, &dim| Some(n * dim.max(1) as i128).filter(|n| *n <= limit));
        if elements.is_none() || stride.iter().any(|&n| n as i128 > limit) {
            return Err(format!(
                "claims the shape {size:?} with strides {stride:?}, more than its file can hold"
            ));
        }
        let last: i128 =
            size.iter().zip(&stride[..]).map(|(&dim, &n)| (dim - 1).max(0) as i128 * n as i128).sum();
        let needed = if size.contains(&0) { *offset as i128 } else { *offset as i128 + last + 1 };
        if needed * self.dtype.bytes() as i128 > storage as i128
            || !storage.is_multiple_of(self.dtype.bytes())
        {
            return Err(format!(
                "with shape {size:?}, strides {stride:?} and offset {offset} does not fit its storage of {storage} bytes"
            ));
        }
        Ok(())
    }
}
