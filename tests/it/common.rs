//! What several tests say alike.

use spiketrace::{OnlineModule, Result};
use tch::{Device, Kind, Reduction, Tensor};

pub const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
pub const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// The mean square error, as a training loop takes it.
pub fn mse(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(y.f_mse_loss(target, Reduction::Mean)?)
}

/// Numbers from -1 to 1, the same at each call: tests run side by side, and draw from one generator.
pub fn numbers(size: &[i64], seed: usize) -> Tensor {
    let count: i64 = size.iter().product();
    (Tensor::arange(count, DOUBLE) * (12.9898 + seed as f64) + 0.5).sin().view(size)
}

/// Gives each parameter such numbers, times `scale`.
pub fn fill(net: &impl OnlineModule, scale: f64) {
    for (i, p) in net.parameters().into_iter().enumerate() {
        let values = numbers(&p.tensor.size(), i) * scale;
        tch::no_grad(|| p.tensor.shallow_clone().copy_(&values));
    }
}
