//! Surrogates of their own kind: a series, an estimate, and identities.

use std::f64::consts::PI;

use tch::Tensor;

use super::{surrogates, Surrogate};
use crate::error::{Error, Result};

surrogates! {
    /// h(x) = 4/T Σ_{i=1}^{n-1} cos((2i - 1) 2πx/T): a square wave's Fourier series, cut off.
    SquarewaveFourierSeries {
        /// One more than the count of terms.
        n: u32 = 2,
        /// The period T, above 0.
        t_period: f64 = 8.0,
    }
    requires "SquarewaveFourierSeries with n of at least 1 and t_period above 0":
        |p| p.n >= 1 && p.t_period > 0.0 && p.t_period.is_finite();
    derivative |p, x| {
        let mut sum = x.f_zeros_like()?;
        for i in 1..p.n {
            sum += (x * (f64::from(2 * i - 1) * 2.0 * PI / p.t_period)).f_cos()?;
        }
        sum * (4.0 / p.t_period)
    };
    pointwise |p, x| {
        let mut sum = R::of(0.0);
        for i in 1..p.n {
            sum = sum + (x * R::of(f64::from(2 * i - 1) * 2.0 * PI / p.t_period)).cos();
        }
        (sum * R::of(4.0 / p.t_period), R::of(1.0))
    };
    cuda |p| format!(
        "h = T(0); for (int i = 1; i < {}; ++i) h += cos(x * T({:e}) * T(2 * i - 1)); h = h * T({:e});",
        p.n,
        2.0 * PI / p.t_period,
        4.0 / p.t_period
    );

    /// h(x) = min(1/|x|, α): the slope of the step seen from x.
    FakeNumericalGradient {
        /// The largest slope.
        alpha: f64 = 0.3,
    }
    requires "FakeNumericalGradient with a finite alpha": |p| p.alpha.is_finite();
    derivative |p, x| x.f_abs()?.f_reciprocal()?.f_clamp_max(p.alpha)?;
    pointwise |p, x| {
        let slope = R::of(1.0) / x.abs();
        (if slope > R::of(p.alpha) { R::of(p.alpha) } else { slope }, R::of(1.0))
    };
    cuda |p| format!("T s = T(1) / m; h = s > T({a:e}) ? T({a:e}) : s;", a = p.alpha);

    /// h(x) = 1: the gradient passes unchanged.
    DeterministicPass {}
    requires "DeterministicPass": |_p| true;
    derivative |_p, x| x.f_ones_like()?;
    pointwise |_p, _x| (R::of(1.0), R::of(1.0));
    cuda |_p| "h = T(1);".to_owned();
}

/// Several spikes a step: fires round(clamp(x, 0, max)), with h(x) = 1 on a window, else 0.
///
/// The only surrogate here whose forward is not Θ. In evaluation a neuron fires the same way; in
/// SpikingJelly it falls back to Θ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiLevelSpikeCount {
    /// The most spikes a step, at least 1.
    pub max_spike_count: u32,
    /// The window's ends, both inside; (0, max_spike_count) if not given.
    pub grad_window: Option<(f64, f64)>,
}

impl MultiLevelSpikeCount {
    /// At most `max_spike_count` spikes, the gradient passing on [0, max_spike_count].
    pub fn new(max_spike_count: u32) -> Self {
        Self { max_spike_count, grad_window: None }
    }

    fn window(&self) -> (f64, f64) {
        self.grad_window.unwrap_or((0.0, f64::from(self.max_spike_count)))
    }
}

impl Surrogate for MultiLevelSpikeCount {
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        let (low, high) = self.window();
        Ok(x.f_ge(low)?.f_logical_and(&x.f_le(high)?)?.f_to_kind(x.f_kind()?)?)
    }

    fn fire(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_clamp(0.0, f64::from(self.max_spike_count))?.f_round()?)
    }

    fn check(&self) -> Result<()> {
        let (low, high) = self.window();
        if self.max_spike_count >= 1 && low <= high {
            return Ok(());
        }
        let expected = "MultiLevelSpikeCount with max_spike_count of at least 1 and an ordered grad_window";
        Err(Error::argument("the surrogate", expected, format!("{self:?}")))
    }
}
