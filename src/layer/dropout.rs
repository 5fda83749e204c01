//! Dropout with one mask a sequence.

use tch::{Kind, Tensor};

use crate::check::{expect_defined, expect_float, expect_steps};
use crate::error::{guarded, Error, Result};
use crate::module::{Layer, Memory, Part, Pass, Properties};

/// What the two dropouts share: the probability and the mask.
#[derive(Debug)]
struct Mask {
    layer: &'static str,
    p: f64,
    by_channel: bool,
    mask: Memory,
}

impl Mask {
    fn new(layer: &'static str, p: f64, by_channel: bool) -> Result<Self> {
        if (0.0..1.0).contains(&p) {
            return Ok(Self { layer, p, by_channel, mask: Memory::default() });
        }
        Err(Error::argument(&format!("{layer}'s p"), "a probability from 0 to below 1", p))
    }

    /// x `[time_steps * N, ...]` times the mask.
    fn apply(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        if self.by_channel && x.dim() != 4 {
            let what = format!("{}'s input", self.layer);
            return Err(Error::shape(&what, "[N, C, H, W]", x, "Dropout takes any shape"));
        }
        if !pass.train {
            return Ok(x.shallow_clone());
        }
        let time_steps = pass.time_steps;
        expect_float(format_args!("{}'s input", self.layer), x)?;
        expect_steps(self.layer, x, time_steps)?;
        guarded(self.layer, || {
            if time_steps == 1 {
                return self.multiply(x, &x.size());
            }
            let mut step = x.size();
            step[0] /= time_steps;
            let by_step = [&[time_steps], &step[..]].concat();
            let y = self.multiply(&x.f_reshape(by_step)?, &step)?;
            Ok(y.f_reshape(x.size())?)
        })
    }

    /// x times the mask, which has the size of a step or of its channels.
    fn multiply(&mut self, x: &Tensor, step: &[i64]) -> Result<Tensor> {
        let wanted = if self.by_channel { vec![step[0], step[1], 1, 1] } else { step.to_vec() };
        let Some(mask) = self.mask.get() else {
            let keep = Tensor::f_full(&wanted, 1.0 - self.p, (Kind::Float, x.device()))?.f_bernoulli()?;
            let mask = keep.f_to_kind(x.f_kind()?)?.f_div_scalar(1.0 - self.p)?;
            self.mask.set(&mask);
            return Ok(x.f_mul(&mask)?);
        };
        expect_defined(format_args!("{}'s mask", self.layer), mask)?;
        // A mask set by hand may have the input's full shape.
        if (mask.size() != wanted && mask.size() != step) || mask.f_kind()? != x.f_kind()? {
            return Err(Error::StaleState {
                what: format!("{}'s mask", self.layer),
                state: mask.size(),
                state_kind: mask.f_kind()?,
                input: step.to_vec(),
                input_kind: x.f_kind()?,
            });
        }
        // A graph of a mask that was set would be gone through at every step.
        Ok(x.f_mul(&mask.f_detach()?)?)
    }
}

/// Both are a mask, of elements or of channels.
macro_rules! dropouts {
    ($($(#[$doc:meta])* $dropout:ident, default $default:literal, by_channel $by_channel:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $dropout(Mask);

        impl $dropout {
            #[doc = concat!("Dropout with probability `p` (SpikingJelly's default is ", $default, ").")]
            ///
            /// # Errors
            /// When `p` is not in [0, 1).
            pub fn new(p: f64) -> Result<Self> {
                Mask::new(stringify!($dropout), p, $by_channel).map(Self)
            }

            /// Sets the mask to multiply with; it stays until reset.
            pub fn set_mask(&mut self, mask: &Tensor) {
                self.0.mask.set(mask);
            }
        }

        impl Part for $dropout {
            fn name(&self) -> String {
                format!("{}({})", self.0.layer, self.0.p)
            }

            fn memories(&mut self) -> Vec<&mut Memory> {
                vec![&mut self.0.mask]
            }

            fn properties(&self) -> Properties {
                Properties { cuts: true, ..Properties::default().any_layout().steps_at_once() }
            }
        }

        impl Layer for $dropout {
            fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
                self.forward_pass(x, &Pass::new(train))
            }

            fn forward_pass(&mut self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
                self.0.apply(x, pass)
            }
        }
    )*};
}

dropouts! {
    /// Sets elements to 0 with probability p and scales the others by 1/(1 - p), in training only.
    ///
    /// The mask is drawn at the first step and kept until reset: one mask a sequence, the same for the spike
    /// and its trace.
    ///
    /// # Shapes
    /// Any, fixed until reset.
    ///
    /// # Source
    /// SpikingJelly's `layer.Dropout`.
    Dropout, default 0.5, by_channel false;

    /// [`Dropout`] of whole channels.
    ///
    /// # Shapes
    /// `[N, C, H, W]`, fixed until reset; the mask is `[N, C, 1, 1]`.
    ///
    /// # Source
    /// SpikingJelly's `layer.Dropout2d`.
    Dropout2d, default 0.2, by_channel true;
}
