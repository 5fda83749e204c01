//! The zip archive that torch.save writes: entries stored as they are, below one folder.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use rawzip::{CompressionMethod, ZipArchive, RECOMMENDED_BUFFER_SIZE};

use crate::state_dict::contents::{Storage, MAX_HEADER};
use crate::state_dict::names::shown;

/// More entries than any model has.
const MAX_ENTRIES: usize = 1 << 18;

/// Where the entries lie, by their names without the folder.
pub(super) struct Archive {
    entries: HashMap<String, Storage>,
    /// One that is not stored as it is.
    pub(super) compressed: Option<String>,
}

impl Archive {
    /// Reads the directory of the archive, none of its entries.
    pub(super) fn open(file: &mut (impl Read + Seek), len: u64) -> Result<Self, String> {
        let broken = |error: rawzip::Error| format!("is a broken or cut-off zip archive: {error}");
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let archive = ZipArchive::from_seekable(file, &mut buffer).map_err(broken)?;
        let mut entries = HashMap::new();
        let (mut folder, mut compressed) = (None::<String>, None);
        let count = archive.entries_hint();
        let mut walk = archive.entries(&mut buffer);
        // PyTorch puts a record behind the directory that is no entry: the count ends it.
        for _ in 0..count {
            let Some(record) = walk.next_entry().map_err(broken)? else { break };
            let path = std::str::from_utf8(record.file_path().as_ref()).map(str::to_owned);
            let path = path.map_err(|_| "is a zip archive with a name that is no text")?;
            let (own, name) = path.split_once('/').ok_or_else(|| NOT_PYTORCH.to_owned())?;
            let sound = |part: &str| !matches!(part, "" | "." | "..");
            if folder.get_or_insert_with(|| own.to_owned()) != own || !path.split('/').all(sound) {
                return Err(NOT_PYTORCH.into());
            }
            if record.compression_method() != CompressionMethod::Store {
                compressed.get_or_insert(path);
                continue;
            }
            let place = archive.get_entry(record.wayfinder()).map_err(broken)?;
            let (begin, end) = place.compressed_data_range();
            if end > len || end < begin || record.uncompressed_size_hint() != end - begin {
                let path = shown(&path);
                return Err(format!("is a broken or cut-off zip archive: {path} does not lie in it"));
            }
            let storage = Storage { begin, len: end - begin, crc32: Some(record.crc32()) };
            if entries.insert(name.to_owned(), storage).is_some() || entries.len() > MAX_ENTRIES {
                let path = shown(&path);
                return Err(format!("is a broken zip archive: it has {path} twice, or too many entries"));
            }
        }
        Ok(Self { entries, compressed })
    }

    pub(super) fn get(&self, name: &str) -> Option<Storage> {
        self.entries.get(name).copied()
    }

    /// The bytes of a small entry.
    pub(super) fn read(&self, file: &mut (impl Read + Seek), name: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(place) = self.get(name) else { return Ok(None) };
        if place.len > MAX_HEADER {
            return Err(format!("has a {name} of {} bytes, more than {MAX_HEADER}", place.len));
        }
        let unreadable = |error| format!("cannot be read: {error}");
        let mut bytes = vec![0; place.len as usize];
        file.seek(SeekFrom::Start(place.begin)).map_err(unreadable)?;
        file.read_exact(&mut bytes).map_err(unreadable)?;
        if place.crc32 != Some(crc32fast::hash(&bytes)) {
            return Err(format!("is damaged: {name} does not have its checksum"));
        }
        Ok(Some(bytes))
    }
}

const NOT_PYTORCH: &str = "is a zip archive, but not one of torch.save, which keeps all below one folder";
