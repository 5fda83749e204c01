//! One sweep over memory a step on the CPU: charge, fire, reset and trace together.
//!
//! The same arithmetic in the same order as the composed step of `lif`, which it is tested against, so
//! the values are the same to the bit. The membrane potential is updated in place. Backward is one sweep
//! as well, grad h(over) / tau, on what forward kept: how far the potential was over the threshold.

use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};

use super::lif::Lif;
use crate::autograd::{Context, Function, Tensors};
use crate::error::{Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{grad_enabled, sweep};
use crate::module::Memory;
use crate::surrogate::{Real, Surrogate};

/// Takes the step in one sweep; `None`, with nothing changed, where that cannot be done.
///
/// `trace` is the node's trace, of nodes that have one and in training.
pub(super) fn step(
    lif: &mut Lif,
    x: &Tensor,
    trace: Option<&mut Memory>,
    train: bool,
) -> Result<Option<Tensor>> {
    let able = fast_paths().fused_neuron && x.device() == Device::Cpu && lif.surrogate.pointwise().is_some();
    match x.f_kind()? {
        Kind::Float if able => run::<f32>(lif, x, trace, train).map(Some),
        Kind::Double if able => run::<f64>(lif, x, trace, train).map(Some),
        _ => Ok(None),
    }
}

fn run<R: Real>(lif: &mut Lif, x: &Tensor, trace: Option<&mut Memory>, train: bool) -> Result<Tensor> {
    let record = train && grad_enabled() && x.requires_grad();
    let cell = Cell::<R>::new(lif);
    let data = x.f_detach()?;
    let fresh = lif.v.is_none();
    let v = match &lif.v {
        None => data.f_empty_like()?,
        Some(v) if v.data_ptr() as usize == lif.own => v.f_detach()?,
        // Somebody else's tensor, set by hand: it stays as it is.
        Some(v) => {
            let mut copy = data.f_empty_like()?;
            copy.f_copy_(&v.f_detach()?)?;
            copy
        }
    };
    let spike = data.f_empty_like()?;
    let over = if record { Some(data.f_empty_like()?) } else { None };

    if let Some(trace) = trace {
        // The trace before is input, not output: layers may have kept it for backward.
        let first = trace.is_none();
        let before = trace.as_ref().map_or(Ok(data.shallow_clone()), Tensor::f_detach)?;
        let next = data.f_empty_like()?;
        let decay = R::of(1.0 - 1.0 / lif.tau);
        let follow = |next: &mut [R], before: &[R], spike: &[R]| {
            crate::ffi::vectorized(
                #[inline(always)]
                || {
                    for ((next, &before), &s) in next.iter_mut().zip(before).zip(spike) {
                        *next = if first { s } else { before * decay + s };
                    }
                },
            );
        };
        match &over {
            Some(over) => {
                sweep([&spike, &v, &next, over], [&data, &before], |[s, v, next, over], [x, before]| {
                    cell.fire(fresh, x, v, s, Some(over));
                    follow(next, before, s);
                })?
            }
            None => sweep([&spike, &v, &next], [&data, &before], |[s, v, next], [x, before]| {
                cell.fire(fresh, x, v, s, None);
                follow(next, before, s);
            })?,
        }
        *trace = Some(next);
    } else {
        match &over {
            Some(over) => {
                sweep([&spike, &v, over], [&data], |[s, v, over], [x]| {
                    cell.fire(fresh, x, v, s, Some(over))
                })?;
            }
            None => sweep([&spike, &v], [&data], |[s, v], [x]| cell.fire(fresh, x, v, s, None))?,
        }
    }
    lif.own = v.data_ptr() as usize;
    lif.v = Some(v);

    let Some(over) = over else { return Ok(spike) };
    let divisor = if lif.decay_input { lif.tau } else { 1.0 };
    let fired = Fired { made: Mutex::new(Some((spike, over))), surrogate: lif.surrogate.clone(), divisor };
    Ok(fired.apply(&[x])?.remove(0))
}

/// The neuron's constants.
struct Cell<R> {
    tau: R,
    decay_input: bool,
    v_threshold: R,
    hard: bool,
    /// v_reset; 0 where the reset is soft.
    rest: R,
}

impl<R: Real> Cell<R> {
    fn new(lif: &Lif) -> Self {
        Self {
            tau: R::of(lif.tau),
            decay_input: lif.decay_input,
            v_threshold: R::of(lif.v_threshold),
            hard: lif.v_reset.is_some(),
            rest: R::of(lif.v_reset.unwrap_or(0.0)),
        }
    }

    /// A piece of the step: moves v, writes the spikes and, if wanted, how far v was over the threshold.
    fn fire(&self, fresh: bool, x: &[R], v: &mut [R], spike: &mut [R], over: Option<&mut [R]>) {
        // Pieces are small enough to stay in the cache between the two loops.
        crate::ffi::vectorized(
            #[inline(always)]
            || {
                for ((v, &x), s) in v.iter_mut().zip(x).zip(spike.iter_mut()) {
                    let before = if fresh { self.rest } else { *v };
                    // `s` holds the distance for now.
                    *v = self.charge(before, x);
                    *s = *v - self.v_threshold;
                }
            },
        );
        if let Some(over) = over {
            over.copy_from_slice(spike);
        }
        crate::ffi::vectorized(
            #[inline(always)]
            || {
                for (v, s) in v.iter_mut().zip(spike) {
                    *s = if *s >= R::of(0.0) { R::of(1.0) } else { R::of(0.0) };
                    *v = self.reset(*v, *s);
                }
            },
        );
    }

    #[inline(always)]
    fn charge(&self, v: R, x: R) -> R {
        let above = v - self.rest;
        if self.decay_input {
            v + (x - above) / self.tau
        } else {
            v - above / self.tau + x
        }
    }

    #[inline(always)]
    fn reset(&self, h: R, s: R) -> R {
        if self.hard {
            (R::of(1.0) - s) * h + s * self.rest
        } else {
            h - s * self.v_threshold
        }
    }
}

/// Puts the spikes into the graph behind x, with the surrogate for a derivative.
struct Fired {
    /// Spike and distance from the threshold, taken by forward.
    made: Mutex<Option<(Tensor, Tensor)>>,
    surrogate: Arc<dyn Surrogate>,
    /// Of the input's share in the charge.
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
            return Err(Error::Gradient(
                "a fused neuron step has no second derivative; run it in with_fast_paths(FastPaths::NONE, ..)".into(),
            ));
        }
        let over = &ctx.saved_tensors()?[0];
        let out = over.f_empty_like()?;
        match over.f_kind()? {
            Kind::Float => self.sweep::<f32>(over, grad, &out)?,
            _ => self.sweep::<f64>(over, grad, &out)?,
        }
        Ok(vec![Some(out)])
    }
}

impl Fired {
    fn sweep<R: Real>(&self, over: &Tensor, grad: &Tensor, out: &Tensor) -> Result<()> {
        let Some(pointwise) = self.surrogate.pointwise() else { return Ok(()) };
        sweep([out], [over, grad], |[out], [over, grad]| {
            R::sweep_with(pointwise, over, grad, self.divisor, out);
        })
    }
}
