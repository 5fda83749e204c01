//! Wrong uses, each with words of the sentence that it must lead to. None panics.

mod data;
mod example;
mod layers;
mod libtorch;
mod neurons;
mod training;

use std::panic::{catch_unwind, AssertUnwindSafe};

use spiketrace::Result;
use tch::Tensor;

use crate::common::FLOAT;
use crate::thread_state::expect_as_new;

/// What is done wrong, how, and what the message must contain.
type Row<'a> = (&'a str, &'a dyn Fn() -> Result<()>, &'a [&'a str]);

/// Runs every row and reports all that fall short, not only the first.
fn check(rows: &[Row<'_>]) {
    let mut failures = Vec::new();
    for (what, wrong_use, words) in rows {
        match catch_unwind(AssertUnwindSafe(wrong_use)) {
            Err(_) => failures.push(format!("{what}: panicked")),
            Ok(Ok(())) => failures.push(format!("{what}: passed as if nothing were wrong")),
            Ok(Err(error)) => {
                let text = error.to_string();
                let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
                let noise = ["\n", "unwrap()", "Exception raised", "unknown kind", "libtorch: libtorch"];
                if !missing.is_empty() || noise.iter().any(|noise| text.contains(noise)) {
                    failures.push(format!("{what}: {missing:?} not in: {text}"));
                }
            }
        }
        expect_as_new();
    }
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, FLOAT)
}
