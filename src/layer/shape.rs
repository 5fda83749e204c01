//! Layers without weights or state: scale, flatten, identity.

use tch::Tensor;

use crate::error::{expect_defined, guarded, Error, Result};
use crate::module::{Layer, Layout};

/// Multiplies by a constant: y = scale x.
///
/// The OTTT VGG networks multiply spikes by 2.74 behind each neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(pub f64);

impl Layer for Scale {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        expect_defined("Scale's input", x)?;
        guarded("Scale", || Ok(x.f_mul_scalar(self.0)?))
    }

    fn is_samplewise(&self) -> bool {
        true
    }

    fn scale(&self) -> Option<f64> {
        Some(self.0)
    }

    fn name(&self) -> String {
        format!("Scale({})", self.0)
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }
}

/// Joins the dimensions `start_dim ..= end_dim` into one; by default all but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flatten {
    /// First dimension joined; 1. Negative counts from the end.
    pub start_dim: i64,
    /// Last dimension joined; -1.
    pub end_dim: i64,
}

impl Default for Flatten {
    fn default() -> Self {
        Self { start_dim: 1, end_dim: -1 }
    }
}

impl Layer for Flatten {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        let dims = x.dim() as i64;
        let position = |dim: i64| if dim < 0 { dim + dims } else { dim };
        let (start, end) = (position(self.start_dim), position(self.end_dim));
        if start < 0 || end >= dims || start > end {
            let expected = format!("dimensions {} to {}", self.start_dim, self.end_dim);
            return Err(Error::shape("Flatten's input", expected, x, "the input has too few dimensions"));
        }
        Ok(x.f_flatten(self.start_dim, self.end_dim)?)
    }

    fn is_samplewise(&self) -> bool {
        self.start_dim > 0
    }

    fn name(&self) -> String {
        format!("Flatten({}, {})", self.start_dim, self.end_dim)
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }
}

/// Returns its input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity;

impl Layer for Identity {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.shallow_clone())
    }

    fn is_samplewise(&self) -> bool {
        true
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }
}
