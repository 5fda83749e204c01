//! Tensors as libtorch's optimizer kernels take them: the kernels go through memory by address.

use tch::{Device, Kind, Tensor};

use super::parameters::expect_places;
use crate::check::expect_like;
use crate::error::{Error, Result};
use crate::ffi::{copy_like, is_alike, layout, Layout};

/// What one kernel moves together.
pub(super) struct Group {
    /// The parameters' places among all.
    pub(super) members: Vec<usize>,
    /// Whether this is the first step of each.
    pub(super) first: bool,
    /// Parameters, gradients, and as many kinds of state as each has.
    pub(super) columns: Vec<Vec<Tensor>>,
}

/// The parameters of a step with gradients and states: dense, laid out alike, and on the CPU in single or double
/// precision. What is not so takes part as a copy, whose values are brought back.
///
/// All that can be refused is refused while this is made, before anything moves.
pub(super) struct LaidOut<'a> {
    optimizer: &'a str,
    groups: Vec<((Device, Kind, bool), Group)>,
    copies: Vec<(Tensor, Tensor)>,
}

impl<'a> LaidOut<'a> {
    pub(super) fn new(optimizer: &'a str) -> Self {
        Self { optimizer, groups: Vec::new(), copies: Vec::new() }
    }

    /// Adds parameter `i` with its gradient and its states, each with its name.
    ///
    /// # Errors
    /// When one of them does not fit the parameter, or cannot be read or written.
    pub(super) fn add(
        &mut self,
        i: usize,
        parameter: &Tensor,
        grad: Tensor,
        states: &[(&str, &Tensor)],
        first: bool,
    ) -> Result<()> {
        let name = format_args!("{}'s parameter {i}", self.optimizer);
        let (kind, device) = (parameter.f_kind()?, parameter.device());
        let kernel_kind = kernel_kind(kind, device);
        let mut tensors = Vec::with_capacity(states.len() + 2);
        if kernel_kind == kind && layout(parameter) == Layout::Dense {
            tensors.push(parameter.shallow_clone());
        } else {
            expect_places(&name.to_string(), parameter)?;
            let copy = copied(Tensor::f_empty(parameter.size(), (kernel_kind, device))?, parameter)?;
            self.copies.push((parameter.shallow_clone(), copy.shallow_clone()));
            tensors.push(copy);
        }
        if is_alike(&tensors[0], &grad) {
            tensors.push(grad);
        } else {
            let what = format!("the gradient of {name}");
            expect_like(&what, &grad, "its parameter", parameter)?;
            if layout(&grad) == Layout::Other {
                let expected = "a dense one: an embedding's is dense where it is made with sparse false";
                return Err(Error::argument(&what, expected, "sparse"));
            }
            tensors.push(copy_like(&tensors[0], &grad)?);
        }
        for (kind, state) in states {
            if is_alike(&tensors[0], state) {
                tensors.push(state.shallow_clone());
                continue;
            }
            let what = format!("the {kind} of {name}");
            expect_like(&what, state, "its parameter", parameter)?;
            expect_places(&what, state)?;
            let copy = copy_like(&tensors[0], state)?;
            self.copies.push((state.shallow_clone(), copy.shallow_clone()));
            tensors.push(copy);
        }
        self.file(i, (device, kernel_kind, first), tensors);
        Ok(())
    }

    /// Puts tensors to those that one kernel moves with them.
    fn file(&mut self, i: usize, key: (Device, Kind, bool), tensors: Vec<Tensor>) {
        let at = self.groups.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            let columns = tensors.iter().map(|_| Vec::new()).collect();
            self.groups.push((key, Group { members: Vec::new(), first: key.2, columns }));
            self.groups.len() - 1
        });
        let group = &mut self.groups[at].1;
        group.members.push(i);
        group.columns.iter_mut().zip(tensors).for_each(|(column, tensor)| column.push(tensor));
    }

    /// Runs `kernel` on each group, and brings back what it did to copies.
    pub(super) fn run(self, mut kernel: impl FnMut(&Group) -> Result<()>) -> Result<()> {
        self.groups.iter().try_for_each(|(_, group)| kernel(group))?;
        self.copies.into_iter().try_for_each(|(tensor, copy)| copied(tensor, &copy).map(drop))
    }
}

/// What a kernel computes in: on the CPU libtorch's SGD, up to 2.13 at least, loses most moves in half precision.
fn kernel_kind(kind: Kind, device: Device) -> Kind {
    match kind {
        Kind::Half | Kind::BFloat16 if device == Device::Cpu => Kind::Float,
        kind => kind,
    }
}

fn copied(mut tensor: Tensor, values: &Tensor) -> Result<Tensor> {
    tensor.f_copy_(values)?;
    Ok(tensor)
}
