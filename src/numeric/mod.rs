//! What sweeps over memory compute with.

mod lanes;
mod real;

pub(crate) use lanes::{each, total};
pub(crate) use real::Real;
