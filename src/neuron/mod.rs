//! Leaky integrate-and-fire neurons for online training.

mod cuda;
mod fused;
mod lif;
mod ndot;
mod ottt;
mod sltt;

pub use ndot::{NdotLifConfig, NdotLifNode};
pub use ottt::{OtttLifConfig, OtttLifNode};
pub use sltt::{SlttLifConfig, SlttLifNode};
