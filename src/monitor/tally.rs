//! What is counted of a layer of neurons: one sweep over a step's spikes and potentials.

use std::sync::Mutex;

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::ffi::{sweep, vectorized, PIECE};
use crate::numeric::Real;
use crate::setting::fast_paths;

/// Spikes and potentials of a layer, over samples and steps.
pub(super) struct Tally {
    /// How often each neuron fired, shaped like one sample, of how many chances it had.
    spikes: Tensor,
    chances: i64,
    v: Moments,
}

impl Tally {
    /// Nothing yet, of neurons with potentials `v` `[N, ...]`.
    pub(super) fn new(v: &Tensor) -> Result<Self> {
        let spikes = v.f_select(0, 0)?.f_to_kind(Kind::Double)?.f_zeros_like()?;
        Ok(Self { spikes, chances: 0, v: Moments::NONE })
    }

    /// The shape of a sample.
    pub(super) fn size(&self) -> Vec<i64> {
        self.spikes.size()
    }

    /// Adds a step's, or several steps' `spike` `[time_steps * N, ...]`, not 0 where a neuron fired, and `v` `[N, ...]`.
    pub(super) fn add(&mut self, spike: &Tensor, v: &Tensor) -> Result<()> {
        let (spike, v) = (&spike.f_detach()?, &v.f_detach()?);
        let (counts, moments) = match v.f_kind()? {
            Kind::Float if lie_alike(spike, v) => swept::<f32>(spike, v)?,
            Kind::Double if lie_alike(spike, v) => swept::<f64>(spike, v)?,
            _ => composed(spike, v)?,
        };
        let _ = self.spikes.f_add_(&counts)?;
        self.chances += spike.size()[0];
        self.v.merge(moments);
        Ok(())
    }

    /// The layer's numbers, by their names.
    pub(super) fn numbers(&self) -> Result<[(&'static str, f64); 7]> {
        let share = |of: Tensor| number(&of.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?);
        let chances = self.chances as f64;
        let [v_mean, v_std, v_min, v_max] = self.v.numbers();
        Ok([
            ("rate", number(&self.spikes.f_mean(Kind::Double)?)? / chances),
            ("silent", share(self.spikes.f_eq(0.0)?)?),
            ("saturated", share(self.spikes.f_eq(chances)?)?),
            ("v_mean", v_mean),
            ("v_std", v_std),
            ("v_min", v_min),
            ("v_max", v_max),
        ])
    }
}

/// Whether the samples of both lie in the CPU's memory one after another, and each as the others do.
fn lie_alike(spike: &Tensor, v: &Tensor) -> bool {
    let one_by_one = |x: &Tensor| {
        let (size, stride) = (x.size(), x.stride());
        size[0] == 1 || stride[0] == size[1..].iter().product::<i64>()
    };
    fast_paths().fused_neuron
        && spike.device() == Device::Cpu
        && spike.kind() == v.kind()
        && one_by_one(spike)
        && one_by_one(v)
        && spike.stride()[1..] == v.stride()[1..]
}

/// How often each neuron fired, and the potentials' moments.
fn swept<R: Real + Into<f64>>(spike: &Tensor, v: &Tensor) -> Result<(Tensor, Moments)> {
    let counts = v.f_select(0, 0)?.f_zeros_like()?;
    let (samples, looks) = (spike.size()[0] as usize, v.size()[0] as usize);
    let moments = Mutex::new(Moments::NONE);
    sweep([Some(&counts)], [Some(spike), Some(v)], |[mut counts], [spike, v]| {
        for i in 0..samples {
            count::<R>(counts.row(0), spike.row(i));
        }
        let mut piece = Moments::NONE;
        for first in (0..looks).step_by(ROWS) {
            let rows = first..looks.min(first + ROWS);
            piece.merge(Moments::of::<R>(rows.map(|i| v.row(i))));
        }
        if let Ok(mut moments) = moments.lock() {
            moments.merge(piece);
        }
    })?;
    Ok((counts, moments.into_inner().unwrap_or(Moments::NONE)))
}

/// The same in libtorch's operations: for any kind, device and layout.
fn composed(spike: &Tensor, v: &Tensor) -> Result<(Tensor, Moments)> {
    let counts = spike.f_ne(0.0)?.f_sum_dim_intlist(0i64, false, Kind::Float)?;
    // Half precision has too few digits for a mean.
    let v = if v.f_kind()? == Kind::Double { v.shallow_clone() } else { v.f_to_kind(Kind::Float)? };
    let ((var, mean), (least, most)) = (v.f_var_mean(false)?, v.f_aminmax(None, false)?);
    // One journey from the device for all of them.
    let found = Tensor::f_stack(&[mean, var, least, most], 0)?.f_to_device(Device::Cpu)?;
    let [mean, var, least, most] = [0, 1, 2, 3].map(|i| found.f_double_value(&[i]));
    let count = v.numel() as f64;
    Ok((counts, Moments { count, mean: mean?, squares: var? * count, least: least?, most: most? }))
}

/// A piece of the spikes.
fn count<R: Real>(counts: &mut [R], spikes: &[R]) {
    vectorized(
        #[inline(always)]
        move || {
            for (count, &spike) in counts.iter_mut().zip(spikes) {
                *count = *count + if spike != R::of(0.0) { R::of(1.0) } else { R::of(0.0) };
            }
        },
    );
}

/// Mean, spread and range of some numbers.
struct Moments {
    count: f64,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
    least: f64,
    most: f64,
}

/// Rows of potentials that are summed in their own precision.
const ROWS: usize = 64;

impl Moments {
    const NONE: Self =
        Self { count: 0.0, mean: 0.0, squares: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY };

    /// Of at most [`ROWS`] rows of a piece, seen from its first number, so that a common height costs no digits.
    fn of<'a, R: Real + Into<f64>>(rows: impl Iterator<Item = &'a [R]>) -> Self {
        let mut rows = rows.peekable();
        let Some(&first) = rows.peek() else { return Self::NONE };
        let (height, len) = (first[0], first.len());
        let all = |value: f64| [R::of(value); PIECE];
        let (mut sum, mut square) = (all(0.0), all(0.0));
        let (mut least, mut most) = (all(f64::INFINITY), all(f64::NEG_INFINITY));
        let mut count = 0.0;
        for row in rows {
            gather(height, row, &mut sum, &mut square, &mut least, &mut most);
            count += len as f64;
        }
        let total = |of: &[R]| of[..len].iter().fold(0.0, |sum, &x| sum + x.into());
        let (height, sum) = (height.into(), total(&sum));
        Self {
            count,
            mean: height + sum / count,
            squares: total(&square) - sum * sum / count,
            least: least[..len].iter().fold(f64::INFINITY, |least, &x| least.min(x.into())),
            most: most[..len].iter().fold(f64::NEG_INFINITY, |most, &x| most.max(x.into())),
        }
    }

    /// Chan et al., *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, 1979.
    fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        if count == 0.0 {
            return;
        }
        let (apart, share) = (other.mean - self.mean, other.count / count);
        *self = Self {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count * share,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        };
    }

    /// Mean, deviation, least and largest number: none of them a number where some are none.
    fn numbers(&self) -> [f64; 4] {
        let Self { count, mean, squares, least, most } = *self;
        if !squares.is_finite() {
            return [f64::NAN; 4];
        }
        [mean, (squares.max(0.0) / count).sqrt(), least, most]
    }
}

/// A piece of the potentials.
fn gather<R: Real>(height: R, v: &[R], sum: &mut [R], square: &mut [R], least: &mut [R], most: &mut [R]) {
    vectorized(
        #[inline(always)]
        move || {
            for ((((&v, sum), square), least), most) in v.iter().zip(sum).zip(square).zip(least).zip(most) {
                let above = v - height;
                *sum = *sum + above;
                *square = *square + above.square();
                *least = if v < *least { v } else { *least };
                *most = if v > *most { v } else { *most };
            }
        },
    );
}

pub(super) fn number(x: &Tensor) -> Result<f64> {
    Ok(x.f_double_value(&[])?)
}
