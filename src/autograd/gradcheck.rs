//! Gradients held to central differences.

use tch::{Kind, Tensor};

use crate::check::expect_defined;
use crate::error::{guarded, Error, Result};

/// Options of [`gradcheck`].
#[derive(Debug, Clone, Copy)]
pub struct GradcheckConfig {
    /// Half the distance of the two points of a difference.
    pub eps: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Relative tolerance.
    pub rtol: f64,
}

impl Default for GradcheckConfig {
    /// eps 1e-6, atol 1e-5, rtol 1e-3, as `torch.autograd.gradcheck`.
    fn default() -> Self {
        Self { eps: 1e-6, atol: 1e-5, rtol: 1e-3 }
    }
}

/// Compares the gradients of `f` with central differences, (f(x + ε) - f(x - ε)) / 2ε, element by element.
///
/// Every input that asks for a gradient is checked. The output is weighted by fixed, non-uniform numbers,
/// so that errors in single elements cannot cancel.
///
/// # Shapes
/// Any. Inputs that ask for a gradient hold doubles: single precision is too coarse for differences.
///
/// # Cost
/// Two evaluations of `f` an input element.
///
/// # Errors
/// When nothing would be checked, or an option decides nothing. [`Error::Gradient`] names the first element that differs by more than atol + rtol |numerical|;
/// errors of `f` are passed on.
///
/// ```
/// use tch::{Kind, Tensor};
/// let x = Tensor::randn([3, 2], (Kind::Double, tch::Device::Cpu)).set_requires_grad(true);
/// spiketrace::gradcheck(|x| Ok(x[0].f_tanh()?), &[x], Default::default())?;
/// # Ok::<(), spiketrace::Error>(())
/// ```
pub fn gradcheck(
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    config: GradcheckConfig,
) -> Result<()> {
    let GradcheckConfig { eps, atol, rtol } = config;
    for (name, value, valid) in
        [("eps", eps, eps > 0.0), ("atol", atol, atol >= 0.0), ("rtol", rtol, rtol >= 0.0)]
    {
        if !(valid && value.is_finite()) {
            return Err(Error::argument(&format!("gradcheck's {name}"), "a finite number above 0", value));
        }
    }
    // Leaves of our own: the caller's tensors keep their values and gradients. Element i is the i-th in
    // memory, whatever the caller's layout.
    let leaf = |x: &Tensor| -> Result<Tensor> {
        expect_defined("gradcheck's input", x)?;
        let copy = x.f_detach()?.f_contiguous()?.copy();
        Ok(copy.set_requires_grad(x.requires_grad()))
    };
    let leaves: Vec<Tensor> = inputs.iter().map(leaf).collect::<Result<_>>()?;
    let checked: Vec<usize> = (0..leaves.len()).filter(|&i| leaves[i].requires_grad()).collect();
    if checked.is_empty() {
        return Err(Error::Gradient("no input asks for a gradient; call set_requires_grad(true)".into()));
    }
    for &i in &checked {
        if leaves[i].kind() != Kind::Double {
            let (what, got) = (format!("gradcheck's input {i}"), leaves[i].kind());
            return Err(Error::Kind { what, expected: "Double".into(), got });
        }
    }
    let loss = |xs: &[Tensor]| weighted_sum(&guarded("gradcheck's f", || f(xs))?);
    let wanted: Vec<&Tensor> = checked.iter().map(|&i| &leaves[i]).collect();
    let output = loss(&leaves)?;
    // run_backward itself would crash.
    if !output.requires_grad() {
        let cut =
            "the output does not depend on an input by recorded operations; is there a detach() or no_grad?";
        return Err(Error::Gradient(cut.into()));
    }
    let grads = Tensor::f_run_backward(&[output], &wanted, false, false)?;

    for (&i, grad) in checked.iter().zip(&grads) {
        let grad = if grad.defined() { grad.f_contiguous()? } else { leaves[i].zeros_like() };
        for element in 0..leaves[i].numel() as i64 {
            let at = |shift: f64| -> Result<f64> {
                let mut shifted: Vec<Tensor> = leaves.iter().map(Tensor::detach).collect();
                shifted[i] = shifted[i].copy();
                let mut entry = shifted[i].f_view(-1)?.f_get(element)?;
                let _ = entry.f_add_scalar_(shift)?;
                let _no_grad = tch::no_grad_guard();
                Ok(loss(&shifted)?.f_double_value(&[])?)
            };
            let numerical = (at(eps)? - at(-eps)?) / (2.0 * eps);
            let analytic = grad.f_view(-1)?.f_double_value(&[element])?;
            // Written so that NaN fails.
            let close = (analytic - numerical).abs() <= atol + rtol * numerical.abs();
            if !close {
                return Err(Error::Gradient(format!(
                    "the gradient of input {i} (shape {:?}) at element {element} is {analytic}, \
                     central differences give {numerical}",
                    leaves[i].size()
                )));
            }
        }
    }
    Ok(())
}

/// Σ_i w_i y_i with w_i = 1 + sin(i + 1) / 2.
fn weighted_sum(y: &Tensor) -> Result<Tensor> {
    expect_defined("gradcheck's output", y)?;
    if y.numel() == 0 {
        return Err(Error::Gradient("the output has no elements: nothing would be checked".into()));
    }
    let index = Tensor::f_arange(y.numel() as i64, (Kind::Double, y.device()))?;
    let weights = (index + 1.0).f_sin()? * 0.5 + 1.0;
    Ok((y.f_reshape(-1)? * weights).f_sum(Kind::Double)?)
}
