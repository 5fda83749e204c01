//! Weight standardization, on the CPU in one sweep over the weights each way.
//!
//! With n weights in a row (an output channel) and xh = (w - mean) r, r = 1 / sqrt(n var + eps):
//!
//! ```text
//! w'   = gain xh
//! dgain = Σ g xh
//! dw   = r (gain (g - mean(g)) - n/(n - 1) xh gain Σ g xh)        g the gradient of w'
//! ```

use tch::{Device, Kind, Tensor};

use crate::autograd::{Context, Function, Tensors};
use crate::error::{no_second_derivative, Result};
use crate::ffi::{grad_enabled, sweep_rows};
use crate::numeric::{each, total, Real};
use crate::setting::fast_paths;

/// w' of the weight `[out, ...]` and the gain, `[out, 1, ...]`.
pub(super) fn standardize(w: &Tensor, gain: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let able = fast_paths().fused_standardization && w.device() == Device::Cpu && w.is_contiguous();
    if able && matches!(w.f_kind()?, Kind::Float | Kind::Double) {
        return Ok(Fused { eps }.apply_optional(&[Some(w), gain])?.remove(0));
    }
    composed(w, gain, eps)
}

fn composed(w: &Tensor, gain: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let size = w.size();
    let fan_in: i64 = size[1..].iter().product();
    let dims: Vec<i64> = (1..size.len() as i64).collect();
    let mean = w.f_mean_dim(&dims[..], true, None::<Kind>)?;
    let var = w.f_var_dim(&dims[..], true, true)?;
    let spread = var.f_mul_scalar(fan_in as f64)?.f_add_scalar(eps)?.f_sqrt()?;
    let w = w.f_sub(&mean)?.f_div(&spread)?;
    Ok(match gain {
        Some(gain) => w.f_mul(gain)?,
        None => w,
    })
}

/// w' by one sweep, with a backward of one sweep.
struct Fused {
    eps: f64,
}

impl Function for Fused {
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        match inputs[0].f_kind()? {
            Kind::Float => self.run::<f32>(ctx, &inputs[0], inputs.get(1)),
            _ => self.run::<f64>(ctx, &inputs[0], inputs.get(1)),
        }
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.get(0) else { return Ok(vec![None, None]) };
        if grad_enabled() {
            return Err(no_second_derivative("weight standardization"));
        }
        let saved = ctx.saved_tensors()?;
        let (dw, d_gain) = match saved[0].f_kind()? {
            Kind::Float => run_back::<f32>(&saved, grad)?,
            _ => run_back::<f64>(&saved, grad)?,
        };
        Ok(vec![Some(dw), ctx.needs_input_grad(1)?.then_some(d_gain)])
    }
}

impl Fused {
    fn run<R: Real>(&self, ctx: &mut Context<'_>, w: &Tensor, gain: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let row = || w.f_new_empty([w.size()[0]], (w.f_kind()?, Device::Cpu));
        let (mean, inverse, made) = (row()?, row()?, w.f_empty_like()?);
        let gains = gain.map_or_else(|| inverse.f_ones_like(), Tensor::f_contiguous)?;
        sweep_rows([&mean, &inverse, &made], [w, &gains], |[mean, inverse, made], [w, gain]: [&[R]; 2]| {
            let n = R::of(w.len() as f64);
            let centre = total([w, w], |w, _| w) / n;
            let squares = total([w, w], |w, _| (w - centre).square());
            let r = R::of(1.0) / (squares / (n - R::of(1.0)) * n + R::of(self.eps)).sqrt();
            each(made, [w, w], |w, _| (w - centre) * r * gain[0]);
            (mean[0], inverse[0]) = (centre, r);
        })?;
        ctx.save_for_backward(&[w, &mean, &inverse, &gains])?;
        Ok(vec![made])
    }
}

/// The gradients of weight and gain.
fn run_back<R: Real>(saved: &[Tensor], grad: &Tensor) -> Result<(Tensor, Tensor)> {
    let (w, mean, inverse, gains) = (&saved[0], &saved[1], &saved[2], &saved[3]);
    let (d_gain, dw, grad) = (gains.f_empty_like()?, w.f_empty_like()?, grad.f_contiguous()?);
    let inputs = [w, &grad, mean, inverse, gains];
    sweep_rows([&d_gain, &dw], inputs, |[d_gain, dw], [w, g, mean, r, gain]: [&[R]; 5]| {
        let (n, mean, r, gain) = (R::of(w.len() as f64), mean[0], r[0], gain[0]);
        let along = total([w, g], |w, g| g * (w - mean)) * r;
        let level = total([w, g], |_, g| g) / n;
        let slope = along * r / (n - R::of(1.0)) * n;
        each(dw, [w, g], |w, g| r * gain * (g - level - (w - mean) * slope));
        d_gain[0] = along;
    })?;
    Ok((dw, d_gain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sweep_gives_what_libtorchs_operations_give() {
        for (kind, tolerance) in [(Kind::Float, 5e-5), (Kind::Double, 1e-13)] {
            for size in [&[5, 3, 3, 3][..], &[70, 4], &[3, 1000], &[4, 33]] {
                let random =
                    |size: &[i64]| (Tensor::randn(size, (Kind::Double, Device::Cpu)) + 0.3).to_kind(kind);
                let mut column = vec![1; size.len()];
                column[0] = size[0];
                let (w, gain, upstream) = (random(size), random(&column), random(size));
                for gain in [None, Some(gain)] {
                    let run = |f: &dyn Fn(&Tensor, Option<&Tensor>) -> Result<Tensor>| {
                        let w = w.detach().set_requires_grad(true);
                        let gain = gain.as_ref().map(|gain| gain.detach().set_requires_grad(true));
                        let y = f(&w, gain.as_ref()).unwrap();
                        (&y * &upstream).sum(kind).backward();
                        let d_gain = gain.map(|gain| gain.grad());
                        [Some(y.detach()), Some(w.grad()), d_gain].into_iter().flatten().collect::<Vec<_>>()
                    };
                    let expected = run(&|w, gain| composed(w, gain, 1e-4));
                    let got =
                        run(&|w, gain| Ok(Fused { eps: 1e-4 }.apply_optional(&[Some(w), gain])?.remove(0)));
                    for (got, expected) in got.iter().zip(&expected) {
                        assert_eq!(got.size(), expected.size());
                        let scale = expected.abs().max().double_value(&[]);
                        let worst = (got - expected).abs().max().double_value(&[]);
                        assert!(worst <= tolerance * scale, "{kind:?} {size:?}: {worst:e} of {scale:e}");
                    }
                }
            }
        }
    }
}
