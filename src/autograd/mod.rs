//! Custom differentiable functions: [`Function`], and what is built on it first.

mod cut;
mod function;
mod gradcheck;
mod replace_for_grad;

pub(crate) use cut::{Cut, Hold, Key, Owner};
pub use function::{Context, Function, Tensors};
pub use gradcheck::{gradcheck, GradcheckConfig};
pub use replace_for_grad::replace_for_grad;
