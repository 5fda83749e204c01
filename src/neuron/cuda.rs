//! One kernel a neuron step on CUDA, and one for its backward.
//!
//! The arithmetic of the composed step of `lif`, written as CUDA C++ with the neuron's constants in it;
//! libtorch compiles it at its first call and keeps it (its "jiterator"). Nothing here makes the host wait.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use tch::{Kind, Tensor};

use super::lif::{Lif, Step};
use crate::autograd::{Context, Function, Tensors};
use crate::error::{no_second_derivative, Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{grad_enabled, launch};
use crate::surrogate::Surrogate;
use crate::through_time::is_through_time;

/// Whether a step on `x` can be taken in one kernel.
pub(super) fn is_able(lif: &Lif, x: &Tensor) -> bool {
    fast_paths().fused_neuron
        && !is_through_time()
        && x.device().is_cuda()
        && lif.surrogate.pointwise().is_some()
        && matches!(x.f_kind(), Ok(Kind::Float | Kind::Double))
}

/// One step from v and, where a trace is kept, from the trace a; an absent state is one at rest.
pub(super) fn step(
    lif: &Lif,
    x: &Tensor,
    v: Option<&Tensor>,
    a: Option<&Tensor>,
    traces: bool,
    train: bool,
) -> Result<Step> {
    let record = train && grad_enabled() && x.requires_grad();
    let data = x.f_detach()?;
    let v = v.map_or_else(|| data.f_full_like(lif.v_reset.unwrap_or(0.0)), |v| Ok(v.shallow_clone()))?;
    let mut inputs = vec![&data, &v];
    let silent;
    if traces {
        silent = a.map_or_else(|| data.f_zeros_like(), |a| Ok(a.shallow_clone()))?;
        inputs.push(&silent);
    }
    let (name, code) = forward_kernel(lif, traces);
    let mut made = launch(&code, &name, 3 + usize::from(traces), &inputs)?.into_iter();
    let mut next = || made.next().ok_or_else(|| Error::Torch("a kernel with too few outputs".into()));
    let (spike, over, v) = (next()?, next()?, next()?);
    let a = if traces { Some(next()?) } else { None };
    if !record {
        return Ok(Step { spike, v, a });
    }
    let divisor = if lif.decay_input { lif.tau } else { 1.0 };
    let fired = Fired { made: Mutex::new(Some((spike, over))), surrogate: lif.surrogate.clone(), divisor };
    Ok(Step { spike: fired.apply(&[x])?.remove(0), v, a })
}

/// Name and text of the step's kernel.
fn forward_kernel(lif: &Lif, traces: bool) -> (String, String) {
    let (tau, threshold, rest) = (lif.tau, lif.v_threshold, lif.v_reset.unwrap_or(0.0));
    let charge = match lif.decay_input {
        true => format!("v + (x - (v - T({rest:e}))) / T({tau:e})"),
        false => format!("v - (v - T({rest:e})) / T({tau:e}) + x"),
    };
    let reset = match lif.v_reset {
        Some(_) => format!("(T(1) - spike) * h + spike * T({rest:e})"),
        None => format!("h - spike * T({threshold:e})"),
    };
    let (input, output, follow) = match traces {
        true => (", T a", ", T& a_next", format!(" a_next = a * T({:e}) + spike;", 1.0 - 1.0 / tau)),
        false => ("", "", String::new()),
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

/// Puts the spikes into the graph behind x, with the surrogate for a derivative.
struct Fired {
    /// Spike and distance from the threshold, taken by forward.
    made: Mutex<Option<(Tensor, Tensor)>>,
    surrogate: Arc<dyn Surrogate>,
    divisor: f64,
}

impl Function for Fired {
    fn forward(&self, ctx: &mut Context<'_>, _: &Tensors) -> Result<Vec<Tensor>> {
        let made = self.made.lock().ok().and_then(|mut made| made.take());
        let (spike, over) = made.ok_or_else(|| Error::Gradient("a step is recorded once".into()))?;
        ctx.save_for_backward(&[&over])?;
        Ok(vec![spike])
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.get(0) else { return Ok(vec![None]) };
        if grad_enabled() {
            return Err(no_second_derivative("a neuron step"));
        }
        let Some((name, code)) = backward_kernel(&*self.surrogate, self.divisor) else {
            return Ok(vec![None]);
        };
        let over = &ctx.saved_tensors()?[0];
        Ok(launch(&code, &name, 1, &[over, grad])?.into_iter().map(Some).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surrogate::Sigmoid;

    #[test]
    fn kernels_hold_the_neurons_constants_and_a_name_of_their_own() {
        let lif =
            |tau, v_reset| Lif::new("Node", tau, false, 1.0, v_reset, Arc::new(Sigmoid::default())).unwrap();
        let (soft, code) = forward_kernel(&lif(2.0, None), true);
        assert!(code.contains(&soft) && code.contains("a_next = a * T(5e-1) + spike;"), "{code}");
        assert!(code.contains("v_next = h - spike * T(1e0);"), "{code}");
        let (hard, code) = forward_kernel(&lif(4.0, Some(-0.5)), false);
        assert!(code.contains("(T(1) - spike) * h + spike * T(-5e-1)") && !code.contains("a_next"), "{code}");
        let (back, code) = backward_kernel(&Sigmoid { alpha: 3.0 }, 2.0).unwrap();
        assert!(code.contains("T(3e0)") && code.contains("/ T(2e0)"), "{code}");
        assert!(soft != hard && hard != back);
        assert_eq!(soft, forward_kernel(&lif(2.0, None), true).0);
    }
}
