//! Files that say once and mention often. Four times the file may take four times the memory and time, not sixteen.

use std::fs;
use std::time::Instant;

use allocation_counter::measure;
use rstest::rstest;
use spiketrace::{StateDict, Variable};
use tch::{Kind, Tensor};

use super::pickles::text;
use super::{archive, pickled, safetensors, within_budget};

/// The processor time of this thread so far: what runs beside the test does not count.
fn seconds() -> f64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(
        || {
            static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            START.get_or_init(Instant::now).elapsed().as_secs_f64()
        },
        |nanoseconds| nanoseconds * 1e-9,
    )
}

/// Panics where four times `n` takes much more than four times as long.
fn assert_linear(mut run: impl FnMut(usize), n: usize) {
    let mut least = |n| {
        let once = |_| {
            let start = seconds();
            run(n);
            seconds() - start
        };
        (0..3).map(once).fold(f64::MAX, f64::min)
    };
    let (short, long) = (least(n), least(4 * n));
    assert!(long <= 9.0 * short + 0.02, "{short:.4} s became {long:.4} s");
}

fn assert_reads_linearly(file: fn(usize) -> Vec<u8>, n: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = |n: usize| folder.path().join(n.to_string());
    for n in [n, 4 * n] {
        let file = file(n);
        fs::write(path(n), &file).unwrap();
        within_budget(&measure(|| drop(StateDict::read(path(n)))), file.len());
    }
    assert_linear(|n| drop(StateDict::read(path(n))), n);
}

fn long_text(len: usize) -> Vec<u8> {
    [&b"X"[..], &(len as u32).to_le_bytes(), &vec![b'k'; len]].concat()
}

/// A tuple of ones.
fn ones(count: usize) -> Vec<u8> {
    [&b"("[..], &b"K\x01".repeat(count), b"t"].concat()
}

/// A call's function and its arguments: a tensor of one element, with so many dimensions.
fn tensor(key: &str, class: &str, elements: usize, dims: usize) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n");
    let key = [&b"X"[..], &(key.len() as u32).to_le_bytes(), key.as_bytes()].concat();
    let elements = [&b"\x8a\x08"[..], &elements.to_le_bytes()].concat();
    let id = [b"(", &text("storage")[..], class.as_bytes(), &key, b"N", &elements, b"tQ"].concat();
    let function = b"ctorch._utils\n_rebuild_tensor_v2\nq\0";
    [&function[..], b"(", &id, b"K\0", &ones(dims), &ones(dims), b"\x89Ntq\x01"].concat()
}

/// A file of one tensor under many names.
fn named(key: &str, class: &str, bytes: usize, dims: usize, names: usize) -> Vec<u8> {
    let elements = if class == "FloatStorage" { bytes / 4 } else { bytes };
    let mut pickle = [&tensor(key, class, elements, dims)[..], b"Rq\0}("].concat();
    (0..names).for_each(|i| pickle.extend([text(&i.to_string()), b"h\0".to_vec()].concat()));
    pickle.extend(b"u.");
    archive(&[("a/data.pkl", &pickle), (&format!("a/data/{key}"), &vec![1; bytes])])
}

#[rstest]
#[case::a_storages_key(|n| {
    let id = [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &long_text(n), b"NK\x01tq\0"].concat();
    pickled(&[&id[..], &b"h\0Q0".repeat(n / 4), b"}."].concat())
}, 1 << 18)]
#[case::tensors_that_nobody_keeps(|n| {
    pickled(&[&tensor("0", "FloatStorage", 4, 64)[..], &b"h\0h\x01R0".repeat(n), b"}."].concat())
}, 1 << 14)]
#[case::the_arguments_of_a_call(|n| {
    let made = [&ones(n)[..], b"q\0cbuiltins\nset\nq\x01"].concat();
    pickled(&[&made[..], &b"h\x01h\0R0".repeat(n), b"}."].concat())
}, 1 << 14)]
#[case::the_arguments_of_a_call_in_a_call(|n| {
    let inner = [&ones(n)[..], b"q\0ctorch._tensor\n_rebuild_from_type_v2\nq\x01"].concat();
    let outer = b"(cbuiltins\nset\nNh\0tq\x02";
    pickled(&[&inner[..], outer, &b"h\x01h\x02R0".repeat(n), b"}."].concat())
}, 1 << 14)]
#[case::a_name_in_a_dict(|n| {
    pickled(&[&long_text(n)[..], b"q\0}(", &b"h\0N".repeat(n / 4), b"u."].concat())
}, 1 << 18)]
#[case::a_long_text(|n| pickled(&[&long_text(n / 64).repeat(64)[..], b"}."].concat()), 1 << 18)]
#[case::a_stack_that_was_high(|n| pickled(&[b"(", &vec![b'N'; n][..], b"1", &b"(t0(1".repeat(n / 4), b"}."].concat()), 1 << 16)]
#[case::a_wide_tuple(|n| {
    let wide = ones(n);
    pickled(&[&wide[..], b"q\0", &b"(h\0h\0h\0t0".repeat(n / 8), b"}."].concat())
}, 1 << 16)]
#[case::a_tensor_of_many_names(|n| named("0", "FloatStorage", 16, 1, n), 1 << 12)]
#[case::sizes_and_strides(|n| named("0", "FloatStorage", 16, 64, n), 1 << 12)]
#[case::a_long_key_of_many_tensors(|n| named(&"k".repeat(3 * n), "FloatStorage", 16, 1, n), 1 << 12)]
#[case::truth_values(|n| named("0", "BoolStorage", 256 * n, 1, n), 1 << 12)]
#[case::entries(|n| {
    let names: Vec<String> = (0..n).map(|i| format!("a/data/{i}")).collect();
    let entries = names.iter().map(|name| (name.as_str(), &b"1"[..]));
    archive(&entries.chain([("a/data.pkl", &b"}."[..])]).collect::<Vec<_>>())
}, 1 << 12)]
#[case::names_of_safetensors(|n| {
    let row = |i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    safetensors::file(&format!("{{{}}}", (0..n).map(row).collect::<Vec<_>>().join(",")), 0)
}, 1 << 12)]
#[case::dimensions_of_safetensors(|n| {
    let row = format!(r#"{{"a":{{"dtype":"U8","shape":[1{}],"data_offsets":[0,1]}}}}"#, ",1".repeat(n));
    safetensors::file(&row, 1)
}, 1 << 16)]
fn what_is_mentioned_often_is_read_in_linear_time_and_memory(
    #[case] file: fn(usize) -> Vec<u8>,
    #[case] n: usize,
) {
    assert_reads_linearly(file, n);
}

#[test]
fn one_tensor_of_many_names_reads_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    for (key, class, dims) in [("0", "FloatStorage", 64), (&"k".repeat(4096), "BoolStorage", 1)] {
        fs::write(&path, named(key, class, 16, dims, 100)).unwrap();
        let state = StateDict::read(&path).unwrap();
        assert_eq!((state.len(), state.get("99").unwrap().dim()), (100, dims));
    }
}

#[test]
fn names_are_matched_and_written_in_linear_time() {
    let tensor = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
    let state = |n, wrapper: &str| {
        let rows = (0..n).map(|i| Variable::parameter(format!("{i}.{wrapper}weight"), &tensor));
        rows.collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().unwrap();
    for (own, others) in [("", "module."), ("", ""), ("x.", "y.")] {
        assert_linear(
            |n| drop(StateDict::of(&state(n, others)).compare(&state(n, own)).unwrap().to_string()),
            2000,
        );
    }
    for ending in ["pt", "safetensors"] {
        let path = folder.path().join(format!("weights.{ending}"));
        assert_linear(|n| StateDict::of(&state(n, "")).write(&path).unwrap(), 2000);
    }
}
