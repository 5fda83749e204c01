//! OTTT's loss of one time step.

use tch::{Reduction, Tensor};

use super::labels::{expect_labels, expect_outputs};
use crate::error::{expect_float, guarded, Error, Result};

/// Cross-entropy mixed with mean square error, divided by the count of steps.
///
/// ```text
/// L_t = ((1 - lambda) CE(y_t, label) + lambda MSE(y_t, onehot(label))) / T
/// ```
///
/// # Source
/// Xiao et al., arXiv 2210.04195, appendix D, where lambda is 0.05.
///
/// ```
/// # use tch::Tensor;
/// let loss = spiketrace::train::OtttLoss::new(0.05, 6)?;
/// let y = Tensor::from_slice2(&[[2.0f32, 0.0]]);
/// let l = loss.forward(&y, &Tensor::from_slice(&[0i64]))?;
/// let (ce, mse) = ((1.0 + (-2.0f64).exp()).ln(), 0.5);
/// assert!((l.double_value(&[]) - (0.95 * ce + 0.05 * mse) / 6.0).abs() < 1e-6);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct OtttLoss {
    lambda: f64,
    time_steps: i64,
}

impl OtttLoss {
    /// The loss for sequences of `time_steps` steps.
    ///
    /// # Errors
    /// When `lambda` is not in 0..=1, or `time_steps` is below 1.
    pub fn new(lambda: f64, time_steps: i64) -> Result<Self> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(Error::argument("lambda", "a share from 0 to 1", lambda));
        }
        if time_steps < 1 {
            return Err(Error::argument("time_steps", "at least 1", time_steps));
        }
        Ok(Self { lambda, time_steps })
    }

    /// The loss of outputs `y` `[B, C]` against class indices `label` `[B]` (Int64).
    ///
    /// # Errors
    /// When shapes or kinds differ from these; on the CPU also when a label is outside 0..C.
    pub fn forward(&self, y: &Tensor, label: &Tensor) -> Result<Tensor> {
        expect_outputs("the network's output", y)?;
        expect_float("the network's output", y)?;
        expect_labels(label, y.size()[0], y.size()[1])?;
        guarded("OtttLoss", || self.mixed(y, label))
    }

    fn mixed(&self, y: &Tensor, label: &Tensor) -> Result<Tensor> {
        let ce = y.f_cross_entropy_loss(label, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        let one_hot = y.f_zeros_like()?.f_scatter_value(1, &label.f_unsqueeze(1)?, 1.0)?;
        let mse = y.f_mse_loss(&one_hot, Reduction::Mean)?;
        let mixed = ce.f_mul_scalar(1.0 - self.lambda)?.f_add(&mse.f_mul_scalar(self.lambda)?)?;
        Ok(mixed.f_div_scalar(self.time_steps as f64)?)
    }
}
