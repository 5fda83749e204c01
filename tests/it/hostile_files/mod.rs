//! Files of weights that are broken or mean harm: an error each, no crash, nothing run, no model touched, and no
//! memory taken on a file's word.

mod archives;
mod damage;
mod pickles;
mod quotes;
mod reuse;
mod safetensors;

use std::fs;
use std::io::Write;

use allocation_counter::{measure, AllocationInfo};
use rawzip::ZipArchiveWriter;
use spiketrace::{LoadConfig, Part, Result, StateDict};
use tch::Device;

use crate::state_dict::{hex, model};

/// Panics where reading a file of that length took more memory than that allows: at one time 128 bytes for each of
/// the file's, in all 256, and a little for buffers and tables.
///
/// Counted is the memory of Rust; that of tensors is bounded by the sum of the storages, which lie in the file.
fn within_budget(taken: &AllocationInfo, len: usize) {
    let (len, small) = (len as u64, 512 << 10);
    assert!(
        taken.bytes_max <= 128 * len + small,
        "{} bytes at one time for a file of {len}",
        taken.bytes_max
    );
    assert!(taken.bytes_total <= 256 * len + small, "{} bytes in all for a file of {len}", taken.bytes_total);
}

/// Reads `bytes` as a file and loads it into a model: whatever comes of it, the model is whole.
fn read(bytes: &[u8]) -> Result<StateDict> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, bytes).unwrap();
    let (_vs, net) = model(Device::Cpu);
    let bits = || net.variables().iter().map(|p| hex(&p.tensor)).collect::<Vec<_>>();
    let before = bits();

    let mut state = None;
    within_budget(&measure(|| state = Some(StateDict::read(&path))), bytes.len());
    let state = state.unwrap();
    let tensors = state.iter().flat_map(StateDict::iter);
    // Views of one storage count once.
    let mut storages: Vec<_> =
        tensors.filter(|(_, t)| t.is_contiguous()).map(|(_, t)| (t.data_ptr() as usize, t.numel())).collect();
    storages.sort_unstable();
    storages.dedup();
    assert!(storages.iter().map(|(_, numel)| *numel).sum::<usize>() <= bytes.len().max(1));

    if state.as_ref().map_or(true, |state| state.load_into(&net.variables(), LoadConfig::default()).is_err())
    {
        assert_eq!(bits(), before, "a failed load changed the model");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the reader left something behind");
    state
}

/// The error of reading `bytes`, which must be one and say all `words`.
fn refused(bytes: &[u8], words: &[&str]) {
    let text = read(bytes).unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} not in: {text}");
    }
}

/// An archive of torch.save with these entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in entries {
        let (mut entry, config) = archive.new_file(name).start().unwrap();
        let mut data = config.wrap(&mut entry);
        data.write_all(bytes).unwrap();
        let (_, descriptor) = data.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

/// A file of torch.save with this pickle and one storage, `0`, of 16 bytes.
fn pickled(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16]), ("a/version", b"3\n")])
}
