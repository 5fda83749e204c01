//! One sweep over memory a pass on the CPU: charge, fire, reset and trace together.
//!
//! The same arithmetic in the same order as the composed step, which it is tested against, so the values are
//! the same to the bit. The membrane potential is updated in place where nobody else holds it. Several time steps go
//! piece by piece, all steps of one piece before the next, so that v and the trace stay in the cache.
//! Backward is one sweep as well, grad h(over) / tau, on what forward kept: how far the potential was over
//! the threshold.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::fired::fired;
use super::request::{row, Request, Spikes};
use crate::error::{Error, Result};
use crate::ffi::{elements, grad_enabled, is_dense, shape, strides, sweep, vectorized, PIECE};
use crate::module::{laid_out_like, Memory};
use crate::neuron::dynamics::LifConfig;
use crate::numeric::{each, Real};
use crate::surrogate::{Piece, Surrogate, Surrogated};

pub(super) fn steps(request: &Request<'_>, v: &mut Memory, trace: &mut Memory) -> Result<Spikes> {
    match request.x.f_kind()? {
        Kind::Float => run::<f32>(request, v, trace),
        _ => run::<f64>(request, v, trace),
    }
}

fn run<R: Real>(request: &Request<'_>, v_memory: &mut Memory, trace: &mut Memory) -> Result<Spikes> {
    let Request { config, x, rows, leak, pass } = *request;
    let time_steps = pass.time_steps;
    let record = pass.train && grad_enabled() && x.requires_grad();
    let cell = Cell::<R>::new(config, leak.unwrap_or(0.0));
    let data = in_rows(x.f_detach()?)?;
    let first = row(&data, rows, 0)?;
    let resting = v_memory.get().is_none();
    let v = v_memory.to_write(&first)?;
    let repeats = time_steps / rows;
    let fresh = |wanted: bool| wanted.then(|| repeated_like(&data, repeats)).transpose();
    let (spike, over, traces) = (repeated_like(&data, repeats)?, fresh(record)?, fresh(leak.is_some())?);
    let scaled = pass.factor != 1.0;
    // Traces that go out as they are: the last of them is the state. Layers may keep it for backward, so it is
    // read, not written. Scaled ones are not the state, which has memory of its own then.
    let silent = trace.get().is_none();
    let (before, state) = match leak {
        None => (None, None),
        Some(_) if scaled => (None, Some(trace.to_write(&first)?)),
        Some(_) => (trace.get().map(|trace| laid_out_like(&first, trace)).transpose()?, None),
    };

    let factor = R::of(pass.factor);
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
                    0 => each(traces.row(0), [before.row(0), spike], |a, s| a * cell.keep + s),
                    _ => {
                        let (next, before) = traces.row_and_before(k);
                        each(next, [before, spike], |a, s| a * cell.keep + s);
                    }
                }
            }
            if scaled {
                vectorized(
                    #[inline(always)]
                    || spike.iter_mut().for_each(|spike| *spike = *spike * factor),
                );
            }
        }
    })?;
    *v_memory = v.into();
    if let Some(traces) = &traces {
        *trace = match state {
            Some(state) => state.into(),
            None => row(traces, time_steps, time_steps - 1)?.into(),
        };
    }

    let Some(over) = over else { return Ok(Spikes { spike, trace: traces }) };
    let back =
        Back { surrogate: config.surrogate.clone(), scale: pass.factor, divisor: config.divisor(), repeats };
    Ok(Spikes { spike: fired(x, spike, over, move |over, grad| back.run(over, grad))?, trace: traces })
}

/// `x` with its elements in the order of time: dense, with the first dimension outermost.
pub(super) fn in_rows(x: Tensor) -> Result<Tensor> {
    let size = shape(&x);
    let outermost = size.is_empty() || strides(&x)[0] * size[0] == elements(&x) as i64;
    Ok(if is_dense(&x) && (size.first() == Some(&1) || outermost) { x } else { x.f_contiguous()? })
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
    fn new(config: &LifConfig, leak: f64) -> Self {
        Self {
            tau: R::of(config.tau),
            keep: R::of(leak),
            decay_input: config.decay_input,
            v_threshold: R::of(config.v_threshold),
            hard: config.v_reset.is_some(),
            rest: R::of(config.rest()),
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

/// The gradient of x, in one sweep.
struct Back {
    surrogate: Arc<dyn Surrogate>,
    scale: f64,
    divisor: f64,
    /// Steps that saw the same input.
    repeats: i64,
}

impl Back {
    fn run(&self, over: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let out = row(over, self.repeats, 0)?.f_empty_like()?;
        match over.f_kind()? {
            Kind::Float => self.sweep::<f32>(over, grad, &out)?,
            _ => self.sweep::<f64>(over, grad, &out)?,
        }
        Ok(out)
    }

    fn sweep<R: Surrogated>(&self, over: &Tensor, grad: &Tensor, out: &Tensor) -> Result<()> {
        let pointwise = self.surrogate.pointwise();
        let pointwise =
            pointwise.ok_or_else(|| Error::Gradient("the surrogate lost its arithmetic".into()))?;
        let grad = laid_out_like(over, grad)?;
        let &Self { scale, divisor, .. } = self;
        sweep([Some(out)], [Some(over), Some(&grad)], |[mut out], [over, grad]| {
            let run = |k: usize, out: &mut [R]| {
                let (over, grad) = (over.row(k), grad.row(k));
                R::sweep_with(pointwise, Piece { over, grad, scale, divisor, out });
            };
            let out = out.row(0);
            run(0, out);
            // An input of several steps gets the sum of their gradients.
            let mut more = [R::of(0.0); PIECE];
            for k in 1..self.repeats as usize {
                let more = &mut more[..out.len()];
                run(k, more);
                out.iter_mut().zip(more).for_each(|(out, more)| *out = *out + *more);
            }
        })
    }
}
