//! Leaky integrate-and-fire neurons for online training.

mod fused;
mod lif;
mod ottt;
mod sltt;

pub use ottt::{OtttLifConfig, OtttLifNode};
pub use sltt::{SlttLifConfig, SlttLifNode};
