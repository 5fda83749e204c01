//! Spiking neurons, one file for each rule by which the weights after them learn.

mod dynamics;
mod input_trace;
mod kernel;
mod lif;
mod ndot;
mod ottt;
mod rule;
mod sltt;

pub use dynamics::LifConfig;
pub use input_trace::InputTrace;
pub use lif::LifNode;
pub use ndot::{Ndot, NdotLifConfig, NdotLifNode};
pub use ottt::{Ottt, OtttLifConfig, OtttLifNode};
pub use rule::{LifStep, Rule, Trace};
pub use sltt::{Sltt, SlttLifConfig, SlttLifNode};
