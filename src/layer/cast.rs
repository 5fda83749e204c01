//! Weighted layers in the precision asked for by [`with_precision`](crate::with_precision).

use tch::{Kind, Tensor};

use crate::error::{expect_same_type, Error, Result};
use crate::ffi::autocast;
use crate::module::Layer;
use crate::precision::precision;

/// The kind that `module` is to compute in, where that is another than its weights'.
pub(super) fn reduced(module: &(impl Layer + ?Sized), x: &Tensor) -> Option<Kind> {
    let kind = precision().kind()?;
    (module.is_affine() && matches!(x.f_kind(), Ok(Kind::Float))).then_some(kind)
}

/// The module's forward; in a reduced precision its answer comes back as f32.
pub(super) fn forward(
    module: &mut (impl Layer + ?Sized),
    x: &Tensor,
    time_steps: i64,
    train: bool,
) -> Result<Tensor> {
    match reduced(module, x) {
        Some(kind) => {
            let y = autocast(x, kind, || module.forward_steps(x, time_steps, train))?;
            Ok(y.f_to_kind(Kind::Float)?)
        }
        None => module.forward_steps(x, time_steps, train),
    }
}

/// Errors unless `x` has the kind of the weight, or the one that the weight is to be rounded to.
pub(super) fn expect_kind_of(what: &str, x: &Tensor, weight: &Tensor) -> Result<()> {
    if precision().kind().is_some_and(|kind| x.f_kind().ok() == Some(kind)) {
        if x.device() == weight.device() {
            return Ok(());
        }
        let (expected, got) = (weight.device(), x.device());
        return Err(Error::Device { what: what.to_owned(), expected, got });
    }
    expect_same_type(what, x, weight)
}
