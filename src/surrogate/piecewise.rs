//! Surrogates with different formulas on different intervals.

use tch::Tensor;

use super::surrogates;
use crate::error::Result;

/// `inside` where the condition holds, else `outside`, in the kind of `like`.
fn choose(condition: &Tensor, inside: f64, outside: f64, like: &Tensor) -> Result<Tensor> {
    Ok(condition.f_to_kind(like.f_kind()?)? * (inside - outside) + outside)
}

surrogates! {
    /// h(x) = α - α²|x| where |x| ≤ 1/α, else 0: a triangle.
    PiecewiseQuadratic {
        /// Height and inverse half width, above 0.
        alpha: f64 = 1.0,
    }
    requires "PiecewiseQuadratic with alpha above 0": |p| p.alpha > 0.0 && p.alpha.is_finite();
    derivative |p, x| {
        let x = x.f_abs()?;
        (&x * -(p.alpha * p.alpha) + p.alpha).f_masked_fill(&x.f_gt(1.0 / p.alpha)?, 0.0)?
    };
    pointwise |p, x| {
        let height = R::of(p.alpha) - x.abs() * R::of(p.alpha * p.alpha);
        (if x.abs() > R::of(1.0 / p.alpha) { R::of(0.0) } else { height }, R::of(1.0))
    };
    cuda |p| format!("h = m > T({:e}) ? T(0) : T({:e}) - m * T({:e});", 1.0 / p.alpha, p.alpha, p.alpha * p.alpha);

    /// h(x) = 1/(2w) where |x| < w, else c.
    PiecewiseLeakyReLU {
        /// Half width of the steep part, above 0.
        w: f64 = 1.0,
        /// Derivative outside.
        c: f64 = 0.01,
    }
    requires "PiecewiseLeakyReLU with w above 0 and a finite c": |p| p.w > 0.0 && p.w.is_finite() && p.c.is_finite();
    derivative |p, x| choose(&x.f_abs()?.f_lt(p.w)?, 1.0 / (2.0 * p.w), p.c, x)?;
    pointwise |p, x| (if x.abs() < R::of(p.w) { R::of(1.0 / (2.0 * p.w)) } else { R::of(p.c) }, R::of(1.0));
    cuda |p| format!("h = m < T({:e}) ? T({:e}) : T({:e});", p.w, 1.0 / (2.0 * p.w), p.c);

    /// h(x) = α where |x| < 1/(2α), else 0: a rectangle of area 1.
    Rect {
        /// Height and inverse width, above 0.
        alpha: f64 = 1.0,
    }
    requires "Rect with alpha above 0": |p| p.alpha > 0.0 && p.alpha.is_finite();
    derivative |p, x| choose(&x.f_abs()?.f_lt(0.5 / p.alpha)?, p.alpha, 0.0, x)?;
    pointwise |p, x| (if x.abs() < R::of(0.5 / p.alpha) { R::of(p.alpha) } else { R::of(0.0) }, R::of(1.0));
    cuda |p| format!("h = m < T({:e}) ? T({:e}) : T(0);", 0.5 / p.alpha, p.alpha);

    /// h(x) = k where x ≥ 0, else leak.
    LeakyKReLU {
        /// Derivative below 0.
        leak: f64 = 0.0,
        /// Derivative from 0 on.
        k: f64 = 1.0,
    }
    requires "LeakyKReLU with finite leak and k": |p| p.leak.is_finite() && p.k.is_finite();
    derivative |p, x| choose(&x.f_ge(0.0)?, p.k, p.leak, x)?;
    pointwise |p, x| (if x >= R::of(0.0) { R::of(p.k) } else { R::of(p.leak) }, R::of(1.0));
    cuda |p| format!("h = x >= T(0) ? T({:e}) : T({:e});", p.k, p.leak);

    /// h(x) = α where x ≤ 0, 1 where 0 < x ≤ 1, 1/x above.
    LogTailedReLU {
        /// Derivative up to 0.
        alpha: f64 = 0.0,
    }
    requires "LogTailedReLU with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| x.f_clamp_min(1.0)?.f_reciprocal()?.f_masked_fill(&x.f_le(0.0)?, p.alpha)?;
    pointwise |p, x| (
        if x <= R::of(0.0) { R::of(p.alpha) } else { R::of(1.0) },
        if x <= R::of(1.0) { R::of(1.0) } else { x },
    );
    cuda |p| format!("h = x <= T(0) ? T({:e}) : x <= T(1) ? T(1) : T(1) / x;", p.alpha);

    /// h(x) = α σ(αx) (1 - σ(αx)) where x < 0, else β / (x + 1).
    S2nn {
        /// Steepness below 0.
        alpha: f64 = 4.0,
        /// Height from 0 on.
        beta: f64 = 1.0,
    }
    requires "S2nn with finite alpha and beta": |p| p.alpha.is_finite() && p.beta.is_finite();
    derivative |p, x| {
        let s = (x * p.alpha).f_sigmoid()?;
        let below: Tensor = (1.0 - &s) * s * p.alpha;
        below.f_where_self(&x.f_lt(0.0)?, &((x + 1.0).f_reciprocal()? * p.beta))?
    };
    pointwise |p, x| {
        let e = (-(x * R::of(p.alpha)).abs()).exp();
        let below = (R::of(p.alpha) * e, (R::of(1.0) + e).square());
        if x < R::of(0.0) { below } else { (R::of(p.beta), x + R::of(1.0)) }
    };
    cuda |p| format!(
        "T s = T(1) / (T(1) + exp(-T({a:e}) * x)); h = x < T(0) ? T({a:e}) * s * (T(1) - s) : T({b:e}) / (x + T(1));",
        a = p.alpha,
        b = p.beta
    );
}
