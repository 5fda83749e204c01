//! Any bytes as the pickle in a sound archive, which its checksum would otherwise guard from change.
#![no_main]

use std::io::{Cursor, Write};

use rawzip::ZipArchiveWriter;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/state_dict/files/mod.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in [("a/data.pkl", bytes), ("a/data/0", &[1; 48]), ("a/data/1", &[0; 16])] {
        let (mut entry, config) = archive.new_file(name).start().unwrap();
        let mut data = config.wrap(&mut entry);
        data.write_all(bytes).unwrap();
        let (_, descriptor) = data.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    let file = archive.finish().unwrap();
    let len = file.len() as u64;
    if let Ok(contents) = files::parse(&mut Cursor::new(file), None) {
        // What is said to lie in the file does.
        assert!(contents.storages.iter().all(|storage| storage.begin + storage.len <= len));
    }
});
