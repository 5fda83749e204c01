//! One call of a module: how many time steps it takes, and how.

use crate::autograd::Hold;

/// How the signal goes through a module: what its container and the training loop say to it.
///
/// A module of your own hands the pass that it gets to the modules inside it, so that they know as much.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Whether this is training: traces are kept, dropout drops, batch statistics move.
    pub train: bool,
    /// How many time steps come in one call, `[time_steps * N, ...]`.
    pub time_steps: i64,
    /// Whether the graph goes from step to step, for backpropagation through time. There are no traces then.
    pub through_time: bool,
    /// What a neuron multiplies its spikes and their traces by on the way out, in the place of the layer after it.
    pub(crate) factor: f64,
    /// Keeps what is derived from weights that stand still.
    pub(crate) hold: Option<&'a Hold>,
}

impl Pass<'_> {
    /// A pass of one time step.
    pub fn new(train: bool) -> Self {
        Self { train, time_steps: 1, through_time: false, factor: 1.0, hold: None }
    }

    /// The same with so many time steps.
    pub fn steps(self, time_steps: i64) -> Self {
        Self { time_steps, ..self }
    }
}
