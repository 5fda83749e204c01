//! Parts that a user might write: a layer that is affine, one with a memory, one that panics, a surrogate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use spiketrace::surrogate::Surrogate;
use spiketrace::{Layer, Memory, Part, Properties, Result, Variable};
use tch::Tensor;

/// y = x W^T, by an operation of the user's choice.
#[derive(Debug)]
pub struct OwnAffine(pub Tensor);

impl Part for OwnAffine {
    fn variables(&self) -> Vec<Variable> {
        vec![Variable::parameter("weight", &self.0)]
    }

    fn properties(&self) -> Properties {
        Properties::default().affine()
    }
}

impl Layer for OwnAffine {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.f_matmul(&self.0.f_tr()?)?)
    }
}

/// y = w (x + x of the call before / 2).
#[derive(Debug)]
pub struct OwnStateful {
    pub weight: Tensor,
    pub before: Memory,
}

impl Part for OwnStateful {
    fn variables(&self) -> Vec<Variable> {
        vec![Variable::parameter("weight", &self.weight)]
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.before]
    }

    fn properties(&self) -> Properties {
        Properties::default().any_layout()
    }
}

impl Layer for OwnStateful {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        let sum = match self.before.get() {
            Some(before) => x.f_add(&before.f_mul_scalar(0.5)?)?,
            None => x.shallow_clone(),
        };
        self.before.set(&x.f_detach()?);
        Ok(sum.f_mul(&self.weight)?)
    }
}

/// 1 - |x| where that is positive.
#[derive(Debug)]
pub struct Triangle;

impl Surrogate for Triangle {
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_abs()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?)
    }
}

/// A user's own layer, which panics when it is told to.
#[derive(Debug)]
pub struct Bomb(pub Arc<AtomicBool>);

impl Layer for Bomb {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        assert!(!self.0.swap(false, Ordering::Relaxed), "it went off");
        Ok(x.shallow_clone())
    }
}

impl Part for Bomb {
    fn properties(&self) -> Properties {
        Properties::default().samplewise()
    }
}
