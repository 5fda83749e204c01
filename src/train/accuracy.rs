//! How often the right class is among the best.

use tch::{Kind, Tensor};

use super::labels::{expect_labels, expect_outputs};
use crate::error::{Error, Result};

/// The share of rows whose largest logit is at the label: [`top_k_accuracy`] with k = 1.
pub fn accuracy(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    top_k_accuracy(logits, labels, 1)
}

/// The share of rows whose label is among the k largest logits; of equal ones, the first are taken, as argmax does.
///
/// # Shapes
/// `logits` `[N, C]`, `labels` `[N]` of class indices (Int64).
///
/// # Errors
/// When shapes or kinds differ from these, a label is outside 0..C, or k is outside 1..=C.
pub fn top_k_accuracy(logits: &Tensor, labels: &Tensor, k: i64) -> Result<f64> {
    expect_outputs("logits", logits)?;
    let (rows, classes) = (logits.size()[0], logits.size()[1]);
    expect_labels(labels, rows, classes)?;
    if !(1..=classes).contains(&k) {
        return Err(Error::argument("k", &format!("from 1 to {classes}, the count of classes"), k));
    }
    let (_, order) = logits.f_sort_stable(true, 1, true)?;
    let best = order.f_narrow(1, 0, k)?;
    let hits = best.f_eq_tensor(&labels.f_unsqueeze(1)?)?.f_sum(Kind::Int64)?;
    Ok(hits.f_int64_value(&[])? as f64 / rows as f64)
}
