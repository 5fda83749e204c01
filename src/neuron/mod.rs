//! Leaky integrate-and-fire neurons for online training.

mod cuda;
mod fused;
mod lif;
mod ottt;
mod sltt;
mod through_time;

pub use ottt::{OtttLifConfig, OtttLifNode};
pub use sltt::{SlttLifConfig, SlttLifNode};
pub(crate) use through_time::through_time;
