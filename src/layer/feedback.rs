//! Connections that come back one time step later: recurrent layers, feedback from later to earlier layers.

use tch::Tensor;

use super::parts;
use crate::error::{guarded, Error, Result};
use crate::module::{Constant, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;
use crate::through_time::is_through_time;

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
    connection: Box<dyn OnlineModule>,
    block: Box<dyn OnlineModule>,
    spike: Memory,
    trace: Memory,
}

impl Feedback {
    /// `block` with `connection` from its output to its input. Either may be an
    /// [`OtttSequential`](crate::OtttSequential).
    pub fn new(connection: impl OnlineModule + 'static, block: impl OnlineModule + 'static) -> Self {
        Self { connection: Box::new(connection), block: Box::new(block), spike: None, trace: None }
    }

    /// B of the step before; `None` in the first step.
    fn fed_back(&mut self, x: &Tensor, train: bool) -> Result<Option<Tensor>> {
        let Some(spike) = &self.spike else { return Ok(None) };
        if spike.size().first() != x.size().first() || spike.f_kind()? != x.f_kind()? {
            return Err(Error::StaleState {
                what: "Feedback's output of the step before".to_owned(),
                state: spike.size(),
                state_kind: spike.f_kind()?,
                input: x.size(),
                input_kind: x.f_kind()?,
            });
        }
        let before = match &self.trace {
            Some(trace) if train => {
                Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() }
            }
            _ => Signal::Dense(spike.shallow_clone()),
        };
        let connect = |module: &mut dyn OnlineModule, x: &Signal| module.step(x, train);
        let back = parts::step("connection", &mut *self.connection, &before, connect)?.into_value();
        if back.size() != x.size() {
            let (what, expected) = ("what Feedback's connection gives", format!("{:?}", x.size()));
            let fix = "it is added to the block's input; call reset() before inputs of another size";
            return Err(Error::shape(what, expected, &back, fix));
        }
        Ok(Some(back))
    }

    /// What `of` says of both parts, the part in front of each name.
    fn named(&self, of: impl Fn(&dyn OnlineModule) -> Vec<Parameter>) -> Vec<Parameter> {
        parts::named([("connection", &*self.connection), ("block", &*self.block)], of)
    }

    fn parts(&mut self) -> [(&'static str, &mut dyn OnlineModule); 2] {
        [("connection", &mut *self.connection), ("block", &mut *self.block)]
    }
}

impl OnlineModule for Feedback {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        if x.trace().is_some() {
            let expected = "a dense signal, what a weighted layer gives";
            return Err(Error::argument("Feedback's input", expected, "a spike with its trace"));
        }
        let x = x.value();
        let u = match guarded("Feedback", || self.fed_back(x, train))? {
            Some(back) => x.f_add(&back)?,
            None => x.shallow_clone(),
        };
        let y = parts::step("block", &mut *self.block, &Signal::Dense(u), |block, x| block.step(x, train))?;
        self.spike = Some(if is_through_time() { y.value().shallow_clone() } else { y.value().detach() });
        self.trace = y.trace().map(Tensor::detach);
        Ok(y)
    }

    fn hold_weights(&mut self) -> Result<()> {
        parts::each(self.parts(), |module| module.hold_weights())
    }

    fn release_weights(&mut self) -> Result<()> {
        parts::each(self.parts().into_iter().rev(), |module| module.release_weights())
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.named(|module| module.parameters())
    }

    fn buffers(&self) -> Vec<Parameter> {
        self.named(|module| module.buffers())
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        let own = [&mut self.spike, &mut self.trace];
        self.connection.memories().into_iter().chain(self.block.memories()).chain(own).collect()
    }

    fn reset(&mut self) {
        self.parts().into_iter().for_each(|(_, module)| module.reset());
        (self.spike, self.trace) = (None, None);
    }

    fn detach(&mut self) {
        self.parts().into_iter().for_each(|(_, module)| module.detach());
        self.spike = self.spike.as_ref().map(Tensor::detach);
    }

    fn constant(&mut self) -> Constant {
        Constant::Takes
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn name(&self) -> String {
        format!("Feedback({} through {})", self.block.name(), self.connection.name())
    }
}
