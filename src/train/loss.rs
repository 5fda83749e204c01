//! OTTT's loss of one time step.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Reduction, Tensor};

use super::labels::{expect_label_range, expect_label_shape, expect_outputs};
use crate::autograd::{Context, Function, Tensors};
use crate::check::expect_float;
use crate::error::{guarded, no_second_derivative, Error, Result};
use crate::ffi::{grad_enabled, shape, sweep_rows, vectorized};
use crate::numeric::Real;
use crate::setting::fast_paths;

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
        expect_label_shape(label, shape(y)[0])?;
        guarded("OtttLoss", || {
            let able = fast_paths().fused_loss && y.device() == Device::Cpu && label.device() == Device::Cpu;
            if able && matches!(y.f_kind()?, Kind::Float | Kind::Double) {
                return Ok(Fused { loss: *self }.apply(&[y, label])?.remove(0));
            }
            expect_label_range(label, shape(y)[1])?;
            self.composed(y, label)
        })
    }

    fn composed(&self, y: &Tensor, label: &Tensor) -> Result<Tensor> {
        let ce = y.f_cross_entropy_loss(label, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        let one_hot = y.f_zeros_like()?.f_scatter_value(1, &label.f_unsqueeze(1)?, 1.0)?;
        let mse = y.f_mse_loss(&one_hot, Reduction::Mean)?;
        let mixed = ce.f_mul_scalar(1.0 - self.lambda)?.f_add(&mse.f_mul_scalar(self.lambda)?)?;
        Ok(mixed.f_div_scalar(self.time_steps as f64)?)
    }
}

/// The loss with its gradient in one sweep over the outputs.
struct Fused {
    loss: OtttLoss,
}

impl Function for Fused {
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        let (y, label) = (inputs[0].f_contiguous()?, &inputs[1]);
        match y.f_kind()? {
            Kind::Float => self.run::<f32>(ctx, &y, label),
            _ => self.run::<f64>(ctx, &y, label),
        }
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.get(0) else { return Ok(vec![None, None]) };
        if grad_enabled() {
            return Err(no_second_derivative("OtttLoss"));
        }
        Ok(vec![Some(ctx.saved_tensors()?[0].f_mul(grad)?), None])
    }
}

impl Fused {
    fn run<R: Real>(&self, ctx: &mut Context<'_>, y: &Tensor, label: &Tensor) -> Result<Vec<Tensor>> {
        let classes = R::of(shape(y)[1] as f64);
        let wrong = AtomicBool::new(false);
        let number = label.f_to_kind(y.f_kind()?)?.f_contiguous()?;
        let (losses, slope) = (number.f_empty_like()?, y.f_empty_like()?);
        let samples = (shape(y)[0] * self.loss.time_steps) as f64;
        let ce_share = R::of((1.0 - self.loss.lambda) / samples);
        let mse_share = R::of(self.loss.lambda / samples / shape(y)[1] as f64);
        sweep_rows([&losses, &slope], [y, &number], |[loss, slope], [y, label]: [&[R]; 2]| {
            if !(R::of(0.0) <= label[0] && label[0] < classes) {
                wrong.store(true, Ordering::Relaxed);
            }
            vectorized(
                #[inline(always)]
                || {
                    let largest = y.iter().fold(y[0], |most, &y| if y > most { y } else { most });
                    slope.iter_mut().zip(y).for_each(|(e, &y)| *e = (y - largest).exp());
                    let sum = slope.iter().fold(R::of(0.0), |sum, &e| sum + e);
                    let log_sum = sum.ln();
                    loss[0] = R::of(0.0);
                    for (class, (&y, slope)) in y.iter().zip(slope).enumerate() {
                        let target = if R::of(class as f64) == label[0] { R::of(1.0) } else { R::of(0.0) };
                        let likely = *slope / sum;
                        *slope = ce_share * (likely - target) + R::of(2.0) * mse_share * (y - target);
                        let ce = target * (log_sum - (y - largest));
                        loss[0] = loss[0] + ce_share * ce + mse_share * (y - target).square();
                    }
                },
            );
        })?;
        if wrong.into_inner() {
            expect_label_range(label, shape(y)[1])?;
        }
        ctx.save_for_backward(&[&slope])?;
        Ok(vec![losses.f_sum(losses.f_kind()?)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sweep_gives_what_libtorchs_operations_give() {
        for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::Double, 1e-14)] {
            for (batch, classes, scale) in [(1, 10, 1.0), (64, 10, 5.0), (3, 1, 1.0), (5, 300, 100.0)] {
                let y = (Tensor::randn([batch, classes], (Kind::Double, Device::Cpu)) * scale).to_kind(kind);
                let label = Tensor::randint(classes, [batch], (Kind::Int64, Device::Cpu));
                let loss = OtttLoss::new(0.3, 6).unwrap();
                let run = |forward: &dyn Fn(&Tensor) -> Result<Tensor>| {
                    let y = y.detach().set_requires_grad(true);
                    let loss = forward(&y).unwrap();
                    (&loss * 1.7).backward();
                    [loss.detach(), y.grad()]
                };
                let expected = run(&|y| loss.composed(y, &label));
                let got = run(&|y| loss.forward(y, &label));
                for (got, expected) in got.iter().zip(&expected) {
                    assert_eq!(got.size(), expected.size());
                    let worst = (got - expected).abs().max().double_value(&[]);
                    let scale = expected.abs().max().double_value(&[]);
                    assert!(worst <= tolerance * scale, "{kind:?} {batch} {classes}: {worst:e} of {scale:e}");
                }
            }
        }
    }
}
