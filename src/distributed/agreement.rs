//! Do all processes hold the same? And making it so.

use tch::{Kind, Tensor};

use super::collectives::{Collectives, ReduceOp};
use crate::error::{Error, Result};
use crate::module::Variable;
use crate::state_dict::StateDict;
use crate::train::Optimizer;

/// Errors, on every rank alike, unless all have parameters of the same names, shapes, strides, kinds and devices.
pub(super) fn expect_alike<'a>(
    group: &dyn Collectives,
    parameters: impl IntoIterator<Item = &'a Variable>,
) -> Result<()> {
    let lines = parameters.into_iter().map(|Variable { name, tensor, .. }| {
        let place = if tensor.device().is_cuda() { ", on a GPU" } else { "" };
        let kind = tensor.f_kind()?;
        Ok(format!("{name}: {kind:?} {:?}, strides {:?}{place}", tensor.size(), tensor.stride()))
    });
    let own: Vec<String> = lines.collect::<Result<_>>()?;
    let first = broadcast_text(group, &own.join("\n"), 0)?;
    let first: Vec<&str> = first.lines().collect();
    let line =
        |lines: &[&str], i: usize| lines.get(i).map_or_else(|| "nothing".to_owned(), |&line| line.to_owned());
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let differs = (0..own.len().max(first.len())).find(|&i| own.get(i) != first.get(i));
    let sentence = differs.map(|i| {
        let (own, first, rank) = (line(&own, i), line(&first, i), group.rank());
        format!("parameter {i} is {own} on rank {rank}, but {first} on rank 0")
    });
    all_agree(group, "comparing parameters", sentence, "build the same network on all ranks")
}

/// Copies rank 0's values over those of the others.
pub(super) fn share_values<'a>(
    group: &dyn Collectives,
    parameters: impl IntoIterator<Item = &'a Variable>,
) -> Result<()> {
    let share = |parameter: &Variable| group.broadcast(&mut parameter.tensor.shallow_clone(), 0);
    parameters.into_iter().try_for_each(share)
}

/// Gives the optimizers of all ranks rank 0's state; tch's optimizers, which cannot tell theirs, keep it.
///
/// # Errors
/// On every rank alike, where an optimizer cannot take it.
pub(super) fn share_state(group: &dyn Collectives, optimizer: &mut (impl Optimizer + ?Sized)) -> Result<()> {
    let (first, told) = (group.rank() == 0, optimizer.state().ok());
    let own = told.as_ref().filter(|_| first);
    let rows = own.into_iter().flat_map(StateDict::iter);
    let lines = rows.map(|(name, tensor)| Ok(format!("{:?} {:?} {name}", tensor.f_kind()?, tensor.size())));
    let lines = broadcast_text(group, &lines.collect::<Result<Vec<_>>>()?.join("\n"), 0)?;
    let mut state = StateDict::default();
    for line in lines.lines() {
        let (kind, size, name) = described(line)?;
        let mut tensor = match own.and_then(|own| own.get(name)) {
            Some(tensor) => tensor.f_to_device(group.device())?,
            None => Tensor::f_zeros(size, (kind, group.device()))?,
        };
        group.broadcast(&mut tensor, 0)?;
        state.insert(name, &tensor);
    }
    let loaded = match (state.is_empty(), told) {
        _ if first => Ok(()),
        (true, Some(told)) if !told.is_empty() => {
            Err(Error::argument("the optimizer's state", "none, as on rank 0", "one"))
        }
        (true, _) => Ok(()),
        (false, _) => optimizer.load_state(&state),
    };
    let sentence = loaded.err().map(|error| format!("{error} (rank 0's, on rank {})", group.rank()));
    all_agree(group, "sharing the optimizer's state", sentence, "make the same optimizer on all ranks")
}

/// Kind, size and name from a line `Float [2, 3] name`.
fn described(line: &str) -> Result<(Kind, Vec<i64>, &str)> {
    use Kind::{BFloat16, Bool, Double, Float, Half, Int, Int64, Int8, Uint8};
    // Those that Gloo knows.
    let kinds = [Float, Double, Half, BFloat16, Int64, Int, Int8, Uint8, Bool];
    let parts = line.split_once(" [").and_then(|(kind, rest)| {
        let (size, name) = rest.split_once("] ")?;
        let size = size.split(", ").filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok());
        let kind = kinds.into_iter().find(|known| format!("{known:?}") == kind)?;
        Some((kind, size.collect::<Option<_>>()?, name))
    });
    let expected = "tensors of a kind that Gloo knows, with names of one line";
    parts.ok_or_else(|| Error::argument("the optimizer's state", expected, format!("{line:?}")))
}

/// Errors, on every rank alike, unless all ranks hold the same bits.
pub(super) fn expect_identical(group: &dyn Collectives, parameters: &[Variable]) -> Result<()> {
    let mut sentence = None;
    for Variable { name, tensor, .. } in parameters {
        let own = tensor.detach();
        let mut first = own.copy();
        group.broadcast(&mut first, 0)?;
        // As bytes, in which a NaN equals itself.
        let bytes = |tensor: &Tensor| tensor.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8);
        if sentence.is_none() && !bytes(&own)?.f_equal(&bytes(&first)?)? {
            sentence = Some(format!("{name} has other values on rank {} than on rank 0", group.rank()));
        }
    }
    let fix = "give all ranks' optimizers the same settings and state, and let nothing else change weights";
    all_agree(group, "comparing values", sentence, fix)
}

/// Errors with the sentence of the lowest rank that has one, on all ranks.
fn all_agree(group: &dyn Collectives, action: &str, sentence: Option<String>, fix: &str) -> Result<()> {
    let (rank, world_size) = (group.rank(), group.world_size());
    let lowest = if sentence.is_some() { rank } else { world_size };
    let mut lowest = Tensor::from_slice(&[lowest]).to_device(group.device());
    group.all_reduce(&mut lowest, ReduceOp::Min)?;
    let lowest = lowest.f_int64_value(&[0])?;
    if lowest == world_size {
        return Ok(());
    }
    let sentence = broadcast_text(group, &sentence.unwrap_or_default(), lowest)?;
    Err(Error::Distributed {
        action: action.to_owned(),
        rank,
        world_size,
        problem: format!("{sentence}; {fix}"),
    })
}

/// `text` of rank `root`, on all ranks.
fn broadcast_text(group: &dyn Collectives, text: &str, root: i64) -> Result<String> {
    let mut length = Tensor::from_slice(&[text.len() as i64]).to_device(group.device());
    group.broadcast(&mut length, root)?;
    let length = length.f_int64_value(&[0])?;
    let mut bytes = match group.rank() == root {
        true => Tensor::from_slice(text.as_bytes()).to_device(group.device()),
        false => Tensor::f_zeros([length], (Kind::Uint8, group.device()))?,
    };
    group.broadcast(&mut bytes, root)?;
    Ok(String::from_utf8_lossy(&Vec::<u8>::try_from(&bytes)?).into_owned())
}
