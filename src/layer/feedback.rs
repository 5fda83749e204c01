//! Connections that come back one time step later: recurrent layers, feedback from later to earlier layers.

use tch::Tensor;

use super::slot::{self, Slot};
use crate::check::expect_time_steps;
use crate::error::{guarded, Error, Result};
use crate::ffi::shape;
use crate::module::{Memory, OnlineModule, Part, Pass, Properties, Variable};
use crate::signal::Signal;

/// A block whose output s of the step before comes back to its input through a connection B.
///
/// ```text
/// u_t = x_t + B(s_{t-1})          (the first step: u_t = x_t)
/// s_t = block(u_t)
/// ```
///
/// A block of one neuron makes a recurrent layer (R400 of the OTTT paper); a block of many layers makes feedback
/// from its last to its first (VGG-F).
///
/// Spikes of the step before are data: no graph reaches back, and x_t alone gets a gradient. B learns as any
/// weighted layer, only one step later: with g_t = dL_t/du_t and the trace a of the block's output,
///
/// ```text
/// dL_t/dB = g_t a_{t-1}^T         dL_t/dx_t = g_t         dL_t/ds_{t-1} = 0
/// ```
///
/// [`bptt_training`](crate::train::bptt_training) lets the gradient through.
///
/// # Shapes
/// The input, dense, has the shape of B's output; B's input has that of the block's output.
///
/// # Cost
/// Those of the connection and the block, and two tensors of state, spike and trace, shaped like the output. One
/// time step at a time.
///
/// # Source
/// Xiao et al., arXiv 2210.04195; their code cuts VGG-F's feedback from the graph, skips
/// B in the first step, and starts B at zero.
///
/// ```
/// use spiketrace::{ws_linear, Feedback, OnlineModule, OtttLifNode, OtttSequential};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let p = vs.root();
/// let back = nn::linear(&p / "back", 400, 400, Default::default());
/// let mut r400 = OtttSequential::new()
///     .add(ws_linear(&p / "0", 784, 400, Default::default())?)
///     .add(Feedback::new(back, OtttLifNode::new(Default::default())?))
///     .add(nn::linear(&p / "2", 400, 10, Default::default()));
/// let x = Tensor::rand([3, 784], (Kind::Float, Device::Cpu));
/// for _ in 0..5 {
///     assert_eq!(r400.step(&(&x).into(), true)?.value().size(), [3, 10]);
/// }
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "LinearRecurrentContainer")]
#[derive(Debug)]
pub struct Feedback {
    connection: Slot,
    block: Slot,
    spike: Memory,
    trace: Memory,
}

impl Feedback {
    /// `block` with `connection` from its output to its input. Either may be an
    /// [`OtttSequential`](crate::OtttSequential).
    pub fn new(connection: impl OnlineModule + 'static, block: impl OnlineModule + 'static) -> Self {
        Self {
            connection: Slot::new("connection", connection),
            block: Slot::new("block", block),
            spike: Memory::default(),
            trace: Memory::default(),
        }
    }

    /// B of the step before; `None` in the first step.
    fn fed_back(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Option<Tensor>> {
        let Some(spike) = self.spike.get() else { return Ok(None) };
        if shape(spike).first() != shape(x).first() || spike.f_kind()? != x.f_kind()? {
            return Err(Error::StaleState {
                what: "Feedback's output of the step before".to_owned(),
                state: spike.size(),
                state_kind: spike.f_kind()?,
                input: x.size(),
                input_kind: x.f_kind()?,
            });
        }
        let before = match self.trace.get() {
            Some(trace) if pass.train => {
                Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() }
            }
            _ => Signal::Dense(spike.shallow_clone()),
        };
        let back = self.connection.pass(&before, pass)?.into_value();
        if *shape(&back) != *shape(x) {
            let (what, expected) = ("what Feedback's connection gives", format!("{:?}", x.size()));
            let fix = "it is added to the block's input; call reset() before inputs of another size";
            return Err(Error::shape(what, expected, &back, fix));
        }
        Ok(Some(back))
    }
}

impl Part for Feedback {
    fn name(&self) -> String {
        format!("Feedback({} through {})", self.block.module.name(), self.connection.module.name())
    }

    fn variables(&self) -> Vec<Variable> {
        slot::variables([&self.connection, &self.block])
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        let mut memories = slot::memories([&mut self.connection, &mut self.block]);
        memories.extend([&mut self.spike, &mut self.trace]);
        memories
    }

    fn reset(&mut self) {
        [&mut self.connection, &mut self.block].into_iter().for_each(|slot| slot.module.reset());
        [&mut self.spike, &mut self.trace].into_iter().for_each(Memory::forget);
    }

    fn detach(&mut self) {
        [&mut self.connection, &mut self.block].into_iter().for_each(|slot| slot.module.detach());
        [&mut self.spike, &mut self.trace].into_iter().for_each(Memory::detach);
    }

    fn properties(&self) -> Properties {
        let cuts = self.connection.plan.cuts && self.block.plan.cuts;
        Properties { cuts, ..Properties::default().any_layout() }
    }
}

impl OnlineModule for Feedback {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        if x.trace().is_some() {
            let expected = "a dense signal, what a weighted layer gives";
            return Err(Error::argument("Feedback's input", expected, "a spike with its trace"));
        }
        if pass.time_steps != 1 {
            expect_time_steps("Feedback", pass.time_steps)?;
            return Err(Error::SeveralSteps { module: self.name() });
        }
        let u = match guarded("Feedback", || self.fed_back(x.value(), pass))? {
            Some(back) => x.value().f_add(&back)?,
            None => x.value().shallow_clone(),
        };
        let y = self.block.pass(&Signal::Dense(u), pass)?;
        self.spike.set(y.value());
        if !pass.through_time {
            self.spike.detach();
        }
        self.trace = y.trace().map(Tensor::detach).into();
        Ok(y)
    }
}
