//! What a layer asks of its input.

use std::fmt::Display;

use tch::Tensor;

use crate::check::{expect_defined, expect_same_device, expect_same_type};
use crate::error::{Error, Result};
use crate::ffi::shape;
use crate::setting::precision;

const COMPARE: &str = "compare with the layer below";

/// Errors unless `x` has the kind of the layer's weight, or the one that the weight is to be rounded to.
fn expect_kind_of(layer: impl Display, x: &Tensor, weight: &Tensor) -> Result<()> {
    let what = format_args!("{layer}'s input");
    if precision().kind().is_some_and(|kind| x.f_kind().ok() == Some(kind)) {
        return expect_same_device(what, x, weight);
    }
    expect_same_type(what, x, weight)
}

/// Errors unless the last dimension of `x` is the second of the weight `[out, in]`.
pub(super) fn expect_features(layer: impl Display, x: &Tensor, weight: &Tensor) -> Result<()> {
    expect_defined(format_args!("{layer}'s input"), x)?;
    let features = shape(weight)[1];
    if shape(x).last() != Some(&features) {
        return Err(Error::shape(&format!("{layer}'s input"), format!("[.., {features}]"), x, COMPARE));
    }
    expect_kind_of(layer, x, weight)
}

/// Errors unless `x` is a batch of images of so many channels.
pub(super) fn expect_images(layer: impl Display, x: &Tensor, weight: &Tensor, channels: i64) -> Result<()> {
    expect_defined(format_args!("{layer}'s input"), x)?;
    let size = shape(x);
    if size.len() != 4 || size[1] != channels {
        return Err(Error::shape(&format!("{layer}'s input"), format!("[N, {channels}, H, W]"), x, COMPARE));
    }
    expect_kind_of(layer, x, weight)
}

/// Errors unless `x` is a batch (or one sample) with as many spatial dimensions as the kernel.
pub(super) fn expect_convolvable(
    layer: impl Display,
    x: &Tensor,
    weight: &Tensor,
    channels: Option<i64>,
) -> Result<()> {
    expect_defined(format_args!("{layer}'s input"), x)?;
    let (size, weights) = (shape(x), shape(weight));
    let spatial = weights.len() - 2;
    let wrong = |channels: String| {
        let expected = format!("[N, {channels}] and {spatial} spatial dimensions");
        Err(Error::shape(&format!("{layer}'s input"), expected, x, COMPARE))
    };
    if size.len() != spatial + 2 && size.len() != spatial + 1 {
        return wrong("C".to_owned());
    }
    let got = size[size.len() - spatial - 1];
    match channels {
        Some(channels) if got != channels => return wrong(channels.to_string()),
        // tch hides the groups: a multiple may be right.
        None if got % weights[1] != 0 => return wrong(weights[1].to_string()),
        _ => {}
    }
    expect_kind_of(&layer, x, weight)
}

/// Errors unless `x` is a batch of images, or one image.
pub(super) fn expect_image(layer: impl Display, x: &Tensor) -> Result<()> {
    if !(3..=4).contains(&x.dim()) {
        let fix = "add the missing dimension with unsqueeze()";
        return Err(Error::shape(&format!("{layer}'s input"), "[N, C, H, W] or [C, H, W]", x, fix));
    }
    Ok(())
}
