//! Files whose opening, writing, fsync or renaming fails, one call at a time: `scripts/file-faults` runs these tests
//! with the library of scripts/file-faults.c preloaded, which makes the faults.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

mod example;
mod full_disk;
mod library;

const CALLS: [&str; 4] = ["open", "write", "fsync", "rename"];
/// Linux's ENOSPC, EIO and EINTR.
const ERRORS: [i32; 3] = [28, 5, 4];

/// One fault: the `number`-th call of that name fails with that error.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    error: i32,
    number: usize,
}

impl Fault {
    fn text(self) -> String {
        format!("{} {} {}", self.call, self.error, self.number)
    }

    /// The operating system's words for it.
    fn words(self) -> String {
        let text = io::Error::from_raw_os_error(self.error).to_string();
        text.split(" (os error").next().unwrap().to_owned()
    }

    /// `text` must be one sentence with the fault's words in it once.
    fn is_told_by(self, text: &str) {
        assert!(!text.trim_end().contains('\n') && !text.contains("panicked"), "{self:?}: {text}");
        assert_eq!(text.matches(&self.words()).count(), 1, "{self:?}: {text}");
    }
}

/// Calls `attempt` with each fault in turn; of each call and error until it answers that there was none any more.
/// Returns how many there were.
fn each_fault(mut attempt: impl FnMut(Fault) -> bool) -> usize {
    let mut count = 0;
    for call in CALLS {
        for error in ERRORS {
            let numbers = 1..1000;
            let happened = numbers.take_while(|&number| attempt(Fault { call, error, number }));
            count += happened.count();
        }
    }
    count
}

/// The folder that faults happen below.
fn folder() -> TempDir {
    let place = std::env::var_os("FAULT_FOLDER").expect("scripts/file-faults runs this");
    tempfile::tempdir_in(place).unwrap()
}

/// Runs `body` with a fault, and tells whether that has happened.
fn with_fault<T>(fault: Fault, body: impl FnOnce() -> T) -> (T, bool) {
    File::open(format!("/fault/arm {}", fault.text())).unwrap_err();
    let result = body();
    (result, File::open("/fault/fired").is_ok())
}

/// All files below a folder, by their paths in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}
