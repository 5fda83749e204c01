//! t
mod autograd;
mod error;
mod ffi;

pub use autograd::{gradcheck, replace_for_grad, Context, Function, GradcheckConfig, Tensors};
pub use error::{Error, Result};
