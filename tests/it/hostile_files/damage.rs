//! Sound files, cut off or with a bit turned.

use std::fs;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use spiketrace::StateDict;

use super::read;
use crate::state_dict::{fixture, hex};

fn values(state: &StateDict) -> Vec<(String, String, Vec<i64>)> {
    let mut values: Vec<_> = state.iter().map(|(name, t)| (name.to_owned(), hex(t), t.size())).collect();
    values.sort();
    values
}

#[rstest]
#[case("kinds.pt")]
#[case("views.pt")]
#[case("ordered_dict.bin")]
#[case("checkpoint_model.pt")]
#[case("protocol5.pt")]
#[case("kinds.safetensors")]
#[case("ordered_dict.safetensors")]
fn a_file_cut_off_anywhere_is_an_error(#[case] file: &str) {
    let whole = fs::read(fixture(file)).unwrap();
    read(&whole).unwrap();
    for part in 0..50 {
        let cut = whole.len() * part / 50;
        assert!(read(&whole[..cut]).is_err(), "the first {cut} of {} bytes", whole.len());
    }
    assert!(read(&whole[..whole.len() - 1]).is_err());
}

#[rstest]
#[case("kinds.pt")]
#[case("views.pt")]
fn a_turned_bit_is_an_error_or_one_that_says_nothing(#[case] file: &str) {
    let whole = fs::read(fixture(file)).unwrap();
    let sound = values(&read(&whole).unwrap());
    let mut errors = 0;
    for seed in 0..1000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bad = whole.clone();
        bad[random.gen_range(0..whole.len())] ^= 1 << random.gen_range(0..8);
        match read(&bad) {
            // Checksums guard all values, so these are the right ones.
            Ok(state) => assert_eq!(values(&state), sound, "seed {seed}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 400, "{errors} of 1000 noticed");
}

#[test]
fn a_turned_bit_in_safetensors_is_an_error_or_keeps_the_sizes() {
    let whole = fs::read(fixture("kinds.safetensors")).unwrap();
    let sound = read(&whole).unwrap();
    for seed in 0..1000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bad = whole.clone();
        bad[random.gen_range(0..whole.len())] ^= 1 << random.gen_range(0..8);
        // The format has no checksums: names and values may differ.
        if let Ok(state) = read(&bad) {
            let bytes = |state: &StateDict| state.iter().map(|(_, t)| hex(t).len()).sum::<usize>();
            let whole = bytes(&sound) == bytes(&state) || state.others().count() > 0;
            assert!(whole, "seed {seed}");
        }
    }
}

#[test]
fn many_turned_bytes_crash_nothing() {
    for file in ["views.pt", "kinds.safetensors"] {
        let whole = fs::read(fixture(file)).unwrap();
        for seed in 0..1000 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bad = whole.clone();
            for _ in 0..random.gen_range(2..20) {
                bad[random.gen_range(0..whole.len())] = random.gen();
            }
            let _ = read(&bad);
        }
    }
}
