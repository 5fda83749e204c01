//! The same weight under two names.

use std::borrow::Cow;
use std::collections::HashMap;

/// What Python's wrappers put into names: `DistributedDataParallel` and SpikingJelly's `GradwithTrace`
/// (`module`), `torch.compile` (`_orig_mod`), the OTTT authors' code (`op`).
const WRAPPERS: [&str; 3] = ["module", "_orig_mod", "op"];

/// The name without its wrappers: `module.features.0.op.weight` is `features.0.weight`.
fn plain(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// For each wanted name the place of the one that is meant: itself, or one that differs by wrappers only.
///
/// A name that would answer to two, or two that would answer to one, answer to none.
pub(super) fn matched<'a>(
    wanted: impl Iterator<Item = &'a str> + Clone,
    there: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Option<usize>> {
    let exact: HashMap<&str, usize> = there.clone().enumerate().map(|(i, name)| (name, i)).collect();
    let mut found: Vec<Option<usize>> = wanted.clone().map(|name| exact.get(name).copied()).collect();
    let taken: Vec<usize> = found.iter().flatten().copied().collect();
    let mut free = vec![true; there.clone().count()];
    taken.into_iter().for_each(|i| free[i] = false);

    let mut by_plain: HashMap<String, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (i, name) in wanted.enumerate().filter(|(i, _)| found[*i].is_none()) {
        by_plain.entry(plain(name)).or_default().0.push(i);
    }
    for (i, name) in there.enumerate().filter(|(i, _)| free[*i]) {
        by_plain.entry(plain(name)).or_default().1.push(i);
    }
    for (wanted, there) in by_plain.into_values() {
        if let ([wanted], [there]) = (&wanted[..], &there[..]) {
            found[*wanted] = Some(*there);
        }
    }
    found
}

/// A text of a file as errors quote it: one of megabytes is shortened.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case::the_same("0.weight", "0.weight")]
    #[case::ddp("0.weight", "module.0.weight")]
    #[case::compiled("0.weight", "_orig_mod.0.weight")]
    #[case::both("0.weight", "_orig_mod.module.0.weight")]
    #[case::a_compiled_part("features.0.weight", "features._orig_mod.0.weight")]
    #[case::spikingjelly("0.weight", "0.module.weight")]
    #[case::ottt_authors("features.0.weight", "module.features.0.op.weight")]
    #[case::to_python("0.module.weight", "0.weight")]
    fn a_weight_is_found_under_its_wrapped_name(#[case] wanted: &str, #[case] there: &str) {
        assert_eq!(super::matched([wanted, "x"].into_iter(), ["y", there].into_iter()), [Some(1), None]);
    }

    #[test]
    fn an_exact_name_goes_first() {
        let there = ["module.weight", "weight"];
        assert_eq!(super::matched(["weight"].into_iter(), there.into_iter()), [Some(1)]);
        assert_eq!(super::matched(there.into_iter(), there.into_iter()), [Some(0), Some(1)]);
    }

    #[test]
    fn an_unclear_name_is_not_guessed() {
        assert_eq!(
            super::matched(["weight"].into_iter(), ["op.weight", "module.weight"].into_iter()),
            [None]
        );
        assert_eq!(
            super::matched(["op.weight", "module.weight"].into_iter(), ["weight"].into_iter()),
            [None, None]
        );
    }

    #[test]
    fn a_part_of_a_name_is_no_wrapper() {
        assert_eq!(super::matched(["0.weight"].into_iter(), ["modules.0.weight"].into_iter()), [None]);
    }
}
