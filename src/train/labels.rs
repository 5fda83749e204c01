//! Outputs and class indices, checked.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::ffi::{elements, shape};

/// Errors unless `y` is `[rows, classes]` with at least one row.
pub(super) fn expect_outputs(what: &str, y: &Tensor) -> Result<()> {
    if y.dim() != 2 || elements(y) == 0 {
        let fix = "flatten the outputs of a sample, or sum the outputs over time";
        return Err(Error::shape(what, "[B, C] with at least one row", y, fix));
    }
    Ok(())
}

/// Errors unless `labels` holds `rows` class indices below `classes`.
pub(super) fn expect_labels(labels: &Tensor, rows: i64, classes: i64) -> Result<()> {
    expect_label_shape(labels, rows)?;
    expect_label_range(labels, classes)
}

/// Errors unless `labels` is `rows` integers.
pub(super) fn expect_label_shape(labels: &Tensor, rows: i64) -> Result<()> {
    if *shape(labels) != [rows] {
        return Err(Error::shape("labels", format!("[{rows}]"), labels, "give one class index a row"));
    }
    if labels.f_kind()? != Kind::Int64 {
        let (what, got) = ("labels".to_owned(), labels.f_kind()?);
        return Err(Error::Kind { what, expected: "Int64".into(), got });
    }
    Ok(())
}

/// Errors unless all `labels` are class indices below `classes`.
///
/// The values are looked at on the CPU only: on a GPU that would make the host wait at every step.
pub(super) fn expect_label_range(labels: &Tensor, classes: i64) -> Result<()> {
    if !labels.device().is_cuda() {
        let (least, most) = (labels.f_min()?.f_int64_value(&[])?, labels.f_max()?.f_int64_value(&[])?);
        if least < 0 || most >= classes {
            let got = format!("{least} to {most}");
            return Err(Error::argument(
                "the range of labels",
                &format!("class indices from 0 to {}", classes - 1),
                got,
            ));
        }
    }
    Ok(())
}
