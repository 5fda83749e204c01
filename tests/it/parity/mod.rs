//! The same numbers as SpikingJelly 2.0.0 on the same PyTorch: values and gradients, f32 and f64.
//!
//! `tests/fixtures/make.py` wrote what SpikingJelly computes; each group is replayed here case by case.
//! `cargo test --test it parity -- --nocapture` prints the worst relative differences.

pub mod fixture;
mod layers;
mod models;
mod neurons;
mod residual;
mod training;

use fixture::{manifest, read, Case};
use rstest::rstest;

use crate::thread_state::expect_as_new;

const GROUPS: [&str; 10] = [
    "replace_for_grad",
    "grad_with_trace",
    "spike_trace_op",
    "ottt_node",
    "sltt_node",
    "surrogate",
    "dropout",
    "ottt_online_training",
    "fptt",
    "optimizer",
];

#[rstest]
#[case::replace_for_grad(GROUPS[0], layers::replace_for_grad)]
#[case::grad_with_trace(GROUPS[1], layers::grad_with_trace)]
#[case::spike_trace_op(GROUPS[2], layers::spike_trace_op)]
#[case::ottt_node(GROUPS[3], neurons::ottt_node)]
#[case::sltt_node(GROUPS[4], neurons::sltt_node)]
#[case::surrogate(GROUPS[5], neurons::surrogate)]
#[case::dropout(GROUPS[6], layers::dropout)]
#[case::ottt_online_training(GROUPS[7], training::ottt_online_training)]
#[case::fptt(GROUPS[8], training::fptt)]
#[case::optimizer(GROUPS[9], training::optimizer)]
fn agrees_with_spikingjelly(
    #[case] group: &str,
    #[case] replay: fn(&mut Case),
    #[values(("f32", 1e-5), ("f64", 1e-10))] (dtype, tolerance): (&str, f64),
) {
    all_agree("manifest.json", group, replay, dtype, tolerance);
}

/// Replays a group's cases and prints the worst differences.
pub fn all_agree(manifest: &str, group: &str, replay: fn(&mut Case), dtype: &str, tolerance: f64) {
    let mut worst = [0.0f64; 2];
    for mut case in read(manifest, group, dtype) {
        replay(&mut case);
        let unread = case.unread();
        assert!(unread.is_empty(), "{group}.{dtype}, {}: {unread:?} were not compared", case.name);
        for (name, sort, difference) in &case.differences {
            // Written so that NaN fails.
            let close = *difference <= tolerance;
            assert!(close, "{group}.{dtype}, {}/{name} differs by {difference:e}", case.name);
            worst[*sort as usize] = worst[*sort as usize].max(*difference);
        }
    }
    println!(
        "worst relative difference: {group:20} {dtype}  values {:.1e}  gradients {:.1e}",
        worst[0], worst[1]
    );
    expect_as_new();
}

#[test]
fn every_group_of_the_fixtures_is_replayed() {
    let manifest = manifest("manifest.json");
    let groups: Vec<_> = manifest["groups"].as_object().unwrap().keys().map(String::as_str).collect();
    for group in &groups {
        assert!(GROUPS.contains(group), "{group} is in the manifest, but nothing replays it");
    }
    assert_eq!(groups.len(), GROUPS.len());
    assert_eq!(manifest["versions"]["spikingjelly"], "2.0.0");
}
