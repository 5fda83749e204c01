//! Every layer is an online module: its parameters decide what a spike with its trace meets.
//!
//! [`GradWithTrace`](crate::GradWithTrace) and [`SpikeTraceOp`](crate::SpikeTraceOp) say what that is, and do the same by
//! hand.

use tch::{Kind, Tensor};

use super::plan::Plan;
use super::rounded::{autocast, forward, reduced};
use crate::autograd::replace_for_grad;
use crate::check::{expect_like, expect_time_steps, Named};
use crate::error::{Error, Result};
use crate::ffi::learn_from;
use crate::module::{Layer, OnlineModule, Pass, Wrapper};
use crate::setting::fast_paths;
use crate::signal::Signal;

impl<L: Layer> OnlineModule for L {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        let plan = Plan::of_layer(self);
        pass_through(self, &plan, x, pass)
    }

    fn as_layer(&mut self) -> Option<&mut dyn Layer> {
        Some(self)
    }
}

/// Takes a signal through a layer of which `plan` is known.
pub(super) fn pass_through(
    layer: &mut (impl Layer + ?Sized),
    plan: &Plan,
    x: &Signal,
    pass: &Pass<'_>,
) -> Result<Signal> {
    expect_time_steps(Named(|| layer.name()), pass.time_steps)?;
    match x {
        // One step stands for all of them.
        Signal::Constant(x) if plan.keeps_constant => {
            Ok(Signal::Constant(forward(layer, plan.is_affine, x, &pass.steps(1))?))
        }
        _ if pass.time_steps > 1 && !plan.takes_steps => Err(Error::SeveralSteps { module: layer.name() }),
        Signal::Constant(_) => pass_through(layer, plan, &x.shallow_clone().spread(pass.time_steps)?, pass),
        Signal::Dense(x) => Ok(Signal::Dense(forward(layer, plan.is_affine, x, pass)?)),
        Signal::SpikeTrace { spike, trace } => {
            expect_like("the trace", trace, "the spike", spike)?;
            match plan.wrapper {
                Wrapper::GradWithTrace => {
                    Ok(Signal::Dense(grad_with_trace(layer, plan.is_affine, spike, trace, pass)?))
                }
                _ => spike_trace_op(layer, spike, trace, pass),
            }
        }
    }
}

/// The value from the spike, the gradient of the weights from the trace.
fn grad_with_trace(
    layer: &mut (impl Layer + ?Sized),
    is_affine: bool,
    spike: &Tensor,
    trace: &Tensor,
    pass: &Pass<'_>,
) -> Result<Tensor> {
    let value = if fast_paths().one_pass && is_affine && !trace.requires_grad() {
        let (y, learns) = match reduced(is_affine, spike) {
            Some(kind) => {
                let (spike, trace) = (spike.f_to_kind(kind)?, trace.f_to_kind(kind)?);
                let y = autocast(&spike, kind, || layer.forward_pass(&spike, pass))?;
                let learns = !y.requires_grad() || learn_from(&y, &spike, &trace)?;
                (y.f_to_kind(Kind::Float)?, learns)
            }
            None => {
                let y = layer.forward_pass(spike, pass)?;
                let learns = !y.requires_grad() || learn_from(&y, spike, trace)?;
                (y, learns)
            }
        };
        if learns {
            return Ok(y);
        }
        y.f_detach()?
    } else {
        let _no_grad = tch::no_grad_guard(); // ends in a panic, too, which no_grad() does not
        forward(layer, is_affine, spike, pass)?
    };
    let for_grad = forward(layer, is_affine, &replace_for_grad(spike, trace)?, pass)?;
    replace_for_grad(&for_grad, &value)
}

/// The same on both, the trace without a graph.
fn spike_trace_op(
    layer: &mut (impl Layer + ?Sized),
    spike: &Tensor,
    trace: &Tensor,
    pass: &Pass<'_>,
) -> Result<Signal> {
    let spike = layer.forward_pass(spike, pass)?;
    let _no_grad = tch::no_grad_guard(); // ends in a panic, too, which no_grad() does not
    let trace = layer.forward_pass(&trace.detach(), pass)?;
    Ok(Signal::SpikeTrace { spike, trace })
}
