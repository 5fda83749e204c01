//! Reading under a budget: whatever a file holds, the memory that its reader takes is linear in its length.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rawzip::ZipArchiveWriter;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/state_dict/files/mod.rs"]
mod files;

/// Most bytes that are taken at one time: for each byte of the file, and beside that. One byte of a pickle makes an
/// object of 24 in a list that doubles; one name of a few bytes stands in four tables.
const PEAK: (usize, usize) = (112, 96 << 10);

/// All bytes that are ever taken, likewise.
const TOTAL: (usize, usize) = (160, 128 << 10);

/// Reads the bytes as a file of weights.
pub fn read(file: &[u8]) {
    let before = LIVE.load(Relaxed);
    PEAK_LIVE.store(before, Relaxed);
    TAKEN.store(0, Relaxed);
    let contents = files::parse(&mut Cursor::new(file), None);
    let (peak, total) = (PEAK_LIVE.load(Relaxed) - before, TAKEN.load(Relaxed));
    for (what, taken, (factor, constant)) in [("at one time", peak, PEAK), ("in all", total, TOTAL)] {
        let bound = factor * file.len() + constant;
        assert!(
            taken <= bound,
            "{taken} bytes {what} for a file of {}, at most {bound} are allowed",
            file.len()
        );
    }
    match contents {
        // What is said to lie in the file does.
        Ok(contents) => assert!(contents.storages.iter().all(|s| s.begin + s.len <= file.len() as u64)),
        Err(text) => assert!(text.len() < 4096, "an error of {} bytes", text.len()),
    }
}

/// A file of torch.save with this pickle and these storages.
pub fn torch_save(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    let storages = storages.iter().map(|(key, bytes)| (format!("a/data/{key}"), *bytes));
    for (name, bytes) in [("a/data.pkl".to_owned(), pickle)].into_iter().chain(storages) {
        let (mut entry, config) = archive.new_file(&name).start().unwrap();
        let mut data = config.wrap(&mut entry);
        data.write_all(bytes).unwrap();
        let (_, descriptor) = data.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK_LIVE: AtomicUsize = AtomicUsize::new(0);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Counts what is taken; what grows is counted as a new piece beside the old one.
struct Counting;

// SAFETY: the system's allocator does it all; here is only counted, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        PEAK_LIVE.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        System.dealloc(pointer, layout)
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
