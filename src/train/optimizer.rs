//! What moves the weights.

use tch::{nn, Tensor};

use crate::error::{catch_panic, Result};

/// An optimizer, as far as the training loops need one.
pub trait Optimizer {
    /// The parameters it moves, in a fixed order, not copies.
    fn parameters(&self) -> Vec<Tensor>;

    /// Forgets all gradients.
    fn zero_grad(&mut self) -> Result<()>;

    /// Moves the parameters by their gradients.
    fn step(&mut self) -> Result<()>;
}

impl Optimizer for nn::Optimizer {
    fn parameters(&self) -> Vec<Tensor> {
        self.trainable_variables()
    }

    fn zero_grad(&mut self) -> Result<()> {
        catch_panic("tch's optimizer", || nn::Optimizer::zero_grad(self))
    }

    fn step(&mut self) -> Result<()> {
        catch_panic("tch's optimizer", || nn::Optimizer::step(self))
    }
}
