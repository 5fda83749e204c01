//! What is counted of a layer of neurons: one sweep over a step's spikes and potentials.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::fast::fast_paths;
use crate::ffi::{sweep, vectorized};
use crate::surrogate::Real;

/// Of each neuron, over samples and steps; all tensors are shaped like one sample.
///
/// Only [`numbers`](Tally::numbers) goes from neurons to their layer, so a step costs one reading of what it made.
pub(super) struct Tally {
    /// How often each fired, of how many chances it had.
    spikes: Tensor,
    chances: i64,
    /// The potentials' sum, sum of squares, least and largest, of how many looks.
    sum: Tensor,
    square: Tensor,
    least: Tensor,
    most: Tensor,
    looks: i64,
}

impl Tally {
    /// Nothing yet, of neurons with potentials `v` `[N, ...]`.
    pub(super) fn new(v: &Tensor) -> Result<Self> {
        // Half precision counts to a few hundred only.
        let kind = if v.f_kind()? == Kind::Double { Kind::Double } else { Kind::Float };
        let sample = v.f_select(0, 0)?.f_to_kind(kind)?;
        let full = |value: f64| sample.f_full_like(value);
        Ok(Self {
            spikes: full(0.0)?,
            chances: 0,
            sum: full(0.0)?,
            square: full(0.0)?,
            least: full(f64::INFINITY)?,
            most: full(f64::NEG_INFINITY)?,
            looks: 0,
        })
    }

    /// The shape of a sample.
    pub(super) fn size(&self) -> Vec<i64> {
        self.spikes.size()
    }

    /// Adds a step's, or several steps' `spike` `[time_steps * N, ...]`, not 0 where a neuron fired, and `v` `[N, ...]`.
    pub(super) fn add(&mut self, spike: &Tensor, v: &Tensor) -> Result<()> {
        let (spike, v) = (spike.f_detach()?, v.f_detach()?);
        match self.spikes.f_kind()? {
            _ if !(self.lies_alike(&spike) && self.lies_alike(&v)) => self.add_composed(&spike, &v)?,
            Kind::Double => self.add_swept::<f64>(&spike, &v)?,
            _ => self.add_swept::<f32>(&spike, &v)?,
        }
        self.chances += spike.size()[0];
        self.looks += v.size()[0];
        Ok(())
    }

    /// Whether the samples of `x` lie in memory one after another, each as the sums do.
    fn lies_alike(&self, x: &Tensor) -> bool {
        let (size, stride) = (x.size(), x.stride());
        let one_by_one = size[0] == 1 || stride[0] == self.spikes.numel() as i64;
        fast_paths().fused_neuron
            && x.device() == Device::Cpu
            && x.kind() == self.spikes.kind()
            && one_by_one
            && stride[1..] == self.spikes.stride()[..]
    }

    fn add_swept<R: Real>(&mut self, spike: &Tensor, v: &Tensor) -> Result<()> {
        let (samples, looks) = (spike.size()[0] as usize, v.size()[0] as usize);
        let outputs = [&self.spikes, &self.sum, &self.square, &self.least, &self.most].map(Some);
        sweep(
            outputs,
            [Some(spike), Some(v)],
            |[mut spikes, mut sum, mut square, mut least, mut most], [s, v]| {
                for i in 0..samples {
                    count::<R>(spikes.row(0), s.row(i));
                }
                for i in 0..looks {
                    gather::<R>(sum.row(0), square.row(0), least.row(0), most.row(0), v.row(i));
                }
            },
        )
    }

    /// In libtorch's operations: for any kind, device and layout.
    fn add_composed(&mut self, spike: &Tensor, v: &Tensor) -> Result<()> {
        let kind = self.spikes.f_kind()?;
        let over_samples = |x: &Tensor| x.f_sum_dim_intlist(0i64, false, kind);
        let v = v.f_to_kind(kind)?;
        self.spikes = self.spikes.f_add(&over_samples(&spike.f_ne(0.0)?)?)?;
        self.sum = self.sum.f_add(&over_samples(&v)?)?;
        self.square = self.square.f_add(&over_samples(&v.f_square()?)?)?;
        self.least = self.least.f_minimum(&v.f_amin(0i64, false)?)?;
        self.most = self.most.f_maximum(&v.f_amax(0i64, false)?)?;
        Ok(())
    }

    /// The layer's numbers, by their names.
    pub(super) fn numbers(&self) -> Result<[(&'static str, f64); 7]> {
        let mean = |of: &Tensor| number(&of.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?);
        let (chances, looks) = (self.chances as f64, self.looks as f64);
        let v_mean = mean(&self.sum)? / looks;
        Ok([
            ("rate", mean(&self.spikes)? / chances),
            ("silent", mean(&self.spikes.f_eq(0.0)?)?),
            ("saturated", mean(&self.spikes.f_eq(chances)?)?),
            ("v_mean", v_mean),
            ("v_std", (mean(&self.square)? / looks - v_mean * v_mean).max(0.0).sqrt()),
            ("v_min", number(&self.least.f_min()?)?),
            ("v_max", number(&self.most.f_max()?)?),
        ])
    }
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

/// A piece of the potentials.
fn gather<R: Real>(sum: &mut [R], square: &mut [R], least: &mut [R], most: &mut [R], v: &[R]) {
    vectorized(
        #[inline(always)]
        move || {
            for ((((sum, square), least), most), &v) in sum.iter_mut().zip(square).zip(least).zip(most).zip(v)
            {
                *sum = *sum + v;
                *square = *square + v.square();
                *least = if v < *least { v } else { *least };
                *most = if v > *most { v } else { *most };
            }
        },
    );
}

pub(super) fn number(x: &Tensor) -> Result<f64> {
    Ok(x.f_double_value(&[])?)
}
