//! Weighted layers in the precision asked for by [`with_precision`](crate::setting::with_precision).

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::ffi::{start_autocast, swap_autocast};
use crate::module::{Layer, Pass};
use crate::setting::{precision, AtEnd};

/// The kind that an affine layer is to compute in, where that is another than its weights'.
pub(super) fn reduced(is_affine: bool, x: &Tensor) -> Option<Kind> {
    let kind = precision().kind()?;
    (is_affine && matches!(x.f_kind(), Ok(Kind::Float))).then_some(kind)
}

/// Runs `body` with linear layers and convolutions on the device of `like` computing in `kind`.
pub(super) fn autocast<T>(like: &Tensor, kind: Kind, body: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut state = start_autocast(like, kind)?;
    let _restore = AtEnd(|| drop(swap_autocast(like, &mut state)));
    body()
}

/// The layer's forward; in a reduced precision its answer comes back as f32.
pub(super) fn forward(
    layer: &mut (impl Layer + ?Sized),
    is_affine: bool,
    x: &Tensor,
    pass: &Pass<'_>,
) -> Result<Tensor> {
    match reduced(is_affine, x) {
        Some(kind) => {
            let y = autocast(x, kind, || layer.forward_pass(x, pass))?;
            Ok(y.f_to_kind(Kind::Float)?)
        }
        None => layer.forward_pass(x, pass),
    }
}
