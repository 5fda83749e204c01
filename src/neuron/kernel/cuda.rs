//! One kernel a neuron step on CUDA, and one for its backward.
//!
//! The arithmetic of the composed step, written as CUDA C++ with the neuron's constants in it;
//! libtorch compiles it at its first call and keeps it (its "jiterator"). Nothing here makes the host wait.

use std::hash::{DefaultHasher, Hash, Hasher};

use tch::Tensor;

use super::composed::{one_by_one, Step};
use super::fired::fired;
use super::request::{Request, Spikes};
use crate::error::{Error, Result};
use crate::ffi::{grad_enabled, launch};
use crate::module::Memory;
use crate::neuron::dynamics::LifConfig;
use crate::surrogate::Surrogate;

pub(super) fn steps(request: &Request<'_>, v: &mut Memory, trace: &mut Memory) -> Result<Spikes> {
    one_by_one(request, v, trace, step)
}

fn step(request: &Request<'_>, x: &Tensor, v: Option<&Tensor>, a: Option<&Tensor>) -> Result<Step> {
    let Request { config, leak, pass, .. } = *request;
    let record = pass.train && grad_enabled() && x.requires_grad();
    let data = x.f_detach()?;
    let or_full = |state: Option<&Tensor>, value: f64| match state {
        Some(state) => Ok(state.shallow_clone()),
        None => data.f_full_like(value),
    };
    let v = or_full(v, config.rest())?;
    let a = leak.map(|_| or_full(a, 0.0)).transpose()?;
    let inputs: Vec<&Tensor> = [Some(&data), Some(&v), a.as_ref()].into_iter().flatten().collect();
    let (name, code) = forward_kernel(config, leak);
    let mut made = launch(&code, &name, 3 + usize::from(leak.is_some()), &inputs)?.into_iter();
    let mut next = || made.next().ok_or_else(|| Error::Torch("a kernel with too few outputs".into()));
    let (spike, over, v) = (next()?, next()?, next()?);
    let a = leak.map(|_| next()).transpose()?;
    if !record {
        return Ok(Step { spike, v, a });
    }
    let (surrogate, divisor) = (config.surrogate.clone(), config.divisor());
    let spike = fired(x, spike, over, move |over, grad| {
        let lost = || Error::Gradient("the surrogate lost its arithmetic".into());
        let (name, code) = backward_kernel(&*surrogate, divisor).ok_or_else(lost)?;
        launch(&code, &name, 1, &[over, grad])?.pop().ok_or_else(lost)
    })?;
    Ok(Step { spike, v, a })
}

/// Name and text of the step's kernel; with a trace, by how much that fades.
fn forward_kernel(config: &LifConfig, leak: Option<f64>) -> (String, String) {
    let (tau, threshold, rest) = (config.tau, config.v_threshold, config.rest());
    let charge = match config.decay_input {
        true => format!("v + (x - (v - T({rest:e}))) / T({tau:e})"),
        false => format!("v - (v - T({rest:e})) / T({tau:e}) + x"),
    };
    let reset = match config.v_reset {
        Some(_) => format!("(T(1) - spike) * h + spike * T({rest:e})"),
        None => format!("h - spike * T({threshold:e})"),
    };
    let (input, output, follow) = match leak {
        Some(leak) => (", T a", ", T& a_next", format!(" a_next = a * T({leak:e}) + spike;")),
        None => ("", "", String::new()),
    };
    named(|name| {
        format!(
            "template <typename T> void {name}(T x, T v{input}, T& spike, T& over, T& v_next{output}) {{ \
             T h = {charge}; over = h - T({threshold:e}); spike = over >= T(0) ? T(1) : T(0); \
             v_next = {reset};{follow} }}"
        )
    })
}

/// Name and text of the kernel of backward.
fn backward_kernel(surrogate: &dyn Surrogate, divisor: f64) -> Option<(String, String)> {
    let h = surrogate.pointwise()?.cuda();
    Some(named(|name| {
        format!(
            "template <typename T> T {name}(T x, T grad) {{ \
             T m = x < T(0) ? -x : x; T h; {h} return grad * h / T({divisor:e}); }}"
        )
    }))
}

/// A kernel whose name tells its text: libtorch keeps compiled kernels by name.
fn named(code: impl Fn(&str) -> String) -> (String, String) {
    let mut hasher = DefaultHasher::new();
    code("").hash(&mut hasher);
    let name = format!("spiketrace_{:016x}", hasher.finish());
    let code = code(&name);
    (name, code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surrogate::Sigmoid;

    #[test]
    fn kernels_hold_the_neurons_constants_and_a_name_of_their_own() {
        let lif = |tau, v_reset| LifConfig { tau, v_reset, ..Default::default() };
        let (soft, code) = forward_kernel(&lif(2.0, None), Some(0.5));
        assert!(code.contains(&soft) && code.contains("a_next = a * T(5e-1) + spike;"), "{code}");
        assert!(code.contains("v_next = h - spike * T(1e0);"), "{code}");
        let (hard, code) = forward_kernel(&lif(4.0, Some(-0.5)), None);
        assert!(code.contains("(T(1) - spike) * h + spike * T(-5e-1)") && !code.contains("a_next"), "{code}");
        let (back, code) = backward_kernel(&Sigmoid { alpha: 3.0 }, 2.0).unwrap();
        assert!(code.contains("T(3e0)") && code.contains("/ T(2e0)"), "{code}");
        assert!(soft != hard && hard != back);
        assert_eq!(soft, forward_kernel(&lif(2.0, None), Some(0.5)).0);
    }
}
