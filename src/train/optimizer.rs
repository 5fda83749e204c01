//! What moves the weights.

use tch::{nn, Device, Kind, Tensor};

use crate::error::{catch_panic, expect_defined, Error, Result};
use crate::ffi::forget_grad;

/// An optimizer, as far as the training loops need one.
pub trait Optimizer {
    /// The parameters it moves, in a fixed order, not copies.
    fn parameters(&self) -> Vec<Tensor>;

    /// Forgets all gradients.
    fn zero_grad(&mut self) -> Result<()>;

    /// Moves the parameters by their gradients.
    fn step(&mut self) -> Result<()>;

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
