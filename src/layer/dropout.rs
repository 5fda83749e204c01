//! Dropout with one mask a sequence.

use tch::{Kind, Tensor};

use crate::check::{expect_defined, expect_float, expect_steps};
use crate::error::{guarded, Error, Result};
use crate::module::{Layer, Memory, Part, Pass, Properties};

/// What the two dropouts share: the probability and the mask.
#[derive(Debug)]
struct Mask {
    layer: &'static str,
    p: f64,
    mask: Memory,
}

impl Mask {
    fn new(layer: &'static str, p: f64) -> Result<Self> {
        if (0.0..1.0).contains(&p) {
            return Ok(Self { layer, p, mask: Memory::default() });
        }
        Err(Error::argument(&format!("{layer}'s p"), "a probability from 0 to below 1", p))
    }

    /// x `[time_steps * N, ...]` times the mask, drawn in the shape that `shape` makes of a step's.
    fn apply(&mut self, x: &Tensor, pass: &Pass<'_>, shape: impl Fn(&[i64]) -> Vec<i64>) -> Result<Tensor> {
        if !pass.train {
            return Ok(x.shallow_clone());
        }
        let time_steps = pass.time_steps;
        expect_float(format_args!("{}'s input", self.layer), x)?;
        expect_steps(self.layer, x, time_steps)?;
        guarded(self.layer, || {
            if time_steps == 1 {
                return self.multiply(x, &x.size(), &shape(&x.size()));
            }
            let mut step = x.size();
            step[0] /= time_steps;
            let by_step = [&[time_steps], &step[..]].concat();
            let y = self.multiply(&x.f_reshape(by_step)?, &step, &shape(&step))?;
            Ok(y.f_reshape(x.size())?)
        })
    }

    fn multiply(&mut self, x: &Tensor, step: &[i64], wanted: &[i64]) -> Result<Tensor> {
        let Some(mask) = self.mask.get() else {
            let keep = Tensor::f_full(wanted, 1.0 - self.p, (Kind::Float, x.device()))?.f_bernoulli()?;
            let mask = keep.f_to_kind(x.f_kind()?)?.f_div_scalar(1.0 - self.p)?;
            self.mask.set(&mask);
            return Ok(x.f_mul(&mask)?);
        };
        expect_defined(format_args!("{}'s mask", self.layer), mask)?;
        // A mask set by hand may have the input's full shape.
        if (mask.size() != wanted && mask.size() != step) || mask.f_kind()? != x.f_kind()? {
            return Err(Error::StaleState {
                what: format!("{}'s mask", self.layer),
                state: mask.size(),
                state_kind: mask.f_kind()?,
                input: step.to_vec(),
                input_kind: x.f_kind()?,
            });
        }
        Ok(x.f_mul(mask)?)
    }
}

/// Sets elements to 0 with probability p and scales the others by 1/(1 - p), in training only.
///
/// The mask is drawn at the first step and kept until reset: one mask a sequence, the same for the spike
/// and its trace.
///
/// # Shapes
/// Any, fixed until reset.
///
/// # Source
/// SpikingJelly's `layer.Dropout`.
#[derive(Debug)]
pub struct Dropout(Mask);

impl Dropout {
    /// Dropout with probability `p` (SpikingJelly's default is 0.5).
    ///
    /// # Errors
    /// When `p` is not in [0, 1).
    pub fn new(p: f64) -> Result<Self> {
        Mask::new("Dropout", p).map(Self)
    }

    /// Sets the mask to multiply with; it stays until reset.
    pub fn set_mask(&mut self, mask: &Tensor) {
        self.0.mask.set(mask);
    }
}

impl Part for Dropout {
    fn name(&self) -> String {
        format!("Dropout({})", self.0.p)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.0.mask]
    }

    fn properties(&self) -> Properties {
        Properties { cuts: true, ..Properties::default().any_layout().steps_at_once() }
    }
}

impl Layer for Dropout {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_pass(x, &Pass::new(train))
    }

    fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.0.apply(x, pass, <[i64]>::to_vec)
    }
}

/// [`Dropout`] of whole channels.
///
/// # Shapes
/// `[N, C, H, W]`, fixed until reset; the mask is `[N, C, 1, 1]`.
///
/// # Source
/// SpikingJelly's `layer.Dropout2d`.
#[derive(Debug)]
pub struct Dropout2d(Mask);

impl Dropout2d {
    /// Dropout of channels with probability `p` (SpikingJelly's default is 0.2).
    ///
    /// # Errors
    /// When `p` is not in [0, 1).
    pub fn new(p: f64) -> Result<Self> {
        Mask::new("Dropout2d", p).map(Self)
    }

    /// Sets the mask to multiply with; it stays until reset.
    pub fn set_mask(&mut self, mask: &Tensor) {
        self.0.mask.set(mask);
    }
}

impl Part for Dropout2d {
    fn name(&self) -> String {
        format!("Dropout2d({})", self.0.p)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.0.mask]
    }

    fn properties(&self) -> Properties {
        Properties { cuts: true, ..Properties::default().any_layout().steps_at_once() }
    }
}

impl Layer for Dropout2d {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_pass(x, &Pass::new(train))
    }

    fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        if x.dim() != 4 {
            return Err(Error::shape("Dropout2d's input", "[N, C, H, W]", x, "Dropout takes any shape"));
        }
        self.0.apply(x, pass, |size| vec![size[0], size[1], 1, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_mask_is_kept_over_steps_and_drawn_anew_after_a_reset() {
        tch::manual_seed(1);
        let x = Tensor::ones([4, 100], (Kind::Float, Device::Cpu));
        let mut dropout = Dropout::new(0.5).unwrap();
        let first = dropout.forward(&x, true).unwrap();
        assert_eq!(dropout.forward(&x, true).unwrap(), first);
        dropout.reset();
        assert_ne!(dropout.forward(&x, true).unwrap(), first);
    }

    #[test]
    fn the_expectation_is_kept_and_the_rate_is_p() {
        tch::manual_seed(2);
        let x = Tensor::ones([200, 100], (Kind::Double, Device::Cpu));
        let y = Dropout::new(0.3).unwrap().forward(&x, true).unwrap();
        let dropped = y.eq(0.0).mean(Kind::Double).double_value(&[]);
        assert!((dropped - 0.3).abs() < 0.02, "{dropped}");
        assert!((y.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.02);
    }

    #[test]
    fn channels_fall_whole() {
        let x = Tensor::ones([8, 8, 3, 3], (Kind::Float, Device::Cpu));
        let y = Dropout2d::new(0.5).unwrap().forward(&x, true).unwrap();
        let (low, high) = (y.amin([2, 3], false), y.amax([2, 3], false));
        assert_eq!(low, high);
    }
}
