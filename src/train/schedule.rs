//! How the learning rate moves: up to its height, then down along half a cosine.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// Options of [`CosineSchedule`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineConfig {
    /// The highest learning rate. Default: 0.1.
    pub lr: f64,
    /// The last learning rate. Default: 0.
    pub min_lr: f64,
    /// Steps until the highest learning rate is reached. Default: 0.
    pub warm_up: u64,
    /// Steps in all, warm-up included. Default: 100.
    pub steps: u64,
}

impl Default for CosineConfig {
    fn default() -> Self {
        Self { lr: 0.1, min_lr: 0.0, warm_up: 0, steps: 100 }
    }
}

/// A learning rate that rises along a line, and falls along half a cosine.
///
/// A step is what its user counts: a batch, or an epoch.
///
/// ```text
/// t <  warm_up    lr (t + 1) / (warm_up + 1)
/// t >= warm_up    min_lr + (lr - min_lr) (1 + cos(π (t - warm_up) / (steps - warm_up))) / 2
/// ```
///
/// Behind the last step it stays at `min_lr`.
///
/// # Source
/// Loshchilov and Hutter, arXiv 1608.03983, without restarts; PyTorch's `CosineAnnealingLR(T_max=steps)`, the same
/// where there is no warm-up.
///
/// ```
/// use spiketrace::train::{CosineConfig, CosineSchedule, Sgd, SgdConfig};
/// # let p = tch::Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
/// let schedule = CosineSchedule::new(CosineConfig { lr: 0.1, steps: 4, ..Default::default() })?;
/// let mut sgd = Sgd::new([&p], SgdConfig::default())?;
/// for epoch in 0..4 {
///     sgd.set_lr(schedule.lr(epoch))?;
/// }
/// assert!((schedule.lr(2) - 0.05).abs() < 1e-15);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "CosineAnnealingLR")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineSchedule(CosineConfig);

impl CosineSchedule {
    /// A schedule.
    ///
    /// # Errors
    /// When a learning rate is negative or not finite, the last is above the highest, or the warm-up leaves no step.
    pub fn new(config: CosineConfig) -> Result<Self> {
        for (name, value) in [("lr", config.lr), ("min_lr", config.min_lr)] {
            if !(value >= 0.0 && value.is_finite()) {
                let name = format!("CosineSchedule's {name}");
                return Err(Error::argument(&name, "a finite number from 0 on", value));
            }
        }
        if config.min_lr > config.lr {
            let expected = format!("at most lr, {}", config.lr);
            return Err(Error::argument("CosineSchedule's min_lr", &expected, config.min_lr));
        }
        if config.warm_up >= config.steps {
            let expected = format!("below {}, the count of all steps", config.steps);
            return Err(Error::argument("CosineSchedule's warm_up", &expected, config.warm_up));
        }
        Ok(Self(config))
    }

    /// The learning rate of step `t`, counted from 0.
    pub fn lr(&self, t: u64) -> f64 {
        let CosineConfig { lr, min_lr, warm_up, steps } = self.0;
        if t < warm_up {
            return lr * (t + 1) as f64 / (warm_up + 1) as f64;
        }
        let done = (t - warm_up) as f64 / (steps - warm_up) as f64;
        min_lr + (lr - min_lr) * (1.0 + (PI * done.min(1.0)).cos()) / 2.0
    }
}
