//! Surrogate derivatives as plain arithmetic, for the fused kernels of the neurons.

use crate::numeric::Real;

/// A surrogate's gradient in one sweep. Made by `surrogates!`.
pub trait Pointwise: Send + Sync {
    /// In single precision.
    fn single(&self, piece: Piece<'_, f32>);

    /// In double precision.
    fn double(&self, piece: Piece<'_, f64>);

    /// The derivative as CUDA C++ that sets `T h` from `T x` and its magnitude `T m`.
    fn cuda(&self) -> String;
}

/// A piece of a neuron's gradient: out = grad scale h(over) / divisor.
pub struct Piece<'a, R> {
    /// How far the potential was over the threshold.
    pub over: &'a [R],
    /// The spike's gradient.
    pub grad: &'a [R],
    /// Of the spikes on their way out.
    pub scale: f64,
    /// Of the input's share in the charge.
    pub divisor: f64,
    /// The potential's gradient.
    pub out: &'a mut [R],
}

/// A number that surrogates compute with.
pub(crate) trait Surrogated: Real {
    /// Computes one piece.
    fn sweep_with(surrogate: &dyn Pointwise, piece: Piece<'_, Self>);
}

impl Surrogated for f32 {
    fn sweep_with(surrogate: &dyn Pointwise, piece: Piece<'_, Self>) {
        surrogate.single(piece);
    }
}

impl Surrogated for f64 {
    fn sweep_with(surrogate: &dyn Pointwise, piece: Piece<'_, Self>) {
        surrogate.double(piece);
    }
}
