//! The parameters that an optimizer takes: each tensor once, each element in a place of its own.

use std::collections::HashSet;

use tch::{Kind, Tensor};

use crate::check::expect_defined;
use crate::error::{Error, Result};
use crate::ffi::{identity, layout, Layout};

/// The parameters of an optimizer, not copies: each tensor once, whatever number of names it has.
///
/// # Errors
/// When there is none, or one cannot be moved: it is no weight, its elements share memory, or another has its memory.
pub(super) fn expect_parameters<'a>(
    optimizer: &str,
    parameters: impl IntoIterator<Item = &'a Tensor>,
) -> Result<Vec<Tensor>> {
    let (mut own, mut known) = (Vec::new(), HashSet::new());
    for (i, parameter) in parameters.into_iter().enumerate() {
        let name = format!("{optimizer}'s parameter {i}");
        expect_defined(&name, parameter)?;
        if !known.insert(identity(parameter)) {
            continue;
        }
        if !parameter.is_leaf() {
            return Err(Error::argument(&name, "a weight itself", "the result of an operation"));
        }
        let got = parameter.f_kind()?;
        if !matches!(got, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
            return Err(Error::Kind { what: name, expected: "a floating-point kind".to_owned(), got });
        }
        expect_places(&name, parameter)?;
        own.push((i, parameter.shallow_clone()));
    }
    if own.is_empty() {
        let expected = "at least one tensor, for instance vs.trainable_variables()";
        return Err(Error::argument(&format!("{optimizer}'s parameters"), expected, "none"));
    }
    if let Some((i, j)) = overlapping(&own) {
        return Err(Error::argument(
            &format!("the memory of {optimizer}'s parameter {j}"),
            "memory of its own: let one of the two be a copy(), or pass the tensor that both are parts of",
            format!("also parameter {i}'s"),
        ));
    }
    Ok(own.into_iter().map(|(_, parameter)| parameter).collect())
}

/// Errors unless each element has a place of its own, so that it can be written.
pub(super) fn expect_places(what: &str, tensor: &Tensor) -> Result<()> {
    let expected = "one whose elements each have a place in memory";
    match layout(tensor) {
        Layout::Dense | Layout::Apart => Ok(()),
        Layout::Shared => Err(Error::argument(
            what,
            &format!("{expected}: pass the tensor that was expanded, or a copy()"),
            "a tensor whose elements share memory",
        )),
        Layout::Other => Err(Error::argument(what, expected, "sparse, or larger than its memory")),
    }
}

/// The places of two tensors that have an element's memory in common.
fn overlapping(tensors: &[(usize, Tensor)]) -> Option<(usize, usize)> {
    let mut stretches: Vec<_> = tensors.iter().filter_map(|(i, tensor)| Stretch::of(*i, tensor)).collect();
    stretches.sort_unstable_by_key(|stretch| stretch.start);
    let mut before: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        before.retain(|other| other.end > stretch.start);
        if let Some(other) = before.iter().find(|other| other.meets(&stretch)) {
            return Some((other.place.min(stretch.place), other.place.max(stretch.place)));
        }
        before.push(stretch);
    }
    None
}

/// The memory from a tensor's first element to its last.
struct Stretch<'a> {
    place: usize,
    tensor: &'a Tensor,
    start: usize,
    end: usize,
    element: usize,
}

impl<'a> Stretch<'a> {
    fn of(place: usize, tensor: &'a Tensor) -> Option<Self> {
        let (size, stride) = (tensor.size(), tensor.stride());
        let last: i64 = size.iter().zip(&stride).map(|(size, stride)| (size - 1) * stride).sum();
        let (start, element) = (tensor.data_ptr() as usize, tensor.kind().elt_size_in_bytes());
        let end = start + (last as usize + 1) * element;
        (tensor.numel() > 0).then_some(Self { place, tensor, start, end, element })
    }

    /// Whether two stretches that overlap have an element in common: two columns of a matrix have none.
    fn meets(&self, other: &Self) -> bool {
        let dense = layout(self.tensor) == Layout::Dense && layout(other.tensor) == Layout::Dense;
        let even = self.element == other.element && (other.start - self.start).is_multiple_of(self.element);
        if dense || !even {
            return true;
        }
        let own: HashSet<usize> = self.elements().into_iter().collect();
        other.elements().iter().any(|element| own.contains(element))
    }

    fn elements(&self) -> Vec<usize> {
        let dims = self.tensor.size().into_iter().zip(self.tensor.stride());
        dims.fold(vec![self.start], |all, (size, stride)| {
            let step = stride as usize * self.element;
            all.into_iter().flat_map(|at| (0..size as usize).map(move |i| at + i * step)).collect()
        })
    }
}
