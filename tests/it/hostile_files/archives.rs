//! Archives that lie about what is in them.

use std::fs;

use rstest::rstest;

use super::{archive, pickled, read, refused};
use crate::state_dict::fixture;

/// Where `needle` first lies in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// Places of the directory's records, each of which begins with its signature.
fn records(bytes: &[u8]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").map(|(i, _)| i).collect()
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn a_zip_bomb_is_not_unpacked() {
    // Said to be 4 GB of zeros, packed.
    let mut bomb = archive(&[("a/data.pkl", b"}."), ("a/data/0", &[0; 64])]);
    let record = records(&bomb)[1];
    set(&mut bomb, record + 10, &8u16.to_le_bytes());
    set(&mut bomb, record + 24, &0xffff_fff0u32.to_le_bytes());
    refused(&bomb, &["a/data/0 is compressed"]);
}

#[rstest]
#[case::larger(&(1u32 << 30).to_le_bytes(), "does not lie in it")]
#[case::a_little_larger(&65u32.to_le_bytes(), "")]
fn an_entry_beyond_the_file_is_an_error(#[case] size: &[u8], #[case] words: &str) {
    let mut bytes = archive(&[("a/data.pkl", b"}."), ("a/data/0", &[0; 64])]);
    let record = records(&bytes)[1];
    set(&mut bytes, record + 20, size);
    set(&mut bytes, record + 24, size);
    match words {
        // It reaches into the directory, which nobody asks for.
        "" => assert!(read(&bytes).unwrap().is_empty()),
        words => refused(&bytes, &[words]),
    }
}

#[test]
fn entries_that_share_their_bytes_do_not_add_up() {
    // All storages of a real file are made the first, the largest; each still has a record of its own.
    let mut bytes = fs::read(fixture("views.pt")).unwrap();
    let at: Vec<usize> =
        records(&bytes).into_iter().filter(|at| bytes[at + 46..].starts_with(b"views/data/")).collect();
    let largest = *at
        .iter()
        .max_by_key(|&&at| u32::from_le_bytes(bytes[at + 24..at + 28].try_into().unwrap()))
        .unwrap();
    let copied: Vec<u8> = bytes[largest + 16..largest + 28].to_vec();
    let place = bytes[largest + 42..largest + 46].to_vec();
    for at in at {
        set(&mut bytes, at + 16, &copied);
        set(&mut bytes, at + 42, &place);
    }
    refused(&bytes, &["is broken"]);
}

#[rstest]
#[case::up("a/..")]
#[case::here("a/.")]
#[case::absolute("/abc")]
#[case::empty("a//b")]
#[case::another_folder("b/cd")]
#[case::no_folder("abcd")]
fn names_that_lead_elsewhere_are_refused(#[case] name: &str) {
    let own = &"a/cd"[..name.len().min(4)];
    let own = format!("{own}{}", "e".repeat(name.len() - own.len()));
    let mut bytes = archive(&[("a/data.pkl", b"}."), (&own, b"x")]);
    // In the local header and in the directory.
    for _ in 0..2 {
        let at = find(&bytes, own.as_bytes());
        set(&mut bytes, at, name.as_bytes());
    }
    refused(&bytes, &["not one of torch.save"]);
}

#[test]
fn one_name_twice_is_refused() {
    refused(&archive(&[("a/data.pkl", b"}."), ("a/data.pkl", b"}.")]), &["a/data.pkl twice"]);
}

#[test]
fn a_directory_that_claims_billions_of_entries_takes_no_memory() {
    let mut bytes = pickled(b"}.");
    let end = find(&bytes, b"PK\x05\x06");
    set(&mut bytes, end + 8, &0xfffeu16.to_le_bytes());
    set(&mut bytes, end + 10, &0xfffeu16.to_le_bytes());
    let _ = read(&bytes);
    // A record for large archives, with 2^60 entries, and its locator.
    let mut large = pickled(b"}.");
    let end = find(&large, b"PK\x05\x06");
    let tail = large.split_off(end);
    let begin = u32::from_le_bytes(tail[16..20].try_into().unwrap());
    let size = u32::from_le_bytes(tail[12..16].try_into().unwrap());
    let place = large.len() as u64;
    large.extend(b"PK\x06\x06");
    large.extend(44u64.to_le_bytes());
    large.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    large.extend((1u64 << 60).to_le_bytes());
    large.extend((1u64 << 60).to_le_bytes());
    large.extend(u64::from(size).to_le_bytes());
    large.extend(u64::from(begin).to_le_bytes());
    large.extend(b"PK\x06\x07\0\0\0\0");
    large.extend(place.to_le_bytes());
    large.extend([1, 0, 0, 0]);
    large.extend(tail);
    let at = find(&large, b"PK\x05\x06");
    set(&mut large, at + 8, &[0xff; 4]);
    set(&mut large, at + 12, &[0xff; 8]);
    assert!(read(&large).unwrap().is_empty());
}

#[test]
fn another_byte_order_is_refused() {
    refused(&archive(&[("a/data.pkl", b"}."), ("a/byteorder", b"big")]), &["other byte order"]);
}

#[test]
fn an_archive_of_something_else_is_refused() {
    refused(&archive(&[("word/document.xml", b"<w/>")]), &["has no data.pkl"]);
    refused(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &["has no data.pkl"]);
    refused(b"PK", &["zip archive"]);
}

#[test]
fn a_pickle_of_17_megabytes_is_not_read() {
    let pickle = vec![b'N'; 17 << 20];
    let text = read(&archive(&[("a/data.pkl", &pickle)])).unwrap_err().to_string();
    assert!(text.contains("more than 16777216"), "{text}");
}
