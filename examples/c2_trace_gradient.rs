//! Course, 2 of 4: the trace, and the gradient that needs no past.
//!
//! A synapse sees spikes s_1, s_2, ... and learns from each loss L_t as it comes. OTTT's gradient is
//! dL_t/dW = g_t a_t^T with the trace a_t = (1 - 1/tau) a_{t-1} + s_t: all the past that it needs is one
//! tensor. `GradWithTrace` makes autograd compute it: the value from the spike, the gradient from the
//! trace.

use anyhow::Result;
use spiketrace::{replace_for_grad, GradWithTrace, OnlineModule, Signal};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

const TAU: f64 = 2.0;

fn main() -> Result<()> {
    tch::manual_seed(1);
    let double = (Kind::Double, Device::Cpu);
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(Kind::Double);
    let linear = nn::linear(vs.root(), 3, 2, nn::LinearConfig { bias: false, ..Default::default() });
    let weight = linear.ws.shallow_clone();
    let mut layer = GradWithTrace::new(linear);

    let spikes = Tensor::full([5, 1, 3], 0.5, double).bernoulli();
    let targets = Tensor::randn([5, 1, 2], double);
    let mut trace = Tensor::zeros([1, 3], double);
    let mut by_hand = Tensor::zeros([2, 3], double);

    for t in 0..5 {
        let spike = spikes.get(t);
        trace = trace * (1.0 - 1.0 / TAU) + &spike;

        // With spiketrace: a step forward, a step backward; gradients add up in the weight.
        let pair = Signal::SpikeTrace { spike: spike.copy(), trace: trace.copy() };
        let y = layer.step(&pair, true)?.into_value();
        ((&y - targets.get(t)).square().sum(Kind::Double)).f_backward()?;

        // By hand: g_t = dL_t/dy_t, and the outer product with the trace.
        let g = (spike.matmul(&weight.detach().tr()) - targets.get(t)) * 2.0;
        by_hand += g.tr().matmul(&trace);
        println!("step {t}: spike {:?}, trace {:?}", numbers(&spike)?, numbers(&trace)?);
    }
    let difference = (weight.grad() - &by_hand).abs().max().double_value(&[]);
    println!("gradient by spiketrace and by hand differ by {difference:.1e}");
    assert!(difference < 1e-12);

    // Underneath is one function: the value of its second argument, the gradient to both.
    let spike = spikes.get(4).set_requires_grad(true);
    let seen = replace_for_grad(&spike, &trace)?;
    seen.sum(Kind::Double).f_backward()?;
    assert_eq!(seen, trace);
    assert_eq!(spike.grad(), Tensor::ones([1, 3], double));
    Ok(())
}

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(x.flatten(0, -1))?)
}
