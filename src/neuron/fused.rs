//! One sweep over memory a pass on the CPU: charge, fire, reset and trace together.
//!
//! The same arithmetic in the same order as the composed step of `lif`, which it is tested against, so
//! the values are the same to the bit. The membrane potential is updated in place. Several time steps go
//! piece by piece, all steps of one piece before the next, so that v and the trace stay in the cache.
//! Backward is one sweep as well, grad h(over) / tau, on what forward kept: how far the potential was over
//! the threshold.

use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};

use super::lif::{row, Lif, Spikes};
use crate::autograd::{Context, Function, Tensors};
use crate::error::{Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{grad_enabled, is_dense, sweep};
use crate::module::Memory;
use crate::surrogate::{Real, Surrogate};

/// Takes the steps in one sweep; `None`, with nothing changed, where that cannot be done.
///
/// `trace` is the node's trace, of nodes that have one and in training.
pub(super) fn steps(
    lif: &mut Lif,
    x: &Tensor,
    time_steps: i64,
    trace: Option<&mut Memory>,
    train: bool,
) -> Result<Option<Spikes>> {
    let able = fast_paths().fused_neuron && x.device() == Device::Cpu && lif.surrogate.pointwise().is_some();
    match x.f_kind()? {
        Kind::Float if able => run::<f32>(lif, x, time_steps, trace, train).map(Some),
        Kind::Double if able => run::<f64>(lif, x, time_steps, trace, train).map(Some),
        _ => Ok(None),
    }
}

fn run<R: Real>(
    lif: &mut Lif,
    x: &Tensor,
    time_steps: i64,
    trace: Option<&mut Memory>,
    train: bool,
) -> Result<Spikes> {
    let record = train && grad_enabled() && x.requires_grad();
    let cell = Cell::<R>::new(lif);
    let data = in_rows(x.f_detach()?)?;
    let first = row(&data, time_steps, 0)?;
    let resting = lif.v.is_none();
    let v = match &lif.v {
        None => first.f_empty_like()?,
        Some(v) if v.data_ptr() as usize == lif.own => laid_out_like(&first, v)?,
        // Somebody else's tensor, set by hand: it stays as it is.
        Some(v) => copy_like(&first, v)?,
    };
    let fresh = |wanted: bool| wanted.then(|| data.f_empty_like()).transpose();
    let (spike, over, next) = (data.f_empty_like()?, fresh(record)?, fresh(trace.is_some())?);
    // The trace before is input, not output: layers may have kept it for backward.
    let before = trace.as_ref().and_then(|trace| trace.as_ref());
    let before = before.map(|trace| laid_out_like(&first, trace)).transpose()?;

    let outputs = [Some(&v), Some(&spike), over.as_ref(), next.as_ref()];
    let inputs = [Some(&data), before.as_ref()];
    sweep(outputs, inputs, |[mut v, mut spike, mut over, mut next], [x, before]| {
        for k in 0..time_steps as usize {
            cell.fire(resting && k == 0, x.row(k), v.row(0), spike.row(k), over.get(k));
            let spike = spike.row(k);
            match (next.exists(), before.exists()) {
                (false, _) => {}
                (true, true) if k == 0 => cell.decay(next.row(0), before.row(0), spike),
                (true, _) if k == 0 => next.row(0).copy_from_slice(spike),
                _ => {
                    let (next, before) = next.row_and_before(k);
                    cell.decay(next, before, spike);
                }
            }
        }
    })?;
    lif.own = v.data_ptr() as usize;
    lif.v = Some(v);
    if let (Some(trace), Some(next)) = (trace, &next) {
        *trace = Some(row(next, time_steps, time_steps - 1)?);
    }

    let Some(over) = over else { return Ok(Spikes { spike, trace: next }) };
    let divisor = if lif.decay_input { lif.tau } else { 1.0 };
    let fired = Fired { made: Mutex::new(Some((spike, over))), surrogate: lif.surrogate.clone(), divisor };
    Ok(Spikes { spike: fired.apply(&[x])?.remove(0), trace: next })
}

/// `x` with its elements in the order of time: dense, with the first dimension outermost.
fn in_rows(x: Tensor) -> Result<Tensor> {
    let outermost = x.dim() == 0 || x.stride()[0] * x.size()[0] == x.numel() as i64;
    Ok(if is_dense(&x) && (x.size().first() == Some(&1) || outermost) { x } else { x.f_contiguous()? })
}

/// `tensor` itself if it lies in memory as `like` does, else a copy that does.
fn laid_out_like(like: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    if tensor.stride() == like.stride() {
        return Ok(tensor.f_detach()?);
    }
    copy_like(like, tensor)
}

fn copy_like(like: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    let mut copy = like.f_empty_like()?;
    copy.f_copy_(&tensor.f_detach()?)?;
    Ok(copy)
}

/// The neuron's constants.
struct Cell<R> {
    tau: R,
    /// Of the trace.
    keep: R,
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
            keep: R::of(1.0 - 1.0 / lif.tau),
            decay_input: lif.decay_input,
            v_threshold: R::of(lif.v_threshold),
            hard: lif.v_reset.is_some(),
            rest: R::of(lif.v_reset.unwrap_or(0.0)),
        }
    }

    /// A piece of the step: moves v, writes the spikes and, if wanted, how far v was over the threshold.
    fn fire(&self, resting: bool, x: &[R], v: &mut [R], spike: &mut [R], over: Option<&mut [R]>) {
        crate::ffi::vectorized(
            #[inline(always)]
            || {
                for ((v, &x), s) in v.iter_mut().zip(x).zip(spike.iter_mut()) {
                    let before = if resting { self.rest } else { *v };
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

    /// A piece of the trace.
    fn decay(&self, next: &mut [R], before: &[R], spike: &[R]) {
        crate::ffi::vectorized(
            #[inline(always)]
            || {
                for ((next, &before), &s) in next.iter_mut().zip(before).zip(spike) {
                    *next = before * self.keep + s;
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
        let grad = laid_out_like(over, grad)?;
        sweep([Some(out)], [Some(over), Some(&grad)], |[mut out], [over, grad]| {
            R::sweep_with(pointwise, over.row(0), grad.row(0), self.divisor, out.row(0));
        })
    }
}
