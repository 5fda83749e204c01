//! A file that remembers what the operating system refused.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

/// A file whose readers may turn errors into sentences: what the operating system said is not lost.
pub(super) struct Watched {
    file: File,
    /// Why the last read that failed did; a file that ends too soon refuses nothing.
    pub(super) refusal: Option<io::Error>,
}

impl Watched {
    pub(super) fn new(file: File) -> Self {
        Self { file, refusal: None }
    }

    fn watch<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            // An interrupted call is repeated.
            if error.kind() != ErrorKind::Interrupted {
                self.refusal = error.raw_os_error().map(io::Error::from_raw_os_error);
            }
        }
        result
    }
}

impl Read for Watched {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let result = self.file.read(bytes);
        self.watch(result)
    }
}

impl Seek for Watched {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        let result = self.file.seek(place);
        self.watch(result)
    }
}
