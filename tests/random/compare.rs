//! Random networks by every path: the same numbers, the same gradients, the same errors.

use proptest::test_runner::TestCaseError;
use spiketrace::setting::FastPaths;
use tch::{Kind, Tensor};

use crate::case::{cases, Case, Learning, Numbers, Outcome};
use crate::cases;

type Verdict = Result<(), TestCaseError>;

fn fail(text: String) -> Verdict {
    Err(TestCaseError::fail(text))
}

/// Each fast path alone, and all together.
fn paths() -> [(&'static str, FastPaths); 7] {
    let none = FastPaths::NONE;
    [
        ("all", FastPaths::default()),
        ("one_pass", FastPaths { one_pass: true, ..none }),
        ("fused_neuron", FastPaths { fused_neuron: true, ..none }),
        ("held_weights", FastPaths { held_weights: true, ..none }),
        ("fused_standardization", FastPaths { fused_standardization: true, ..none }),
        ("fused_loss", FastPaths { fused_loss: true, ..none }),
        ("channels_last", FastPaths { channels_last: true, ..none }),
    ]
}

fn largest(tensor: &Tensor) -> f64 {
    if !tensor.defined() || tensor.numel() == 0 {
        return 0.0;
    }
    tensor.abs().max().to_kind(Kind::Double).double_value(&[])
}

/// Compares tensors to 1e-10 of their own size, and a hundredth of that of the largest of them: where all of a gradient
/// cancels, what is left is rounding.
fn close(what: &str, got: &[&Tensor], expected: &[&Tensor], name: impl Fn(usize) -> String) -> Verdict {
    let scale = expected.iter().map(|tensor| largest(tensor)).fold(0.0, f64::max);
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        if got.size() != expected.size() {
            return fail(format!("{what} {}: {:?} instead of {:?}", name(i), got.size(), expected.size()));
        }
        let difference = largest(&(*got - *expected));
        let allowed = 1e-10 * (largest(expected) + 1e-2 * scale);
        // Written so that NaN fails.
        let fits = difference <= allowed;
        if !fits {
            let size = largest(expected);
            return fail(format!(
                "{what} {}: {difference:e} apart, of {size:e}, at most {allowed:e}",
                name(i)
            ));
        }
    }
    Ok(())
}

/// Results from weights that differ by this share must agree as fast and plain paths do; else rounding decides.
const NUDGE: f64 = 1e-13;

fn number(i: usize) -> String {
    i.to_string()
}

/// Which gradients exist.
fn same_gradients(got: &Outcome, expected: &Outcome) -> Verdict {
    for ((name, got), (_, expected)) in got.grads.iter().zip(&expected.grads) {
        if got.defined() != expected.defined() {
            let (has, had) = (got.defined(), expected.defined());
            return fail(format!("{name} has a gradient: {has}, without fast paths: {had}"));
        }
    }
    Ok(())
}

fn same_numbers(got: &Outcome, expected: &Outcome) -> Verdict {
    let all = |tensors: &'_ [Tensor]| tensors.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
    let compare = |what: &str, got: &[Tensor], expected: &[Tensor], names: &dyn Fn(usize) -> String| {
        close(what, &got.iter().collect::<Vec<_>>(), &expected.iter().collect::<Vec<_>>(), names)
    };
    compare("outputs", &got.outputs, &expected.outputs, &number)?;
    compare("loss", &got.losses, &expected.losses, &number)?;
    let defined = |outcome: &Outcome| {
        all(&outcome
            .grads
            .iter()
            .filter(|(_, g)| g.defined())
            .map(|(_, g)| g.shallow_clone())
            .collect::<Vec<_>>())
    };
    let names: Vec<&String> =
        expected.grads.iter().filter(|(_, g)| g.defined()).map(|(name, _)| name).collect();
    compare("gradient of", &defined(got), &defined(expected), &|i| names[i].clone())?;
    let weights =
        |outcome: &Outcome| outcome.weights.iter().map(|(_, w)| w.shallow_clone()).collect::<Vec<_>>();
    compare("weight", &weights(got), &weights(expected), &|i| expected.weights[i].0.clone())?;
    let carries = |outcome: &Outcome| outcome.memories.iter().map(Option::is_some).collect::<Vec<_>>();
    if carries(got) != carries(expected) {
        return fail(format!("memories {:?} instead of {:?}", carries(got), carries(expected)));
    }
    let memories =
        |outcome: &Outcome| outcome.memories.iter().flatten().map(Tensor::copy).collect::<Vec<_>>();
    compare("memory", &memories(got), &memories(expected), &number)?;
    compare("evaluation", &[got.evaluated.copy()], &[expected.evaluated.copy()], &number)
}

/// A sweep over memory has the arithmetic of the composed step, in its order: the values are the same bits, until
/// gradients have moved the weights.
fn same_bits(got: &Outcome, expected: &Outcome) -> Verdict {
    let bits = |tensor: &Tensor| tensor.contiguous().view([-1]).view_dtype(Kind::Uint8);
    if bits(&got.outputs[0]) != bits(&expected.outputs[0]) {
        return fail("the first outputs are not the same bits".to_owned());
    }
    Ok(())
}

fn compare(case: &Case) -> Verdict {
    let network = case.network();
    let reject = |why: &'static str| Err(TestCaseError::reject(why));
    if !network.neurons {
        return reject("no neurons");
    }
    if network.batch_norm && case.batch == 1 {
        return reject("a batch of one has no variance");
    }
    let expected = match case.run(FastPaths::NONE) {
        Ok(outcome) => outcome,
        Err(error) => return fail(format!("without fast paths: {error}")),
    };
    if !expected.rates.iter().all(|rate| (0.02..=0.98).contains(rate)) {
        return reject("a layer is silent, or fires always");
    }
    // Feedback and updates may drive each other up, and rounding with them.
    let all = expected.outputs.iter().chain(&expected.losses).chain(expected.memories.iter().flatten());
    if !all.map(largest).all(|size| size < 300.0) {
        return reject("numbers grow out of bounds");
    }
    if case.kind == Numbers::Double {
        let nudged = case.run_nudged(FastPaths::NONE, NUDGE);
        if !nudged.is_ok_and(|nudged| same_numbers(&nudged, &expected).is_ok()) {
            return reject("rounding grows");
        }
    }
    for (name, paths) in paths() {
        let named = |error: TestCaseError| TestCaseError::fail(format!("{name}: {error}"));
        let got = case.run(paths).map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        same_gradients(&got, &expected).map_err(named)?;
        if case.kind == Numbers::Double {
            same_numbers(&got, &expected).map_err(named)?;
        }
        let still_weights = !matches!(case.learning, Learning::EveryStep | Learning::Fptt);
        if name == "fused_neuron" && still_weights && case.kind != Numbers::Reduced {
            same_bits(&got, &expected).map_err(named)?;
        }
    }
    Ok(())
}

#[test]
fn every_fast_path_gives_what_none_gives() {
    cases::run(200, cases(), compare);
}
