//! What a custom function costs over the same operation of libtorch.
//!
//! `scripts/with-libtorch cargo bench --bench function` prints both, forward alone and with backward.

use criterion::{criterion_group, criterion_main, Criterion};
use spiketrace::{Context, Function, Result, Tensors};
use tch::{Device, Kind, Tensor};

/// y = -x.
struct Negated;

impl Function for Negated {
    fn forward(&self, _: &mut Context, x: &Tensors) -> Result<Vec<Tensor>> {
        Ok(vec![x[0].f_neg()?])
    }

    fn backward(&self, _: &mut Context, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(grads[0].f_neg()?)])
    }
}

fn custom(x: &Tensor) -> Tensor {
    Negated.apply(&[x]).expect("negates").remove(0)
}

fn function(c: &mut Criterion) {
    tch::set_num_threads(1);
    let x = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut group = c.benchmark_group("negation of one number");
    group.bench_function("forward, libtorch", |b| b.iter(|| x.neg()));
    group.bench_function("forward, Function", |b| b.iter(|| custom(&x)));
    group.bench_function("forward and backward, libtorch", |b| b.iter(|| x.neg().backward()));
    group.bench_function("forward and backward, Function", |b| b.iter(|| custom(&x).backward()));
    group.finish();
}

criterion_group!(benches, function);
criterion_main!(benches);
