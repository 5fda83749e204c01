//! Real numbers in both precisions.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::ffi::Element;

/// f32 and f64, as far as the formulas need them.
pub(crate) trait Real:
    Element
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn of(value: f64) -> Self;
    fn abs(self) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn cos(self) -> Self;
    fn sqrt(self) -> Self;
    fn powf(self, exponent: Self) -> Self;

    #[inline(always)]
    fn square(self) -> Self {
        self * self
    }
}

/// The standard library's functions, by their own names; e^x in single precision is written below.
macro_rules! reals {
    ($($real:ty, exp $exp:path;)*) => {$(
        #[rustfmt::skip]
        impl Real for $real {
            #[inline(always)] fn of(value: f64) -> Self { value as Self }
            #[inline(always)] fn abs(self) -> Self { self.abs() }
            #[inline(always)] fn exp(self) -> Self { $exp(self) }
            #[inline(always)] fn ln(self) -> Self { self.ln() }
            #[inline(always)] fn cos(self) -> Self { self.cos() }
            #[inline(always)] fn sqrt(self) -> Self { self.sqrt() }
            #[inline(always)] fn powf(self, exponent: Self) -> Self { self.powf(exponent) }
        }
    )*};
}

reals! {
    f32, exp exp_f32;
    f64, exp f64::exp;
}

/// e^x within 3 units in the last place, without a branch, so that loops over it are vectorized.
///
/// e^x = 2^n e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2, e^r by its Taylor polynomial of degree 6. Below
/// e^-87.3 and above e^88.3, the ends of f32, it stays where it is.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const LOW: f32 = -87.3;
    const HIGH: f32 = 88.3;
    // Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // -ln 2 in two parts, of which the first times n is exact.
    const LN2_HIGH: f32 = -0.693_359_4;
    const LN2_LOW: f32 = 2.121_944_4e-4;

    let clamped = if x < LOW { LOW } else { x };
    let clamped = if clamped > HIGH { HIGH } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(LN2_LOW, n.mul_add(LN2_HIGH, clamped));
    let p = (1.0f32 / 720.0).mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    // n as an integer stands in the last bits of the shifted number, and in the exponent it makes 2^n.
    p * f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        let worst = (-8_700..8_830)
            .map(|i| i as f32 / 100.0 + 1e-3)
            .map(|x| (f64::from(exp_f32(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(-1e9) < 2e-38 && exp_f32(1e9) > 2e38);
        assert!(exp_f32(f32::NAN).is_nan());
    }
}
