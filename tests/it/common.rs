//! What several tests say alike.

use spiketrace::Result;
use tch::{Device, Kind, Reduction, Tensor};

pub const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
pub const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

pub fn mse(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(y.f_mse_loss(target, Reduction::Mean)?)
}
