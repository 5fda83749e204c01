//! The processor counts numbers below the smallest normal one after a step as before it, on every thread.

use std::hint::black_box;
use std::process::Command;

use rstest::rstest;
use tch::{Kind, Tensor};

use super::{set_grad, MAKERS};
use crate::common::FLOAT;

const CHILD: &str = "SPIKETRACE_TEST_FLAGS";

/// Whether this thread and all of libtorch's count them.
fn all_count() -> bool {
    let halves = Tensor::full([1 << 20], f64::from(f32::MIN_POSITIVE), FLOAT) * 0.5;
    let here = black_box(f32::MIN_POSITIVE) * black_box(0.5) > 0.0;
    here && halves.gt(0.0).all().int64_value(&[]) != 0
}

/// The half of [`no_thread_is_left_flushing`] that runs in a process of its own, as OpenMP reads its environment once.
#[test]
fn a_process_by_itself_is_not_left_flushing() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tch::set_num_threads(4);
    assert!(all_count());
    for size in [64, 4096, 1 << 18] {
        for make in MAKERS {
            let p = Tensor::ones([size], FLOAT).set_requires_grad(true);
            let mut optimizer = make(&[&p]).unwrap();
            set_grad(&p, &Tensor::ones_like(&p).to_kind(Kind::Float));
            optimizer.step().unwrap();
            assert!(all_count(), "numbers stay flushed to 0 after a step of {size} weights");
        }
    }
}

/// OpenMP gives fewer threads than it was asked for where it is told so, and one thread then does the work of several.
#[rstest]
fn no_thread_is_left_flushing(
    #[values(
        ("OMP_NUM_THREADS", "2"),
        ("OMP_THREAD_LIMIT", "1"),
        ("OMP_THREAD_LIMIT", "2"),
        ("OMP_DYNAMIC", "true")
    )]
    (name, value): (&str, &str),
) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "optimizer::flags::a_process_by_itself_is_not_left_flushing", "--nocapture"])
        .env(CHILD, "1")
        .env(name, value)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{name}={value}:\n{text}");
}
