//! Pickles that would run code, lie about tensors, or tie knots.

use std::path::Path;

use rstest::rstest;
use spiketrace::StateDict;

use super::{pickled, read, refused};
use crate::state_dict::fixture;

/// A pickle of integers in a tuple.
fn ints(values: &[i64]) -> Vec<u8> {
    let mut out = vec![b'('];
    for value in values {
        out.extend([0x8a, 8]);
        out.extend(value.to_le_bytes());
    }
    out.push(b't');
    out
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

/// The file of `{"w": a tensor}`: its storage's class, key and number of elements, its offset, size and strides.
pub(super) fn tensor(
    class: &str,
    key: &str,
    elements: i64,
    offset: i64,
    size: &[i64],
    stride: &[i64],
) -> Vec<u8> {
    let mut out = b"\x80\x02}".to_vec();
    out.extend(text("w"));
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    out.extend(text("storage"));
    out.extend(format!("ctorch\n{class}\n").bytes());
    out.extend([text(key), text("cpu")].concat());
    out.extend([0x8a, 8]);
    out.extend(elements.to_le_bytes());
    out.extend(b"tQ\x8a\x08");
    out.extend(offset.to_le_bytes());
    out.extend([ints(size), ints(stride)].concat());
    out.extend(b"\x89NtRs.");
    pickled(&out)
}

#[test]
fn the_tensor_that_the_lies_are_made_of_reads() {
    let state = read(&tensor("FloatStorage", "0", 4, 1, &[3], &[1])).unwrap();
    assert_eq!(state.get("w").unwrap().size(), [3]);
}

const MAX: i64 = i64::MAX;

#[rstest]
#[case::elements_claimed("0", 1 << 60, 0, &[1 << 60], &[1], "has 16 bytes and claims")]
#[case::elements_overflowing("0", MAX, 0, &[1], &[1], "claims more bytes than there are")]
#[case::elements_negative("0", -1, 0, &[1], &[1], "wrong arguments")]
#[case::size("0", 4, 0, &[1 << 60], &[1], "more than its file can hold")]
#[case::size_expanded("0", 4, 0, &[1 << 60], &[0], "more than its file can hold")]
#[case::sizes_overflowing("0", 4, 0, &[1 << 33, 1 << 33], &[0, 0], "more than its file can hold")]
#[case::sizes_overflowing_but_empty("0", 4, 0, &[1 << 60, 1 << 60, 0], &[0, 0, 0], "more than its file can hold")]
#[case::one_beyond("0", 4, 0, &[5], &[1], "does not fit its storage")]
#[case::strides_beyond("0", 4, 0, &[2, 2], &[3, 1], "does not fit its storage")]
#[case::stride_huge("0", 4, 0, &[2], &[MAX], "more than its file can hold")]
#[case::stride_negative("0", 4, 3, &[4], &[-1], "negative")]
#[case::size_negative("0", 4, 0, &[-1], &[1], "negative")]
#[case::offset_negative("0", 4, -1, &[1], &[1], "negative")]
#[case::offset_beyond("0", 4, 4, &[1], &[1], "does not fit its storage")]
#[case::offset_huge("0", 4, MAX, &[1], &[1], "does not fit its storage")]
#[case::offset_of_nothing("0", 4, MAX, &[0], &[1], "does not fit its storage")]
#[case::strides_missing("0", 4, 0, &[2, 2], &[1], "2 dimensions and 1 strides")]
#[case::dimensions("0", 4, 0, &[1; 65], &[1; 65], "more than 64 dimensions")]
#[case::no_such_storage("7", 4, 0, &[4], &[1], "the storage of w is missing")]
#[case::a_storage_elsewhere("../../../etc/passwd", 4, 0, &[4], &[1], "the storage of w is missing")]
#[case::the_pickle_for_storage("../data.pkl", 4, 0, &[4], &[1], "the storage of w is missing")]
fn a_tensor_that_lies_is_refused(
    #[case] key: &str,
    #[case] elements: i64,
    #[case] offset: i64,
    #[case] size: &[i64],
    #[case] stride: &[i64],
    #[case] words: &str,
) {
    refused(&tensor("FloatStorage", key, elements, offset, size, stride), &[words]);
}

#[test]
fn truth_values_are_0_or_1() {
    let mut bytes = tensor("BoolStorage", "0", 16, 0, &[16], &[1]);
    read(&bytes).unwrap();
    // The checksum of fifteen zeros and a 2, in the data descriptor and the directory.
    let (old, new) = (crc32fast::hash(&[0; 16]), crc32fast::hash(&[&[0; 15][..], &[2]].concat()));
    let at = bytes.windows(8).position(|window| window == b"a/data/0").unwrap() + 8;
    bytes[at + 15] = 2;
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == old.to_le_bytes() {
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
    }
    refused(&bytes, &["w holds truth values that are neither 0 nor 1"]);
}

#[test]
fn a_name_is_only_a_name() {
    let pickle = [b"}".to_vec(), text("../w"), b"Ns.".to_vec()].concat();
    refused(&pickled(&pickle), &["no tensors"]);
}

/// Each way of Python's to call a function.
#[rstest]
#[case::reduce(b"cposix\nsystem\n\x8c\x0btouch pwned\x85R.", "`posix.system`")]
#[case::stack_global(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch pwned\x85R.", "`posix.system`")]
#[case::inst(b"(\x8c\x0btouch pwnediposix\nsystem\n.", "operation 0x69")]
#[case::obj(b"(cos\nsystem\n\x8c\x0btouch pwnedo.", "`os.system`")]
#[case::newobj(b"csubprocess\nPopen\n\x8c\x0btouch pwned\x85\x81.", "`subprocess.Popen`")]
#[case::eval(b"cbuiltins\neval\n\x8c\x011\x85R.", "`builtins.eval`")]
#[case::getattr(b"cbuiltins\ngetattr\nctorch\nSize\n\x8c\x01x\x86R.", "`builtins.getattr`")]
#[case::torch_load(b"ctorch.serialization\nload\n\x8c\x01x\x85R.", "`torch.serialization.load`")]
#[case::load_from_bytes(
    b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R.",
    "`torch.storage._load_from_bytes`"
)]
#[case::dotted(
    b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "`collections.OrderedDict.__init__`"
)]
#[case::extension(b"\x82\x01.", "operation 0x82")]
#[case::hidden_in_a_list(b"}\x8c\x01w](cposix\nsystem\n\x8c\x01x\x85Res.", "`posix.system`")]
fn code_is_never_run(#[case] pickle: &[u8], #[case] words: &str) {
    refused(&pickled(pickle), &[words]);
    assert!(!Path::new("pwned").exists());
}

#[test]
fn pythons_own_hostile_file_runs_nothing() {
    assert!(StateDict::read(fixture("os_system.pt")).is_err());
    assert!(!Path::new("pwned").exists());
}

#[rstest]
#[case::nothing(b"")]
#[case::no_result(b".")]
#[case::popped_from_nothing(b"0.")]
#[case::no_mark(b"t.")]
#[case::below_a_mark(b"N(0.")]
#[case::tuple_below_a_mark(b"NN(N\x86.")]
#[case::never_kept(b"h\x07.")]
#[case::a_key_alone(b"}(Nu.")]
#[case::items_of_none(b"NNNs.")]
#[case::none_called(b"N)R.")]
#[case::no_arguments(b"ccollections\nOrderedDict\nNR.")]
#[case::a_long_text(b"X\xff\xff\xff\xff.")]
#[case::a_longer_text(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.")]
#[case::no_utf8(b"X\x01\x00\x00\x00\xff.")]
#[case::a_long_integer(b"\x8b\xff\xff\xff\x7f.")]
#[case::no_line(b"ctorch")]
#[case::an_id_of_none(b"NQ.")]
#[case::rebuilt_of_nothing(b"ctorch._utils\n_rebuild_tensor_v2\n)R.")]
#[case::from_type_of_itself(b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00N(h\x00N)NtNtR.")]
fn a_broken_pickle_is_an_error(#[case] pickle: &[u8]) {
    read(&pickled(pickle)).unwrap_err();
}

/// Knots, towers and floods: each ends in its own time and memory.
#[rstest]
#[case::a_dict_in_itself(b"}q\x00\x8c\x01wh\x00s.".to_vec())]
#[case::a_tower_of_tuples([&b")"[..], &vec![0x85; 1 << 20], b"."].concat())]
#[case::tuples_that_double([&b")"[..], &b"2\x86".repeat(1 << 19), b"."].concat())]
#[case::marks([vec![b'('; 1 << 22], b".".to_vec()].concat())]
#[case::nones([vec![b'N'; 1 << 22], b".".to_vec()].concat())]
#[case::dicts([vec![b'}'; 1 << 22], b".".to_vec()].concat())]
#[case::names([&b"N"[..], &vec![0x94; 1 << 22], b"."].concat())]
#[case::wide_tuples([&b"("[..], &vec![b'N'; 1 << 16], b"tq\x00", &b"(h\x00h\x00h\x00t".repeat(1 << 17), b"."].concat())]
#[case::wrapped_ids((0..1u32 << 20).flat_map(|i| [&b"Nr"[..], &i.to_le_bytes(), b"0"].concat()).chain(*b"}.").collect())]
fn a_flood_is_bounded(#[case] pickle: Vec<u8>) {
    let _ = read(&pickled(&pickle));
}

#[test]
fn a_flood_of_names_for_one_tensor_is_bounded() {
    let one = tensor("FloatStorage", "0", 4, 0, &[1; 64], &[1; 64]);
    let at = one.windows(6).position(|window| window == b"ctorch").unwrap();
    let end = one.windows(3).position(|window| window == b"Rs.").unwrap();
    let mut pickle = b"}(".to_vec();
    pickle.extend([text("w"), one[at..=end].to_vec(), b"q\x00".to_vec()].concat());
    for i in 0..100_000 {
        pickle.extend([text(&i.to_string()), b"h\x00".to_vec()].concat());
    }
    pickle.extend(b"u.");
    let text = read(&pickled(&pickle)).unwrap_err().to_string();
    assert!(text.contains("holds 100001 names, more than 65536"), "{text}");
}
