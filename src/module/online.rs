//! Modules that run through time.

use super::part::said_by;
use super::{Layer, Part, Pass, Properties};
use crate::error::Result;
use crate::signal::Signal;

/// A module that runs through time, one pass per call.
///
/// The neurons and containers of this crate are such modules, and so is every [`Layer`]. A neuron with a trace of its own
/// is easier to write as a [`Rule`](crate::Rule).
#[doc(alias = "MemoryModule")]
pub trait OnlineModule: Part {
    /// Takes the signal of a pass and returns the module's answer.
    ///
    /// A pass has one time step, unless the module's properties say that it takes
    /// [several at once](Properties::steps_at_once).
    ///
    /// # Shapes
    /// `x` `[time_steps * N, ...]`, one step after another, and so the answer.
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal>;

    /// [`pass`](OnlineModule::pass) of one time step. Inside a module of your own, hand on the pass instead: it says more
    /// than `train`.
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.pass(x, &Pass::new(train))
    }

    /// This module as the layer that it is, if it is one: a container treats those by what it knows of them.
    fn as_layer(&mut self) -> Option<&mut dyn Layer> {
        None
    }
}

impl<M: OnlineModule + ?Sized> Part for Box<M> {
    said_by!(self => (**self));

    fn properties(&self) -> Properties {
        (**self).properties()
    }
}

impl OnlineModule for Box<dyn OnlineModule> {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        (**self).pass(x, pass)
    }

    fn as_layer(&mut self) -> Option<&mut dyn Layer> {
        (**self).as_layer()
    }
}
