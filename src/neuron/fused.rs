//! One sweep over memory a pass on the CPU: charge, fire, reset and trace together.
//!
//! The same arithmetic in the same order as the composed step of `lif`, which it is tested against, so
//! the values are the same to the bit. The membrane potential is updated in place where nobody else holds it. Several time steps go
//! piece by piece, all steps of one piece before the next, so that v and the trace stay in the cache.
//! Backward is one sweep as well, grad h(over) / tau, on what forward kept: how far the potential was over
//! the threshold.

use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};

use super::lif::{row, Lif, Options, Spikes};
use crate::autograd::{Context, Function, Tensors};
use crate::error::{no_second_derivative, Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{grad_enabled, is_dense, is_unshared, sweep, vectorized, PIECE};
use crate::module::Memory;
use crate::surrogate::{Real, Share, Surrogate};
use crate::through_time::is_through_time;

/// Whether steps on `x` can be taken in one sweep.
pub(super) fn is_able(lif: &Lif, x: &Tensor) -> bool {
    fast_paths().fused_neuron
        && !is_through_time()
        && x.device() == Device::Cpu
        && !x.is_neg()
        && lif.surrogate.pointwise().is_some()
        && matches!(x.f_kind(), Ok(Kind::Float | Kind::Double))
}

/// Takes the steps in one sweep; x is as many rows, or a single one for all of them.
///
/// `trace` is the node's trace, of nodes that have one and in training.
pub(super) fn steps(
    lif: &mut Lif,
    x: &Tensor,
    rows: i64,
    time_steps: i64,
    trace: Option<&mut Memory>,
    options: Options,
) -> Result<Spikes> {
    match x.f_kind()? {
        Kind::Float => run::<f32>(lif, x, rows, time_steps, trace, options),
        _ => run::<f64>(lif, x, rows, time_steps, trace, options),
    }
}

fn run<R: Real>(
    lif: &mut Lif,
    x: &Tensor,
    rows: i64,
    time_steps: i64,
    trace: Option<&mut Memory>,
    Options { train, scale }: Options,
) -> Result<Spikes> {
    let record = train && grad_enabled() && x.requires_grad();
    let cell = Cell::<R>::new(lif);
    let data = in_rows(x.f_detach()?)?;
    let first = row(&data, rows, 0)?;
    let resting = lif.v.is_none();
    let v = own_row(&first, &lif.v)?;
    let repeats = time_steps / rows;
    let fresh = |wanted: bool| wanted.then(|| repeated_like(&data, repeats)).transpose();
    let (spike, over, traces) = (repeated_like(&data, repeats)?, fresh(record)?, fresh(trace.is_some())?);
    let scaled = scale != 1.0;
    // Traces that go out as they are: the last of them is the state. Layers may keep it for backward, so it is
    // read, not written. Scaled ones are not the state, which has memory of its own then.
    let silent = matches!(trace.as_deref(), Some(None));
    let (before, state) = match trace.as_deref() {
        None => (None, None),
        Some(trace) if scaled => (None, Some(own_row(&first, trace)?)),
        Some(trace) => (trace.as_ref().map(|trace| laid_out_like(&first, trace)).transpose()?, None),
    };

    let factor = R::of(scale);
    let outputs = [Some(&v), Some(&spike), over.as_ref(), traces.as_ref(), state.as_ref()];
    let inputs = [Some(&data), before.as_ref()];
    sweep(outputs, inputs, |[mut v, mut spike, mut over, mut traces, mut state], [x, before]| {
        for k in 0..time_steps as usize {
            if resting && k == 0 {
                v.row(0).fill(cell.rest);
            }
            cell.fire(x.row(k % rows as usize), v.row(0), spike.row(k), over.get(k));
            let spike = spike.row(k);
            if state.exists() {
                cell.decay_in_place(silent && k == 0, state.row(0), spike, traces.row(k), factor);
            } else if traces.exists() {
                match k {
                    0 if silent => traces.row(0).copy_from_slice(spike),
                    0 => cell.decay(traces.row(0), before.row(0), spike),
                    _ => {
                        let (next, before) = traces.row_and_before(k);
                        cell.decay(next, before, spike);
                    }
                }
            }
            if scaled {
                multiply(spike, factor);
            }
        }
    })?;
    lif.v = Some(v);
    if let (Some(trace), Some(traces)) = (trace, &traces) {
        *trace = Some(match state {
            Some(state) => state,
            None => row(traces, time_steps, time_steps - 1)?,
        });
    }

    let Some(over) = over else { return Ok(Spikes { spike, trace: traces }) };
    let share = Share { scale, divisor: if lif.decay_input { lif.tau } else { 1.0 } };
    let fired =
        Fired { made: Mutex::new(Some((spike, over))), surrogate: lif.surrogate.clone(), share, repeats };
    Ok(Spikes { spike: fired.apply(&[x])?.remove(0), trace: traces })
}

fn multiply<R: Real>(x: &mut [R], factor: R) {
    vectorized(
        #[inline(always)]
        move || x.iter_mut().for_each(|x| *x = *x * factor),
    );
}

/// The state to write: itself where nobody else can see it, else a copy, or a new tensor.
fn own_row(like: &Tensor, state: &Memory) -> Result<Tensor> {
    match state {
        None => Ok(like.f_empty_like()?),
        Some(state) if is_unshared(state) => laid_out_like(like, state),
        Some(state) => copy_like(like, state),
    }
}

/// `x` with its elements in the order of time: dense, with the first dimension outermost.
fn in_rows(x: Tensor) -> Result<Tensor> {
    let outermost = x.dim() == 0 || x.stride()[0] * x.size()[0] == x.numel() as i64;
    Ok(if is_dense(&x) && (x.size().first() == Some(&1) || outermost) { x } else { x.f_contiguous()? })
}

/// An empty tensor of `repeats` times the rows of `x`, laid out like it.
fn repeated_like(x: &Tensor, repeats: i64) -> Result<Tensor> {
    if repeats == 1 {
        return Ok(x.f_empty_like()?);
    }
    let (mut size, mut stride) = (x.size(), x.stride());
    stride[0] = x.numel() as i64 / size[0];
    size[0] *= repeats;
    Ok(Tensor::f_empty_strided(size, stride, (x.f_kind()?, x.device()))?)
}

/// `tensor` itself if it lies in memory as `like` does, else a copy that does.
fn laid_out_like(like: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    if tensor.stride() == like.stride() && !tensor.is_neg() {
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
#[derive(Clone, Copy)]
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
    fn fire(self, x: &[R], v: &mut [R], spike: &mut [R], over: Option<&mut [R]>) {
        let states = v.iter_mut().zip(x).zip(spike);
        match over {
            Some(over) => vectorized(
                #[inline(always)]
                move || {
                    states
                        .zip(over)
                        .for_each(|(((v, &x), spike), over)| (*over, *spike, *v) = self.step(*v, x))
                },
            ),
            None => vectorized(
                #[inline(always)]
                move || states.for_each(|((v, &x), spike)| (_, *spike, *v) = self.step(*v, x)),
            ),
        }
    }

    /// A piece of the trace.
    fn decay(self, next: &mut [R], before: &[R], spike: &[R]) {
        vectorized(
            #[inline(always)]
            move || {
                for ((next, &before), &s) in next.iter_mut().zip(before).zip(spike) {
                    *next = before * self.keep + s;
                }
            },
        );
    }

    /// A piece of the trace in its own memory, and `scale` times it for those who learn from it.
    fn decay_in_place(self, silent: bool, trace: &mut [R], spike: &[R], scaled: &mut [R], scale: R) {
        vectorized(
            #[inline(always)]
            move || {
                for ((a, &s), scaled) in trace.iter_mut().zip(spike).zip(scaled) {
                    *a = if silent { s } else { *a * self.keep + s };
                    *scaled = *a * scale;
                }
            },
        );
    }

    /// The distance from the threshold, the spike and the new potential.
    #[inline(always)]
    fn step(self, v: R, x: R) -> (R, R, R) {
        let h = self.charge(v, x);
        let over = h - self.v_threshold;
        let spike = if over >= R::of(0.0) { R::of(1.0) } else { R::of(0.0) };
        (over, spike, self.reset(h, spike))
    }

    #[inline(always)]
    fn charge(self, v: R, x: R) -> R {
        let above = v - self.rest;
        if self.decay_input {
            v + (x - above) / self.tau
        } else {
            v - above / self.tau + x
        }
    }

    #[inline(always)]
    fn reset(self, h: R, s: R) -> R {
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
    share: Share<f64>,
    /// Steps that saw the same input.
    repeats: i64,
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
        let over = &ctx.saved_tensors()?[0];
        let out = row(over, self.repeats, 0)?.f_empty_like()?;
        match over.f_kind()? {
            Kind::Float => self.sweep::<f32>(over, grad, &out)?,
            _ => self.sweep::<f64>(over, grad, &out)?,
        }
        Ok(vec![Some(out)])
    }
}

impl Fired {
    fn sweep<R: Real>(&self, over: &Tensor, grad: &Tensor, out: &Tensor) -> Result<()> {
        let pointwise = self.surrogate.pointwise();
        let pointwise =
            pointwise.ok_or_else(|| Error::Gradient("the surrogate lost its arithmetic".into()))?;
        let grad = laid_out_like(over, grad)?;
        sweep([Some(out)], [Some(over), Some(&grad)], |[mut out], [over, grad]| {
            let out = out.row(0);
            R::sweep_with(pointwise, over.row(0), grad.row(0), self.share, out);
            // An input of several steps gets the sum of their gradients.
            let mut more = [R::of(0.0); PIECE];
            for k in 1..self.repeats as usize {
                let more = &mut more[..out.len()];
                R::sweep_with(pointwise, over.row(k), grad.row(k), self.share, more);
                out.iter_mut().zip(more).for_each(|(out, more)| *out = *out + *more);
            }
        })
    }
}
