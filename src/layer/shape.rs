//! Layers without weights or state: scale, flatten, identity.

use tch::Tensor;

use crate::check::expect_defined;
use crate::error::{guarded, Error, Result};
use crate::module::{Folds, Layer, Part, Properties};

/// Multiplies by a constant: y = scale x.
///
/// The OTTT VGG networks multiply spikes by 2.74 after each neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(pub f64);

impl Part for Scale {
    fn name(&self) -> String {
        format!("Scale({})", self.0)
    }

    fn properties(&self) -> Properties {
        Properties::default().samplewise().any_layout().folds::<Self>(Folds::Factor(self.0))
    }
}

impl Layer for Scale {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        expect_defined("Scale's input", x)?;
        guarded("Scale", || Ok(x.f_mul_scalar(self.0)?))
    }
}

/// Joins the dimensions `start_dim ..= end_dim` into one; by default all but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flatten {
    /// First dimension joined. Default: 1. Negative counts from the end.
    pub start_dim: i64,
    /// Last dimension joined. Default: -1.
    pub end_dim: i64,
}

impl Default for Flatten {
    fn default() -> Self {
        Self { start_dim: 1, end_dim: -1 }
    }
}

impl Part for Flatten {
    fn name(&self) -> String {
        format!("Flatten({}, {})", self.start_dim, self.end_dim)
    }

    fn properties(&self) -> Properties {
        let properties = Properties::default().any_layout();
        // Joined with others, a sample does not stand by itself any more.
        if self.start_dim > 0 {
            properties.samplewise()
        } else {
            properties
        }
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
}

/// Returns its input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity;

impl Part for Identity {
    fn properties(&self) -> Properties {
        Properties::default().samplewise().any_layout()
    }
}

impl Layer for Identity {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.shallow_clone())
    }
}
