//! The state that a thread must be left in, whatever was called on it, and whatever failed.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use spiketrace::surrogate::Sigmoid;
use spiketrace::{
    GradWithTrace, Layer, OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, Properties, Result,
    Signal, Variable,
};
use tch::{nn, Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Panics unless the processor counts the smallest numbers, operations are recorded, nothing is cast, precision is full
/// and fast paths are taken: all as they are on a new thread.
pub fn expect_as_new() {
    assert!(black_box(f32::MIN_POSITIVE) * black_box(0.5) > 0.0, "numbers stay flushed to 0");
    let w = (Tensor::ones([1, 1], FLOAT) * (1.0 + 2f64.powi(-20))).set_requires_grad(true);
    assert!((&w * 1.0).requires_grad(), "operations stay unrecorded");
    let x = Tensor::ones([1, 1], FLOAT);
    assert_eq!(x.linear(&w, None::<Tensor>).kind(), Kind::Float, "libtorch's casts stay on");
    let linear = nn::Linear { ws: w.detach(), bs: None };
    let y = OtttSequential::new().add(linear).step(&(&x).into(), false).unwrap().into_value();
    assert_eq!(y, w.detach(), "the precision stays reduced");

    // One forward pass where there would be two, and a sweep, which has no second derivative.
    let runs = Arc::new(AtomicUsize::new(0));
    let pair = Signal::SpikeTrace { spike: x.shallow_clone(), trace: x.shallow_clone() };
    GradWithTrace::new(Counted(w.shallow_clone(), Arc::clone(&runs))).step(&pair, true).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1, "one pass stays off");
    let config = OtttLifConfig { surrogate: Arc::new(Sigmoid::default()), ..Default::default() };
    let spike = OtttLifNode::new(config).unwrap().step(&(&w * 1.0).into(), true).unwrap().into_value();
    let twice = Tensor::f_run_backward(&[spike.sum(Kind::Float)], &[&w], true, true);
    assert!(twice.is_err(), "the fused neuron stays off");
}

/// A linear layer that counts its calls.
#[derive(Debug)]
struct Counted(Tensor, Arc<AtomicUsize>);

impl Layer for Counted {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(x.f_linear(&self.0, None::<Tensor>)?)
    }
}

impl Part for Counted {
    fn variables(&self) -> Vec<Variable> {
        vec![Variable::parameter("weight", &self.0)]
    }

    fn properties(&self) -> Properties {
        Properties::default().affine()
    }
}

#[cfg(test)]
mod tests {
    use spiketrace::setting::{with_fast_paths, with_precision, FastPaths, Precision};

    use super::expect_as_new;

    /// The guard itself can fail.
    #[test]
    fn each_change_is_seen() {
        expect_as_new();
        let seen = |body: &dyn Fn()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).expect_err("it was not seen");
        };
        seen(&|| {
            let _no_grad = tch::no_grad_guard(); // ends in a panic, which no_grad() does not
            expect_as_new();
        });
        seen(&|| with_precision(Precision::BFloat16, expect_as_new));
        seen(&|| with_fast_paths(FastPaths { one_pass: false, ..Default::default() }, expect_as_new));
        seen(&|| with_fast_paths(FastPaths { fused_neuron: false, ..Default::default() }, expect_as_new));
        expect_as_new();
    }
}
