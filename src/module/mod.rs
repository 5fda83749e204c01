//! What a network is made of.
//!
//! A [`Part`] says what it is: its name, its variables, what it carries through time, what others may rely on. Beyond
//! that it does one thing. A [`Layer`] maps a tensor to a tensor and knows nothing of traces. An [`OnlineModule`] maps a
//! [`Signal`](crate::Signal) to a signal, one pass per call: neurons, containers and, by itself, every layer.

mod layer;
mod memory;
mod online;
mod part;
mod pass;
mod properties;

pub use layer::Layer;
pub(crate) use memory::laid_out_like;
pub use memory::Memory;
pub use online::OnlineModule;
pub(crate) use part::said_by;
pub use part::{Part, Role, Variable};
pub use pass::Pass;
pub use properties::Properties;
pub(crate) use properties::{Folds, Layout, Wrapper};
