//! How many cases, and from which seed on.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::thread_state::expect_as_new;

/// One test at a time: all draw from libtorch's one generator, and its threads are few.
static ALONE: Mutex<()> = Mutex::new(());

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text}, no number")))
}

/// Runs `body`, in which panics are expected and caught, without their words on the screen.
pub fn quietly<T>(body: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = body();
    std::panic::set_hook(hook);
    result
}

/// Runs `test` on `count` cases, each drawn from a seed of its own; `SPIKETRACE_CASES` and `SPIKETRACE_SEED` say otherwise.
///
/// A case that says nothing, by its own judgement, is drawn again.
pub fn run<S: Strategy>(count: u64, strategy: S, test: impl Fn(&S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // These tensors are too small for two, and threads that wait for each other are slow beside other work.
    tch::set_num_threads(1);
    let (count, first) =
        (variable("SPIKETRACE_CASES").unwrap_or(count), variable("SPIKETRACE_SEED").unwrap_or(0));
    let redrawn = std::cell::Cell::new(0u64);
    for seed in first..first + count {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            max_global_rejects: 10_000,
            max_shrink_iters: 300,
            failure_persistence: None,
            ..Config::default()
        };
        let result = TestRunner::new_with_rng(config, rng).run(&strategy, |case| {
            let result = test(&case);
            expect_as_new();
            if let Err(TestCaseError::Reject(_)) = result {
                redrawn.set(redrawn.get() + 1);
            }
            result
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, case)) => panic!("SEED={seed} fails: {why}\nshrunk to {case:#?}"),
            Err(TestError::Abort(why)) => panic!("SEED={seed} finds no case: {why}"),
        }
        if count >= 1000 && (seed + 1 - first).is_multiple_of(500) {
            eprintln!("{} cases, {} redrawn", seed + 1 - first, redrawn.get());
        }
    }
    eprintln!("{count} cases from seed {first} on, {} redrawn", redrawn.get());
}
