//! What a part carries from one time step to the next.

use tch::Tensor;

use crate::error::Result;
use crate::ffi::{copy_like, is_unshared, strides};

/// What a part carries from one time step to the next; nothing until the first input makes it.
///
/// A handle that somebody was given, or gave, keeps its values: a step writes to the memory of a tensor only where
/// nobody else can see it.
#[derive(Debug, Default)]
pub struct Memory(Option<Tensor>);

impl Memory {
    /// The tensor after the last step.
    pub fn get(&self) -> Option<&Tensor> {
        self.0.as_ref()
    }

    /// Sets the tensor that the next step begins with; no step changes `tensor` itself.
    pub fn set(&mut self, tensor: &Tensor) {
        self.0 = Some(tensor.shallow_clone());
    }

    /// Forgets the past.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// Cuts the tensor from the graph that made it.
    pub fn detach(&mut self) {
        if let Some(tensor) = self.0.as_ref().filter(|tensor| tensor.defined()) {
            self.0 = Some(tensor.detach());
        }
    }

    /// Another handle of the same tensor, or of none.
    pub(crate) fn shallow_clone(&self) -> Self {
        Self(self.0.as_ref().map(Tensor::shallow_clone))
    }

    /// The tensor to write the next state to, laid out in memory as `like` is: itself where nobody else can see it, else
    /// a copy; a new one, with values of any kind, where there is none.
    pub(crate) fn to_write(&self, like: &Tensor) -> Result<Tensor> {
        match &self.0 {
            None => Ok(like.f_empty_like()?),
            Some(state) if is_unshared(state) => laid_out_like(like, state),
            Some(state) => copy_like(like, state),
        }
    }
}

impl From<Option<Tensor>> for Memory {
    fn from(tensor: Option<Tensor>) -> Self {
        Self(tensor)
    }
}

impl From<Tensor> for Memory {
    fn from(tensor: Tensor) -> Self {
        Self(Some(tensor))
    }
}

/// `tensor` itself if it lies in memory as `like` does, else a copy that does; without a graph.
pub(crate) fn laid_out_like(like: &Tensor, tensor: &Tensor) -> Result<Tensor> {
    if *strides(tensor) == *strides(like) && !tensor.is_neg() {
        return Ok(tensor.f_detach()?);
    }
    copy_like(like, tensor)
}
