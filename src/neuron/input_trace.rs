//! The trace of the input.

use tch::Tensor;

use super::kernel::{row, traced};
use crate::check::{expect_float, expect_fresh, expect_steps};
use crate::error::{guarded, Error, Result};
use crate::module::{Memory, OnlineModule, Part, Pass, Properties};
use crate::signal::Signal;

/// Gives a changing input its trace, so that the first weighted layer learns from time as all others do.
///
/// ```text
/// a_t = (1 - 1/tau) a_{t-1} + x_t          (training only, no gradient; a_1 = x_1)
/// ```
///
/// Without it the first layer's gradient at step t is g_t x_t^T: what came before, and still is in the potentials that the
/// gradient is about, teaches it nothing. With tau of the neurons after it, it is g_t a_t^T, as everywhere else.
///
/// An image that is held still needs none: its trace is the image times a number.
///
/// # Shapes
/// Any dense input, floating-point, fixed from the first step until [`reset`](Part::reset). In training the output is
/// [`Signal::SpikeTrace`], the input with its trace; in evaluation and in
/// [`bptt_training`](crate::train::bptt_training) it is the input.
///
/// # Cost
/// One tensor of state, shaped like the input, and one sweep over it per step.
///
/// # Source
/// Xiao et al., arXiv 2210.04195, equation 9, for the input. Their code and SpikingJelly leave it out, since their inputs
/// are images held still.
///
/// ```
/// use spiketrace::{InputTrace, OnlineModule, OtttLifNode, OtttSequential};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let p = vs.root();
/// let mut net = OtttSequential::new()
///     .add(InputTrace::new(2.0)?)
///     .add(nn::linear(&p / 1, 12, 32, Default::default()))
///     .add(OtttLifNode::new(Default::default())?)
///     .add(nn::linear(&p / 3, 32, 5, Default::default()));
/// for _ in 0..4 {
///     let x = Tensor::rand([8, 12], (Kind::Float, Device::Cpu));
///     assert_eq!(net.step(&x.into(), true)?.value().size(), [8, 5]);
/// }
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[derive(Debug)]
pub struct InputTrace {
    tau: f64,
    trace: Memory,
}

impl InputTrace {
    /// A trace that fades with time constant `tau`, in time steps: that of the neurons which the input drives.
    ///
    /// # Errors
    /// When tau is below 1.
    pub fn new(tau: f64) -> Result<Self> {
        if !(tau >= 1.0 && tau.is_finite()) {
            let expected = "a finite number of time steps, at least 1";
            return Err(Error::argument("InputTrace's tau", expected, tau));
        }
        Ok(Self { tau, trace: Memory::default() })
    }

    /// The trace after the last training step, `None` before the first. A handle of it keeps its values.
    pub fn trace(&self) -> Option<&Tensor> {
        self.trace.get()
    }
}

impl Part for InputTrace {
    fn name(&self) -> String {
        format!("InputTrace(tau {})", self.tau)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.trace]
    }

    fn properties(&self) -> Properties {
        Properties { cuts: true, ..Properties::default().any_layout().steps_at_once() }
    }
}

impl OnlineModule for InputTrace {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        if x.trace().is_some() {
            let expected = "a dense signal: a neuron's output has its trace already";
            return Err(Error::argument("InputTrace's input", expected, "a spike with its trace"));
        }
        let x = x.shallow_clone().spread(pass.time_steps)?.into_value();
        if !pass.train || pass.through_time {
            return Ok(Signal::Dense(x));
        }
        guarded("InputTrace", || {
            expect_float("InputTrace's input", &x)?;
            expect_steps("InputTrace", &x, pass.time_steps)?;
            if let Some(trace) = self.trace.get() {
                let first = row(&x, pass.time_steps, 0)?;
                expect_fresh("InputTrace's trace", trace, "the input", &first)?;
            }
            let trace = traced(&x, pass.time_steps, 1.0 - 1.0 / self.tau, &mut self.trace)?;
            Ok(Signal::SpikeTrace { spike: x, trace })
        })
    }
}
