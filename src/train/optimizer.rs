//! What moves the weights.

use tch::{nn, Device, Kind, Tensor};

use crate::error::{catch_panic, expect_defined, Error, Result};
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

/// Errors unless there are parameters and all are leaves; the same tensors, not copies.
pub(super) fn expect_parameters<'a>(
    optimizer: &str,
    parameters: impl IntoIterator<Item = &'a Tensor>,
) -> Result<Vec<Tensor>> {
    let parameters: Vec<Tensor> = parameters.into_iter().map(Tensor::shallow_clone).collect();
    if parameters.is_empty() {
        let expected = "at least one tensor, for instance vs.trainable_variables()";
        return Err(Error::argument(&format!("{optimizer}'s parameters"), expected, "none"));
    }
    for (i, parameter) in parameters.iter().enumerate() {
        expect_defined(&format!("{optimizer}'s parameter {i}"), parameter)?;
        if !parameter.is_leaf() {
            let expected = "a weight itself";
            let got = "the result of an operation";
            return Err(Error::argument(&format!("{optimizer}'s parameter {i}"), expected, got));
        }
    }
    Ok(parameters)
}

/// The learning rate in a state of an optimizer.
pub(super) fn lr_of(optimizer: &str, state: &StateDict) -> Result<f64> {
    let lr = state.get("lr").filter(|lr| lr.defined() && lr.numel() == 1);
    let lr =
        lr.ok_or_else(|| Error::argument(&format!("{optimizer}'s state"), "a number lr in it", "none"))?;
    let lr = lr.f_double_value(&[])?;
    if !(lr >= 0.0 && lr.is_finite()) {
        return Err(Error::argument(&format!("{optimizer}'s lr"), "a finite number from 0 on", lr));
    }
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

/// A copy of `values` with the strides of `own`: fused optimizers go through both side by side, by address.
pub(super) fn laid_out_as(own: &Tensor, values: &Tensor) -> Result<Tensor> {
    let mut copy = own.f_detach()?.f_empty_like()?;
    copy.f_copy_(&values.f_detach()?)?;
    Ok(copy)
}

/// Leaves the parameters without gradients.
pub(super) fn forget_grads(parameters: &[Tensor]) {
    parameters.iter().for_each(forget_grad);
}

/// Parameters that one kernel moves together.
pub(super) struct Group {
    /// Their places among all.
    pub(super) members: Vec<usize>,
    pub(super) parameters: Vec<Tensor>,
    pub(super) grads: Vec<Tensor>,
}

/// The parameters that have a gradient, by device, kind and what `by` says of each.
pub(super) fn groups(parameters: &[Tensor], by: impl Fn(usize) -> bool) -> Result<Vec<(bool, Group)>> {
    let mut groups: Vec<((Device, Kind, bool), Group)> = Vec::new();
    for (i, parameter) in parameters.iter().enumerate() {
        let grad = parameter.f_grad()?;
        if !grad.defined() {
            continue;
        }
        let key = (parameter.device(), parameter.f_kind()?, by(i));
        let at = groups.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            groups.push((key, Group { members: Vec::new(), parameters: Vec::new(), grads: Vec::new() }));
            groups.len() - 1
        });
        let group = &mut groups[at].1;
        group.members.push(i);
        group.parameters.push(parameter.shallow_clone());
        group.grads.push(grad);
    }
    Ok(groups.into_iter().map(|((_, _, by), group)| (by, group)).collect())
}
