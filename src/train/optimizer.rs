//! What moves the weights.

use tch::{nn, Tensor};

use crate::error::{catch_panic, Error, Result};
use crate::ffi::forget_grad;
use crate::state_dict::StateDict;

/// An optimizer, as far as the training loops need one.
pub trait Optimizer {
    /// The parameters it moves, in a fixed order, not copies.
    fn parameters(&self) -> Vec<Tensor>;

    /// Forgets all gradients.
    fn zero_grad(&mut self) -> Result<()>;

    /// Moves the parameters by their gradients.
    fn step(&mut self) -> Result<()>;

    /// What it keeps from step to step, with the learning rate: `lr`, and `0.momentum_buffer` and the like by
    /// each parameter's place. Not copies.
    ///
    /// # Errors
    /// When the optimizer cannot tell: by default, and so tch's.
    fn state(&self) -> Result<StateDict> {
        Err(Error::argument("the optimizer", "one that tells its state, such as Sgd or Adam", "another"))
    }

    /// Sets that state, which is copied.
    ///
    /// # Errors
    /// When the state is not one of such an optimizer; nothing is changed then.
    fn load_state(&mut self, _: &StateDict) -> Result<()> {
        Err(Error::argument("the optimizer", "one that takes a state, such as Sgd or Adam", "another"))
    }

    /// Told by the training loops before a batch: the gradients to come are means over so many samples.
    fn set_samples(&mut self, _samples: i64) {}

    /// Makes the gradients those of the whole batch, of an optimizer that shares it with other processes.
    ///
    /// [`step`](Optimizer::step) does so by itself; it is for loops that look at gradients in between.
    fn average_grads(&mut self) -> Result<()> {
        Ok(())
    }
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

/// Errors unless a number is finite and not below 0.
pub(super) fn expect_from_0(what: &str, number: f64) -> Result<()> {
    if number >= 0.0 && number.is_finite() {
        return Ok(());
    }
    Err(Error::argument(what, "a finite number from 0 on", number))
}

/// The learning rate in a state of an optimizer.
pub(super) fn lr_of(optimizer: &str, state: &StateDict) -> Result<f64> {
    let lr = state.get("lr").filter(|lr| lr.defined() && lr.numel() == 1);
    let lr =
        lr.ok_or_else(|| Error::argument(&format!("{optimizer}'s state"), "a number lr in it", "none"))?;
    let lr = lr.f_double_value(&[])?;
    expect_from_0(&format!("{optimizer}'s lr"), lr)?;
    Ok(lr)
}

/// Errors unless all names in a state are `lr` or a parameter's place and one of `parts`.
pub(super) fn expect_names(
    optimizer: &str,
    state: &StateDict,
    parameters: usize,
    parts: &[&str],
) -> Result<()> {
    for name in state.names().filter(|name| *name != "lr") {
        let known = name.split_once('.').is_some_and(|(place, part)| {
            place.parse().is_ok_and(|place: usize| place < parameters) && parts.contains(&part)
        });
        if !known {
            let expected = format!("lr and {} of {parameters} parameters", parts.join(", "));
            return Err(Error::argument(&format!("a name in {optimizer}'s state"), &expected, name));
        }
    }
    Ok(())
}

/// Leaves the parameters without gradients.
pub(super) fn forget_grads(parameters: &[Tensor]) -> Result<()> {
    parameters.iter().try_for_each(forget_grad)
}
