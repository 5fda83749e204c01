//! What both formats are written with.

use std::path::Path;

use tch::{Device, Tensor};

use crate::error::{guarded, Error, Result};

/// What went wrong in writing.
pub(super) enum Problem {
    Io(std::io::Error),
    Other(Error),
}

impl Problem {
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Io(error) => Error::io(path, "cannot be written", error),
            Self::Other(error) => error,
        }
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// The tensor itself where it lies contiguously on the CPU, else such a copy.
pub(super) fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    guarded("a copy to the CPU", || {
        Ok(tensor.f_detach()?.f_to_device(Device::Cpu)?.f_resolve_conj()?.f_contiguous()?)
    })
}
