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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_counts_labels_among_the_k_largest() {
        let logits =
            Tensor::from_slice2(&[[0.1, 0.9, 0.5], [0.8, 0.1, 0.3], [0.2, 0.3, 0.4], [3.0, 2.0, 1.0]]);
        let labels = Tensor::from_slice(&[1i64, 2, 0, 1]);
        assert_eq!(accuracy(&logits, &labels).unwrap(), 0.25);
        assert_eq!(top_k_accuracy(&logits, &labels, 2).unwrap(), 0.75);
        assert_eq!(top_k_accuracy(&logits, &labels, 3).unwrap(), 1.0);
    }

    #[test]
    fn of_equal_logits_the_first_are_the_best() {
        for classes in [2, 3, 10, 100, 1000] {
            let logits = Tensor::zeros([classes, classes], (Kind::Float, tch::Device::Cpu));
            let labels = Tensor::arange(classes, (Kind::Int64, tch::Device::Cpu));
            for k in [1, 2, classes] {
                let found = top_k_accuracy(&logits, &labels, k).unwrap();
                assert_eq!(found, k as f64 / classes as f64, "{k} of {classes}");
            }
        }
    }

    #[test]
    fn a_logit_that_is_no_number_is_the_largest_as_for_argmax() {
        let logits = Tensor::from_slice2(&[[1.0, f64::NAN, 2.0, f64::NAN]]);
        assert_eq!(logits.argmax(1, false).int64_value(&[0]), 1);
        for (label, expected) in [(0i64, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)] {
            assert_eq!(accuracy(&logits, &Tensor::from_slice(&[label])).unwrap(), expected);
        }
    }
}
