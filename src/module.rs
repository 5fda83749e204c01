//! The two traits everything in a network implements one of.
//!
//! A [`Layer`] maps a tensor to a tensor and knows nothing of traces. An [`OnlineModule`] maps a
//! [`Signal`] to a [`Signal`], one time step a call: neurons, containers, and, by itself, every layer.

use std::fmt::{Debug, Display};

use tch::Tensor;

use crate::error::{Error, Result};
use crate::signal::Signal;

/// A weight of a module, whether or not it asks for a gradient.
#[derive(Debug)]
pub struct Parameter {
    /// PyTorch's name for it: `weight`, `bias`, in containers `0.weight`.
    pub name: String,
    /// The weight itself, not a copy.
    pub tensor: Tensor,
}

impl Parameter {
    /// A parameter that shares `tensor`.
    pub fn new(name: impl Into<String>, tensor: &Tensor) -> Self {
        Self { name: name.into(), tensor: tensor.shallow_clone() }
    }
}

/// What a module carries from one time step to the next; `None` until the first input makes it.
pub type Memory = Option<Tensor>;

/// How a module wants the images of a batch `[N, C, H, W]` to lie in memory.
///
/// A container arranges the signal in front of each module as it asks; shapes and values are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Row after row, channel after channel: what `view()` needs. The default of a module of your own.
    Contiguous,
    /// As it comes.
    Any,
    /// All channels of a pixel together, which 2-dimensional convolutions on the CPU are fastest on.
    ChannelsLast,
}

/// What a module does with [`Signal::Constant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constant {
    /// It wants the values of every step.
    Refuses,
    /// It takes them as they are, and its answer changes with time: a neuron.
    Takes,
    /// Its answer is constant too: a layer without state, as far as it treats samples by themselves.
    Keeps,
}

/// A map from tensor to tensor: a weighted layer, a pooling, a dropout.
///
/// Every layer is an [`OnlineModule`] too: on a spike with its trace, one that has parameters acts as
/// [`GradWithTrace`](crate::GradWithTrace), one that has none as [`SpikeTraceOp`](crate::SpikeTraceOp).
///
/// ```
/// use spiketrace::{Layer, OtttSequential, Result};
/// use tch::Tensor;
///
/// #[derive(Debug)]
/// struct Double;
///
/// impl Layer for Double {
///     fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
///         Ok(x * 2.0)
///     }
/// }
///
/// let net = OtttSequential::new().add(Double);
/// assert!(net.to_string().contains("SpikeTraceOp"));
/// ```
pub trait Layer: Debug + Send {
    /// The output at one time step.
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor>;

    /// The outputs of several time steps at once.
    ///
    /// By default forward on all steps together, where [`is_samplewise`](Layer::is_samplewise) says that
    /// this is the same.
    ///
    /// # Shapes
    /// `x` `[time_steps * N, ...]`, one step after another, and so the output.
    fn forward_steps(&mut self, x: &Tensor, time_steps: i64, train: bool) -> Result<Tensor> {
        if time_steps == 1 || (self.is_samplewise() && self.memories().is_empty()) {
            return self.forward(x, train);
        }
        Err(Error::SeveralSteps { module: self.name() })
    }

    /// The weights, also those that ask for no gradient.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Tensors that belong to the layer's state and that no optimizer moves: running statistics.
    fn buffers(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Whether each sample of a batch is treated by itself and alike at every step, so that steps may go through
    /// together, and a constant input once: no batch statistics, no noise. The default is what [`is_affine`](Layer::is_affine) says.
    fn is_samplewise(&self) -> bool {
        self.is_affine()
    }

    /// How the input is to lie in memory.
    fn layout(&self) -> Layout {
        Layout::Contiguous
    }

    /// Whether forward is one linear or convolution operation of libtorch on the input itself.
    ///
    /// Such a layer runs once in training, not twice: its operation keeps the trace in the spike's place.
    /// What the weight goes through before does not matter. The default is false, which is right for all.
    fn is_affine(&self) -> bool {
        false
    }

    /// Says that the weights stand still from now on: what is derived from them may be made once.
    fn hold_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends one [`hold_weights`](Layer::hold_weights), and passes the gradient gathered so far on to the weights.
    fn release_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// The factor, of a layer that multiplies by a constant and does nothing else.
    #[doc(hidden)]
    fn scale(&self) -> Option<f64> {
        None
    }

    /// What the layer carries through time, in a fixed order.
    fn memories(&mut self) -> Vec<&mut Memory> {
        Vec::new()
    }

    /// A short name for tables and errors, for instance `Linear(64 -> 10)`.
    fn name(&self) -> String {
        short_type_name::<Self>()
    }
}

/// A module that runs through time, one step a call.
#[doc(alias = "MemoryModule")]
pub trait OnlineModule: Debug + Send {
    /// Takes the signal of one time step and returns the module's answer.
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal>;

    /// Takes the signals of several time steps at once and returns the module's answers.
    ///
    /// The default takes one step only: a module that keeps a state must say how it moves.
    ///
    /// # Shapes
    /// `x` `[time_steps * N, ...]`, one step after another, and so the answers.
    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        if time_steps == 1 {
            return self.step(x, train);
        }
        Err(Error::SeveralSteps { module: self.name() })
    }

    /// The weights, also those that ask for no gradient.
    fn parameters(&self) -> Vec<Parameter>;

    /// Tensors that belong to the module's state and that no optimizer moves: running statistics.
    fn buffers(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Parameters and buffers: what a [`StateDict`](crate::StateDict) of the module holds.
    #[doc(alias = "state_dict")]
    fn state(&self) -> Vec<Parameter> {
        [self.parameters(), self.buffers()].into_iter().flatten().collect()
    }

    /// Says that the weights stand still from now on: what is derived from them may be made once.
    ///
    /// The training loop says so for a sequence after which the weights move. Until
    /// [`release_weights`](OnlineModule::release_weights) gradients may be kept back: a loss that asks for the gradient
    /// of a weight does not get it. Holds nest: a loop that holds and releases may run inside another hold, so a module
    /// of your own counts them. Backward belongs before the release; a gradient that comes after it passes on with the
    /// next hold or release.
    fn hold_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends one [`hold_weights`](OnlineModule::hold_weights), and passes the gradient gathered so far on to the weights.
    /// A container of your own releases its parts from the last to the first.
    fn release_weights(&mut self) -> Result<()> {
        Ok(())
    }

    /// What the module carries from one time step to the next, in a fixed order.
    fn memories(&mut self) -> Vec<&mut Memory>;

    /// A short name for tables and errors.
    fn name(&self) -> String {
        short_type_name::<Self>()
    }

    /// How the input is to lie in memory.
    fn layout(&self) -> Layout {
        Layout::Contiguous
    }

    /// What the module does with a constant.
    fn constant(&mut self) -> Constant {
        Constant::Refuses
    }

    /// As of a layer: `Layer::scale`.
    #[doc(hidden)]
    fn scale(&self) -> Option<f64> {
        None
    }

    /// Whether the module can multiply its output itself, which saves a container the layer behind it.
    #[doc(hidden)]
    fn takes_scale(&self) -> bool {
        false
    }

    /// `steps` with its output multiplied, of a module that takes a scale.
    #[doc(hidden)]
    fn scaled_steps(&mut self, _: &Signal, _: i64, _: bool, _: f64) -> Result<Signal> {
        Err(Error::argument(&self.name(), "a module that takes a scale", "another"))
    }

    /// What a spike with its trace meets around the module, for tables; empty for none.
    fn wrapper(&self) -> &'static str {
        ""
    }

    /// Forgets the past: to be called between sequences.
    #[doc(alias = "reset_net")]
    fn reset(&mut self) {
        for memory in self.memories() {
            *memory = None;
        }
    }

    /// Cuts what is carried over from the graph that made it.
    ///
    /// The neurons of this crate never carry a graph; a module of your own may.
    #[doc(alias = "detach_net")]
    fn detach(&mut self) {
        for memory in self.memories().into_iter().flatten() {
            *memory = memory.detach();
        }
    }
}

/// Errors unless there is a step to take.
pub(crate) fn expect_time_steps<N: Display>(module: impl FnOnce() -> N, time_steps: i64) -> Result<()> {
    if time_steps >= 1 {
        return Ok(());
    }
    Err(Error::argument(&format!("{}'s count of time steps", module()), "at least 1", time_steps))
}

/// Errors unless `x` is `time_steps` batches of one size.
pub(crate) fn expect_steps(module: &str, x: &Tensor, time_steps: i64) -> Result<()> {
    expect_time_steps(|| module, time_steps)?;
    if time_steps == 1 || (x.dim() > 0 && x.size()[0] % time_steps == 0) {
        return Ok(());
    }
    let fix = "steps come one after another, each with the whole batch";
    Err(Error::shape(&format!("{module}'s input"), format!("[{time_steps} * N, ...]"), x, fix))
}

/// The last part of a type's path, without its generic arguments.
fn short_type_name<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name).to_owned()
}
