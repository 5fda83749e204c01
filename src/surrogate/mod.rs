//! The Heaviside step with a chosen derivative.
//!
//! A spike is Θ(x) = 1 if x ≥ 0 else 0, whose derivative is zero almost everywhere. Training replaces
//! that derivative by a surrogate, Θ'(x) := h(x), of which this module has SpikingJelly's.

mod piecewise;
mod pointwise;
mod smooth;
mod special;

use std::fmt::Debug;
use std::sync::Arc;

use tch::Tensor;

use crate::autograd::{Context, Function, Tensors};
use crate::check::{expect_defined, expect_float};
use crate::error::{guarded, Result};

pub use piecewise::{LeakyKReLU, LogTailedReLU, PiecewiseLeakyReLU, PiecewiseQuadratic, Rect, S2nn};
pub(crate) use pointwise::Surrogated;
#[doc(hidden)]
pub use pointwise::{Piece, Pointwise};
pub use smooth::{ATan, Erf, NonzeroSignLogAbs, PiecewiseExp, QPseudoSpike, Sigmoid, SoftSign, SuperSpike};
pub use special::{DeterministicPass, FakeNumericalGradient, MultiLevelSpikeCount, SquarewaveFourierSeries};

/// A surrogate for the derivative of the Heaviside step.
///
/// A surrogate of your own is a type that implements this trait:
/// ```
/// use spiketrace::surrogate::{spike, Surrogate};
/// use tch::Tensor;
///
/// #[derive(Debug)]
/// struct Triangle;
///
/// impl Surrogate for Triangle {
///     fn derivative(&self, x: &Tensor) -> spiketrace::Result<Tensor> {
///         Ok(x.f_abs()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?)
///     }
/// }
///
/// let x = Tensor::from_slice(&[-0.25, 0.5]).set_requires_grad(true);
/// let s = spike(&x, Triangle)?;
/// assert_eq!(s, Tensor::from_slice(&[0.0, 1.0]));
/// s.sum(tch::Kind::Double).f_backward()?;
/// assert_eq!(x.grad(), Tensor::from_slice(&[0.75, 0.5]));
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "SurrogateFunctionBase")]
pub trait Surrogate: Debug + Send + Sync + 'static {
    /// h(x), element by element: same shape, kind and device as `x`.
    fn derivative(&self, x: &Tensor) -> Result<Tensor>;

    /// The forward value, Θ(x) unless the surrogate says otherwise.
    fn fire(&self, x: &Tensor) -> Result<Tensor> {
        heaviside(x)
    }

    /// Errors when the parameters are out of range; neurons ask once, when they are made.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The derivative as plain arithmetic, where the forward value is Θ; without it neurons work by
    /// [`derivative`](Surrogate::derivative).
    #[doc(hidden)]
    fn pointwise(&self) -> Option<&dyn Pointwise> {
        None
    }
}

impl<S: Surrogate + ?Sized> Surrogate for Arc<S> {
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        (**self).derivative(x)
    }

    fn fire(&self, x: &Tensor) -> Result<Tensor> {
        (**self).fire(x)
    }

    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn pointwise(&self) -> Option<&dyn Pointwise> {
        (**self).pointwise()
    }
}

/// Θ(x): 1 where x ≥ 0, else 0 (also for NaN), in the kind of `x`.
pub fn heaviside(x: &Tensor) -> Result<Tensor> {
    expect_defined("heaviside's x", x)?;
    guarded("heaviside", || Ok(x.f_ge(0.0)?.f_to_kind(x.f_kind()?)?))
}

/// Θ(x) forward, h(x) dL/ds backward.
///
/// # Shapes
/// Any; the result is shaped like `x`.
///
/// # Errors
/// When `x` is empty or not floating-point, or the surrogate's parameters are out of range.
pub fn spike(x: &Tensor, surrogate: impl Surrogate) -> Result<Tensor> {
    expect_float("spike's x", x)?;
    surrogate.check()?;
    fire(x, surrogate)
}

/// [`spike`] without its checks.
pub(crate) fn fire(x: &Tensor, surrogate: impl Surrogate) -> Result<Tensor> {
    Ok(Spike(surrogate).apply(&[x])?.remove(0))
}

struct Spike<S>(S);

impl<S: Surrogate> Function for Spike<S> {
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(&[&inputs[0]])?;
        Ok(vec![self.0.fire(&inputs[0])?])
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.get(0) else { return Ok(vec![None]) };
        let h = self.0.derivative(&ctx.saved_tensors()?[0])?;
        Ok(vec![Some(grad.f_mul(&h)?)])
    }
}

/// Declares surrogates: type, parameters with defaults, range, derivative on tensors, on numbers as a fraction
/// (numerator, denominator), and as the CUDA C++ that sets T h from T x and T m = |x|.
macro_rules! surrogates {
    ($(
        $(#[$doc:meta])*
        $name:ident { $( $(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, )* }
        requires $range:literal: |$p:ident| $valid:expr;
        derivative |$s:ident, $x:ident| $h:expr;
        pointwise |$q:ident, $y:ident| $k:expr;
        cuda |$r:ident| $code:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name { $( $(#[$field_doc])* pub $field: $type, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::surrogate::Surrogate for $name {
            fn derivative(&self, $x: &tch::Tensor) -> $crate::error::Result<tch::Tensor> {
                let $s = self;
                Ok($h)
            }

            fn check(&self) -> $crate::error::Result<()> {
                let $p = self;
                if $valid {
                    return Ok(());
                }
                Err($crate::error::Error::argument("the surrogate", $range, format!("{self:?}")))
            }

            fn pointwise(&self) -> Option<&dyn $crate::surrogate::Pointwise> {
                Some(self)
            }
        }

        impl $name {
            #[inline(always)]
            fn sweep<R: $crate::numeric::Real>(&self, piece: $crate::surrogate::Piece<'_, R>) {
                let $q = *self;
                let $crate::surrogate::Piece { over, grad, scale, divisor, out } = piece;
                let (scale, divisor) = (R::of(scale), R::of(divisor));
                $crate::ffi::vectorized_wide(
                    #[inline(always)]
                    move || {
                        for ((out, &$y), &grad) in out.iter_mut().zip(over).zip(grad) {
                            // One division: they are the slowest part.
                            let (numerator, denominator) = $k;
                            *out = grad * scale * numerator / (denominator * divisor);
                        }
                    },
                );
            }
        }

        impl $crate::surrogate::Pointwise for $name {
            fn single(&self, piece: $crate::surrogate::Piece<'_, f32>) {
                self.sweep(piece);
            }

            fn double(&self, piece: $crate::surrogate::Piece<'_, f64>) {
                self.sweep(piece);
            }

            fn cuda(&self) -> String {
                let $r = self;
                $code
            }

        }
    )*};
}
use surrogates;
