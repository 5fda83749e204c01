//! What a program chooses, for itself or for a while: device, precision, fast paths, random state, memory.

mod device;
mod fast_paths;
mod precision;
mod random;
mod scoped;

pub use crate::ffi::keep_freed_memory;
pub use device::device;
pub(crate) use fast_paths::fast_paths;
pub use fast_paths::{with_fast_paths, FastPaths};
pub(crate) use precision::precision;
pub use precision::{with_precision, Precision};
pub use random::{random_state, set_random_state};
pub(crate) use scoped::{scoped, AtEnd};
