//! Any bytes as a file of weights.
#![no_main]

use std::io::Cursor;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/state_dict/files/mod.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = files::parse(&mut Cursor::new(bytes), None);
});
