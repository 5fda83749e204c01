//! What the optimizers do to memory, to flags and to half precision, and what is left after a step that failed.

mod flags;
mod half;
mod memory;
mod parameters;
mod whole_steps;

use spiketrace::train::{Adam, AdamConfig, Optimizer, Sgd, SgdConfig};
use spiketrace::Result;
use tch::{Kind, Tensor};

/// An optimizer of each kind that keeps a state, which moves by more than rounding.
const MOMENTUM: SgdConfig =
    SgdConfig { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.01, nesterov: false };
const ADAM: AdamConfig =
    AdamConfig { lr: 0.1, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, decoupled_weight_decay: false };

type Make = fn(&[&Tensor]) -> Result<Box<dyn Optimizer>>;

const MAKERS: [Make; 2] = [
    |parameters| Ok(Box::new(Sgd::new(parameters.iter().copied(), MOMENTUM)?)),
    |parameters| Ok(Box::new(Adam::new(parameters.iter().copied(), ADAM)?)),
];

/// Gives `parameter` the gradient `grad`, by way of a graph.
fn set_grad(parameter: &Tensor, grad: &Tensor) {
    parameter.shallow_clone().zero_grad();
    (parameter * grad).sum(Kind::Double).backward();
}

/// Some steps with gradients that change.
fn steps(optimizer: &mut dyn Optimizer, parameters: &[&Tensor], grads: &[&Tensor]) {
    for step in 1..4 {
        for (parameter, grad) in parameters.iter().zip(grads) {
            set_grad(parameter, &(*grad * f64::from(step)));
        }
        optimizer.step().unwrap();
    }
}

/// A copy that can be moved, with its elements in the order of their indices.
fn leaf(values: &Tensor) -> Tensor {
    values.detach().contiguous().copy().set_requires_grad(true)
}
