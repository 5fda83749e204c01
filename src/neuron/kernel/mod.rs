//! The steps of a layer of neurons, computed in one of three ways with the same result.
//! `composed` is what the others are tested against: any device, kind and surrogate. `sweep` is one pass over memory on the
//! CPU, `cuda` one kernel, compiled at run time, on a GPU.

mod choice;
mod composed;
mod cuda;
mod fired;
mod request;
mod sweep;
mod traced;

pub(super) use choice::Kernel;
pub(super) use request::{row, Request, Spikes};
pub(super) use traced::traced;
