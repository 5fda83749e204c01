//! Sums and maps over slices, in the processor's vectors.

use super::Real;
use crate::ffi::vectorized;

/// Σ f(a, b), in lanes: as fast as the processor's vectors, and with small rounding.
pub(crate) fn total<R: Real>([a, b]: [&[R]; 2], f: impl Fn(R, R) -> R) -> R {
    const LANES: usize = 16;
    vectorized(
        #[inline(always)]
        move || {
            let mut lanes = [R::of(0.0); LANES];
            let (a_pieces, b_pieces) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = a_pieces.remainder().iter().zip(b_pieces.remainder());
            let mut sum = rest.fold(R::of(0.0), |sum, (&a, &b)| sum + f(a, b));
            for (a, b) in a_pieces.zip(b_pieces) {
                for i in 0..LANES {
                    lanes[i] = lanes[i] + f(a[i], b[i]);
                }
            }
            for lane in lanes {
                sum = sum + lane;
            }
            sum
        },
    )
}

/// out = f(a, b), element by element.
pub(crate) fn each<R: Real>(out: &mut [R], [a, b]: [&[R]; 2], f: impl Fn(R, R) -> R) {
    vectorized(
        #[inline(always)]
        move || {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out = f(a, b);
            }
        },
    );
}
