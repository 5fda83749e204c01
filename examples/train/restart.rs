//! What a run goes on from when its launcher starts it again: weights, momentum, the count of epochs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use spiketrace::distributed::Collectives;
use spiketrace::train::Sgd;
use tch::nn::VarStore;
use tch::Tensor;

use crate::report::Report;

const FILE: &str = "restart.safetensors";

pub fn save(folder: &Path, epoch: i64, vs: &VarStore, optimizer: &Sgd) -> Result<()> {
    let mut all = vec![("epoch".to_owned(), Tensor::from_slice(&[epoch]))];
    all.extend(vs.variables().into_iter().map(|(name, weight)| (format!("weight.{name}"), weight)));
    for (i, momentum) in optimizer.momentum_buffers().iter().enumerate() {
        all.extend(momentum.iter().map(|momentum| (format!("momentum.{i}"), momentum.shallow_clone())));
    }
    let all: Vec<(String, Tensor)> =
        all.into_iter().map(|(name, x)| (name, x.detach().contiguous())).collect();
    let partial = folder.join("partial.safetensors");
    Tensor::write_safetensors(&all, &partial)?;
    Ok(fs::rename(partial, folder.join(FILE))?)
}

/// How many epochs are done: rank 0 reads what there is of an earlier start, the others get it from there.
pub fn resume(
    group: &dyn Collectives,
    report: Option<&mut Report>,
    vs: &VarStore,
    optimizer: &mut Sgd,
) -> Result<i64> {
    let mut done = Tensor::from_slice(&[0i64]);
    let mut momentum: Vec<Tensor> =
        vs.trainable_variables().iter().map(|p| p.detach().zeros_like()).collect();
    if let Some(report) = report {
        let path = report.folder().join(FILE);
        let file = if path.exists() { Tensor::read_safetensors(&path)? } else { Vec::new() };
        let mut weights = vs.variables();
        for (name, tensor) in file {
            let place = match name.split_once('.') {
                None => &mut done,
                Some(("weight", name)) => {
                    weights.get_mut(name).context("restart.safetensors has another network")?
                }
                Some((_, i)) => momentum.get_mut(i.parse::<usize>()?).context("it has more momentum")?,
            };
            tch::no_grad(|| place.f_copy_(&tensor))?;
        }
        report.resume(done.int64_value(&[0]));
    }
    let mut done = done.to_device(group.device());
    group.broadcast(&mut done, 0)?;
    let done = done.int64_value(&[0]);
    if done > 0 {
        momentum.iter_mut().try_for_each(|momentum| group.broadcast(momentum, 0))?;
        optimizer.set_momentum_buffers(&momentum.into_iter().map(Some).collect::<Vec<_>>())?;
    }
    Ok(done)
}
