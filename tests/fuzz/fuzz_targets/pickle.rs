//! Any bytes as the pickle in a sound archive, which its checksum would otherwise guard from change.
#![no_main]

use spiketrace_fuzz::{read, torch_save};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read(&torch_save(bytes, &[("0", &[1; 48]), ("1", &[0; 16])])));
