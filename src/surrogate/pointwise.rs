//! Surrogate derivatives as plain arithmetic, for the fused kernels of the neurons.

use crate::numeric::Real;

/// A surrogate's gradient in one sweep: out = grad scale h(over) / divisor. Made by `surrogates!`.
pub trait Pointwise: Send + Sync {
    /// In single precision.
    fn single(&self, over: &[f32], grad: &[f32], share: Share<f32>, out: &mut [f32]);

    /// In double precision.
    fn double(&self, over: &[f64], grad: &[f64], share: Share<f64>, out: &mut [f64]);

    /// The derivative as CUDA C++ that sets `T h` from `T x` and its magnitude `T m`.
    fn cuda(&self) -> String;
}

/// What stands beside the derivative in a neuron's gradient.
#[derive(Debug, Clone, Copy)]
pub struct Share<R> {
    /// Of the spikes on their way out.
    pub scale: R,
    /// Of the input's share in the charge.
    pub divisor: R,
}

/// A number that surrogates compute with.
pub(crate) trait Surrogated: Real {
    /// out = grad scale h(over) / divisor.
    fn sweep_with(
        surrogate: &dyn Pointwise,
        over: &[Self],
        grad: &[Self],
        share: Share<f64>,
        out: &mut [Self],
    );
}

impl Surrogated for f32 {
    fn sweep_with(
        surrogate: &dyn Pointwise,
        over: &[Self],
        grad: &[Self],
        share: Share<f64>,
        out: &mut [Self],
    ) {
        let Share { scale, divisor } = share;
        surrogate.single(over, grad, Share { scale: scale as f32, divisor: divisor as f32 }, out);
    }
}

impl Surrogated for f64 {
    fn sweep_with(
        surrogate: &dyn Pointwise,
        over: &[Self],
        grad: &[Self],
        share: Share<f64>,
        out: &mut [Self],
    ) {
        surrogate.double(over, grad, share, out);
    }
}
