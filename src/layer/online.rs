//! Every layer is an online module: its parameters decide what a spike with its trace meets.

use super::cast::forward;
use super::grad_with_trace::grad_with_trace;
use super::spike_trace_op::spike_trace_op;
use crate::error::Result;
use crate::module::{expect_time_steps, Constant, Layer, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;

impl<L: Layer> OnlineModule for L {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.steps(x, 1, train)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        expect_time_steps(|| Layer::name(self), time_steps)?;
        match x {
            Signal::Constant(x) => Ok(Signal::Constant(forward(self, x, 1, train)?)),
            Signal::Dense(x) => Ok(Signal::Dense(forward(self, x, time_steps, train)?)),
            Signal::SpikeTrace { spike, trace } if Layer::parameters(self).is_empty() => {
                spike_trace_op(self, spike, trace, time_steps, train)
            }
            Signal::SpikeTrace { spike, trace } => {
                Ok(Signal::Dense(grad_with_trace(self, spike, trace, time_steps, train)?))
            }
        }
    }

    fn hold_weights(&mut self) -> Result<()> {
        Layer::hold_weights(self)
    }

    fn release_weights(&mut self) -> Result<()> {
        Layer::release_weights(self)
    }

    fn parameters(&self) -> Vec<Parameter> {
        Layer::parameters(self)
    }

    fn buffers(&self) -> Vec<Parameter> {
        Layer::buffers(self)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        Layer::memories(self)
    }

    fn name(&self) -> String {
        Layer::name(self)
    }

    fn scale(&self) -> Option<f64> {
        Layer::scale(self)
    }

    fn constant(&mut self) -> Constant {
        match Layer::is_samplewise(self) && Layer::memories(self).is_empty() {
            true => Constant::Keeps,
            false => Constant::Refuses,
        }
    }

    fn layout(&self) -> Layout {
        Layer::layout(self)
    }

    fn wrapper(&self) -> &'static str {
        if Layer::parameters(self).is_empty() {
            "SpikeTraceOp"
        } else {
            "GradWithTrace"
        }
    }
}
