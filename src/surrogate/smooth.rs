//! Surrogates with one formula on the whole line.

use std::f64::consts::PI;

use super::surrogates;

surrogates! {
    /// h(x) = α σ(αx) (1 - σ(αx)), σ the logistic function. The default of the neurons.
    Sigmoid {
        /// Steepness.
        alpha: f64 = 4.0,
    }
    requires "Sigmoid with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| {
        let s = (x * p.alpha).f_sigmoid()?;
        (1.0 - &s) * s * p.alpha
    };
    pointwise |p, x| {
        // σ(1 - σ) is even in x: e^-|x| does not overflow.
        let e = (-(x * R::of(p.alpha)).abs()).exp();
        (R::of(p.alpha) * e, (R::of(1.0) + e).square())
    };
    cuda |p| format!("T s = T(1) / (T(1) + exp(-T({a:e}) * x)); h = T({a:e}) * s * (T(1) - s);", a = p.alpha);

    /// h(x) = (α/2) / (1 + (π/2 αx)²).
    ATan {
        /// Steepness.
        alpha: f64 = 2.0,
    }
    requires "ATan with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| (x * (PI / 2.0 * p.alpha)).f_square()?.f_add_scalar(1.0)?.f_reciprocal()? * (p.alpha / 2.0);
    pointwise |p, x| (R::of(p.alpha / 2.0), R::of(1.0) + (x * R::of(PI / 2.0 * p.alpha)).square());
    cuda |p| format!("T s = x * T({:e}); h = T({:e}) / (T(1) + s * s);", PI / 2.0 * p.alpha, p.alpha / 2.0);

    /// h(x) = α/√π exp(-(αx)²).
    Erf {
        /// Steepness.
        alpha: f64 = 2.0,
    }
    requires "Erf with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| (-(x * p.alpha).f_square()?).f_exp()? * (p.alpha / PI.sqrt());
    pointwise |p, x| (R::of(p.alpha / PI.sqrt()) * (-(x * R::of(p.alpha)).square()).exp(), R::of(1.0));
    cuda |p| format!("T s = x * T({:e}); h = T({:e}) * exp(-s * s);", p.alpha, p.alpha / PI.sqrt());

    /// h(x) = α/2 exp(-α|x|).
    PiecewiseExp {
        /// Steepness.
        alpha: f64 = 1.0,
    }
    requires "PiecewiseExp with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| (x.f_abs()? * -p.alpha).f_exp()? * (p.alpha / 2.0);
    pointwise |p, x| (R::of(p.alpha / 2.0) * (x.abs() * R::of(-p.alpha)).exp(), R::of(1.0));
    cuda |p| format!("h = T({:e}) * exp(-T({:e}) * m);", p.alpha / 2.0, p.alpha);

    /// h(x) = 1 / (2α (1/α + |x|)²).
    SoftSign {
        /// Steepness, above 0.
        alpha: f64 = 2.0,
    }
    requires "SoftSign with alpha above 0": |p| p.alpha > 0.0 && p.alpha.is_finite();
    derivative |p, x| ((x.f_abs()? + 1.0 / p.alpha).f_square()? * (2.0 * p.alpha)).f_reciprocal()?;
    pointwise |p, x| (R::of(1.0), (x.abs() + R::of(1.0 / p.alpha)).square() * R::of(2.0 * p.alpha));
    cuda |p| format!("T s = m + T({:e}); h = T(1) / (s * s * T({:e}));", 1.0 / p.alpha, 2.0 * p.alpha);

    /// h(x) = α / (1 + |x|)².
    SuperSpike {
        /// Height.
        alpha: f64 = 1.0,
    }
    requires "SuperSpike with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| (x.f_abs()? + 1.0).f_square()?.f_reciprocal()? * p.alpha;
    pointwise |p, x| (R::of(p.alpha), (x.abs() + R::of(1.0)).square());
    cuda |p| format!("T s = m + T(1); h = T({:e}) / (s * s);", p.alpha);

    /// h(x) = 1 / (1/α + |x|).
    NonzeroSignLogAbs {
        /// Height, above 0.
        alpha: f64 = 1.0,
    }
    requires "NonzeroSignLogAbs with alpha above 0": |p| p.alpha > 0.0 && p.alpha.is_finite();
    derivative |p, x| (x.f_abs()? + 1.0 / p.alpha).f_reciprocal()?;
    pointwise |p, x| (R::of(1.0), x.abs() + R::of(1.0 / p.alpha));
    cuda |p| format!("h = T(1) / (m + T({:e}));", 1.0 / p.alpha);

    /// h(x) = (1 + 2|x|/(α - 1))^(-α).
    QPseudoSpike {
        /// Tail fatness, above 1.
        alpha: f64 = 2.0,
    }
    requires "QPseudoSpike with alpha above 1": |p| p.alpha > 1.0 && p.alpha.is_finite();
    derivative |p, x| (x.f_abs()? * (2.0 / (p.alpha - 1.0)) + 1.0).f_pow_tensor_scalar(-p.alpha)?;
    pointwise |p, x| (R::of(1.0), (x.abs() * R::of(2.0 / (p.alpha - 1.0)) + R::of(1.0)).powf(R::of(p.alpha)));
    cuda |p| format!("h = pow(m * T({:e}) + T(1), T({:e}));", 2.0 / (p.alpha - 1.0), -p.alpha);
}
