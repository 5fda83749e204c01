//! What is asked of a user's tensors before they are computed with.
//!
//! Checks run at every step of a network, so one that passes costs no allocation: names come as [`Display`], which is
//! written where an error needs it.

use std::fmt::{Display, Formatter};

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::ffi::{elements, shape};

/// A name that is made where it is shown.
pub(crate) struct Named<F>(pub(crate) F);

impl<F: Fn() -> String> Display for Named<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&(self.0)())
    }
}

/// Errors where a tensor was never made.
pub(crate) fn expect_defined(what: impl Display, got: &Tensor) -> Result<()> {
    if got.defined() {
        return Ok(());
    }
    Err(Error::argument(&what.to_string(), "a tensor with values", "an undefined tensor"))
}

/// Errors unless `got` is a floating-point tensor with at least one element.
pub(crate) fn expect_float(what: impl Display, got: &Tensor) -> Result<()> {
    expect_defined(&what, got)?;
    let kind = got.f_kind()?;
    if !matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
        let expected = "a floating-point kind".to_owned();
        return Err(Error::Kind { what: what.to_string(), expected, got: kind });
    }
    if elements(got) == 0 {
        let fix = "an empty batch teaches nothing, skip it";
        return Err(Error::shape(&what.to_string(), "at least one element", got, fix));
    }
    Ok(())
}

/// Errors unless `got` has the shape, kind and device of `like`.
pub(crate) fn expect_like(
    what: impl Display,
    got: &Tensor,
    like_what: impl Display,
    like: &Tensor,
) -> Result<()> {
    expect_defined(&like_what, like)?;
    expect_defined(&what, got)?;
    if *shape(got) != *shape(like) {
        let fix = format!("it must be that of {like_what}");
        return Err(Error::shape(&what.to_string(), format!("{:?}", like.size()), got, &fix));
    }
    expect_same_type(what, got, like)
}

/// Errors unless `got` has the kind and device of `like`.
pub(crate) fn expect_same_type(what: impl Display, got: &Tensor, like: &Tensor) -> Result<()> {
    expect_defined(&what, got)?;
    let (kind, like_kind) = (got.f_kind()?, like.f_kind()?);
    if kind != like_kind {
        let expected = format!("{like_kind:?}");
        return Err(Error::Kind { what: what.to_string(), expected, got: kind });
    }
    expect_same_device(what, got, like)
}

/// Errors unless `got` lies where `like` does.
pub(crate) fn expect_same_device(what: impl Display, got: &Tensor, like: &Tensor) -> Result<()> {
    if got.device() != like.device() {
        let (expected, got) = (like.device(), got.device());
        return Err(Error::Device { what: what.to_string(), expected, got });
    }
    Ok(())
}

/// Errors where `state` was left by another input than `x`, which is to be of its size.
pub(crate) fn expect_fresh(
    what: impl Display,
    state: &Tensor,
    input: impl Display,
    x: &Tensor,
) -> Result<()> {
    expect_defined(&what, state)?;
    expect_defined(input, x)?;
    let (state_kind, input_kind) = (state.f_kind()?, x.f_kind()?);
    if *shape(state) != *shape(x) || state_kind != input_kind {
        let (state, input) = (state.size(), x.size());
        return Err(Error::StaleState { what: what.to_string(), state, state_kind, input, input_kind });
    }
    expect_same_type(what, state, x)
}

/// Errors unless there is a step to take.
pub(crate) fn expect_time_steps(module: impl Display, time_steps: i64) -> Result<()> {
    if time_steps >= 1 {
        return Ok(());
    }
    Err(Error::argument(&format!("{module}'s count of time steps"), "at least 1", time_steps))
}

/// Errors unless `x` is `time_steps` batches of one size.
pub(crate) fn expect_steps(module: impl Display, x: &Tensor, time_steps: i64) -> Result<()> {
    expect_time_steps(&module, time_steps)?;
    if time_steps == 1 || shape(x).first().is_some_and(|rows| rows % time_steps == 0) {
        return Ok(());
    }
    let fix = "steps come one after another, each with the whole batch";
    Err(Error::shape(&format!("{module}'s input"), format!("[{time_steps} * N, ...]"), x, fix))
}
