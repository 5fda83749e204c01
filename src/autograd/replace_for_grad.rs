//! The value of one tensor, the gradient of two: OTTT's building block.

use tch::Tensor;

use crate::autograd::{Context, Function, Tensors};
use crate::check::expect_like;
use crate::error::Result;

/// Returns the value of `x_r`; its gradient goes to both `x` and `x_r`.
///
/// y = x_r, dL/dx = dL/dx_r = dL/dy. In OTTT, `replace_for_grad(spike, trace)` is what a weighted layer
/// differentiates: the weights see the trace, the layer below gets the gradient through the spike.
///
/// # Shapes
/// Both of one shape, kind and device; so is the result. It shares `x_r`'s memory, nothing is copied.
///
/// # Errors
/// When shape, kind or device differ.
///
/// # Source
/// Xiao et al., *Online Training Through Time for Spiking Neural Networks*, NeurIPS 2022,
/// arXiv 2210.04195; SpikingJelly's `ReplaceforGrad`.
///
/// ```
/// # use tch::Tensor;
/// let x = Tensor::from_slice(&[0.0, 1.0]).set_requires_grad(true);
/// let x_r = Tensor::from_slice(&[0.5, 1.5]).set_requires_grad(true);
/// let y = spiketrace::replace_for_grad(&x, &x_r)?;
/// assert_eq!(y, x_r);
/// (y * Tensor::from_slice(&[2.0, 3.0])).sum(tch::Kind::Double).f_backward()?;
/// assert_eq!(x.grad(), Tensor::from_slice(&[2.0, 3.0]));
/// assert_eq!(x_r.grad(), x.grad());
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "ReplaceforGrad")]
pub fn replace_for_grad(x: &Tensor, x_r: &Tensor) -> Result<Tensor> {
    expect_like("replace_for_grad's x_r", x_r, "x", x)?;
    Ok(ReplaceForGrad.apply(&[x, x_r])?.remove(0))
}

struct ReplaceForGrad;

impl Function for ReplaceForGrad {
    fn forward(&self, _: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[1].shallow_clone()])
    }

    fn backward(&self, _: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let grad = || grads.get(0).map(Tensor::shallow_clone);
        Ok(vec![grad(), grad()])
    }
}
