//! Every layer is an online module: its parameters decide what a spike with its trace meets.

use super::grad_with_trace::grad_with_trace;
use super::plan::Plan;
use super::rounded::forward;
use super::spike_trace_op::spike_trace_op;
use crate::check::{expect_like, expect_time_steps, Named};
use crate::error::{Error, Result};
use crate::module::{Layer, OnlineModule, Pass, Wrapper};
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
        Signal::Constant(x) if plan.keeps_constant() => {
            Ok(Signal::Constant(forward(layer, plan.is_affine(), x, &pass.steps(1))?))
        }
        _ if pass.time_steps > 1 && !plan.takes_steps() => Err(Error::SeveralSteps { module: layer.name() }),
        Signal::Constant(_) => pass_through(layer, plan, &x.shallow_clone().spread(pass.time_steps)?, pass),
        Signal::Dense(x) => Ok(Signal::Dense(forward(layer, plan.is_affine(), x, pass)?)),
        Signal::SpikeTrace { spike, trace } => {
            expect_like("the trace", trace, "the spike", spike)?;
            match plan.wrapper {
                Wrapper::GradWithTrace => {
                    Ok(Signal::Dense(grad_with_trace(layer, plan.is_affine(), spike, trace, pass)?))
                }
                _ => spike_trace_op(layer, spike, trace, pass),
            }
        }
    }
}
