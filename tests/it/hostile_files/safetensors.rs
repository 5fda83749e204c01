//! Headers of safetensors that lie.

use rstest::rstest;

use super::{read, refused};

pub(super) fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn the_header_that_the_lies_are_made_of_reads() {
    let state = read(&file(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8)).unwrap();
    assert_eq!(state.get("w").unwrap().size(), [2]);
}

#[rstest]
#[case::overlapping(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, "b lies at 4 to 12")]
#[case::the_same_place(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#, "b lies at 0 to 12")]
#[case::a_gap(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#, "b lies at 8 to 12")]
#[case::more_data(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, "12 bytes of data, expected 4")]
#[case::beyond(r#"{"a":{"dtype":"U8","shape":[99],"data_offsets":[0,99]}}"#, "a lies at 0 to 99")]
#[case::backwards(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#, "a lies at 4 to 0")]
#[case::another_size(
    r#"{"a":{"dtype":"F64","shape":[3],"data_offsets":[0,12]}}"#,
    "a has 12 bytes for the shape [3]"
)]
#[case::elements(
    r#"{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,12]}}"#,
    "a has 12 bytes for the shape"
)]
#[case::overflow(
    r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,12]}}"#,
    "a has 12 bytes for the shape"
)]
#[case::empty_overflow(r#"{"a":{"dtype":"F32","shape":[9223372036854775807,0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}"#, "more than its file can hold")]
#[case::negative(r#"{"a":{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}}"#, "its header is broken")]
#[case::fraction(r#"{"a":{"dtype":"F32","shape":[3.0],"data_offsets":[0,12]}}"#, "its header is broken")]
#[case::another_dtype(r#"{"a":{"dtype":"F99","shape":[3],"data_offsets":[0,12]}}"#, "unknown variant `F99`")]
#[case::twice(r#"{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]},"a":{"dtype":"U8","shape":[0],"data_offsets":[12,12]}}"#, "it holds a twice")]
#[case::a_list(r#"{"a":[1,2]}"#, "its header is broken")]
#[case::no_end(r#"{"a":{"dtype":"U8","shape":[12]"#, "its header is broken")]
#[case::more_text(r#"{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}} {}"#, "its header is broken")]
#[case::metadata(
    r#"{"__metadata__":{"a":1},"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}"#,
    "its header is broken"
)]
fn a_header_that_lies_is_refused(#[case] header: &str, #[case] words: &str) {
    refused(&file(header, 12), &[words]);
}

#[rstest]
#[case::beyond(|len| len + 1)]
#[case::huge(|_| 1 << 62)]
#[case::overflowing(|_| u64::MAX)]
fn a_header_beyond_the_file_is_refused(#[case] len: fn(u64) -> u64) {
    let mut bytes = file(r#"{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}"#, 12);
    let header = len(bytes.len() as u64);
    bytes[..8].copy_from_slice(&header.to_le_bytes());
    refused(&bytes, &["is broken or cut off"]);
}

#[test]
fn a_header_that_is_no_text_is_refused() {
    refused(&[&5u64.to_le_bytes()[..], b"{\"\xff\":"].concat(), &["its header is broken"]);
}

#[test]
fn truth_values_are_0_or_1() {
    let mut bytes = file(r#"{"a":{"dtype":"BOOL","shape":[12],"data_offsets":[0,12]}}"#, 12);
    read(&bytes).unwrap();
    *bytes.last_mut().unwrap() = 255;
    refused(&bytes, &["a holds truth values that are neither 0 nor 1"]);
}

#[test]
fn a_header_of_17_megabytes_is_not_read() {
    refused(&file(&format!("{{{}", " ".repeat(17 << 20)), 0), &["more than 16777216"]);
}

/// Nested lists, a shape of millions of dimensions, millions of names.
#[rstest]
#[case::nested(format!("{{\"a\":{}", "[".repeat(1 << 20)))]
#[case::nested_beside(format!("{{\"a\":{{\"x\":{}", "[".repeat(1 << 20)))]
#[case::dimensions(format!(r#"{{"a":{{"dtype":"U8","shape":[1{}],"data_offsets":[0,1]}}}}"#, ",1".repeat(1 << 21)))]
#[case::texts(format!(r#"{{"__metadata__":{{{}"z":"z"}}}}"#, (0..1 << 18).map(|i| format!(r#""{i}":"","#)).collect::<String>()))]
#[case::names(format!("{{{}}}", (0..1 << 17).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect::<Vec<_>>().join(",")))]
fn a_flood_is_bounded(#[case] header: String) {
    let _ = read(&file(&header, 1));
}

/// A header's length may begin as another format does.
#[rstest]
#[case::a_pickle(0x80)]
#[case::a_zip_archive(u64::from(u16::from_le_bytes(*b"PK")))]
fn a_sound_file_is_known_whatever_its_first_bytes(#[case] header: u64) {
    let text = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let padding = " ".repeat(header as usize - text.len());
    assert_eq!(read(&file(&format!("{text}{padding}"), 8)).unwrap().len(), 1);
}
