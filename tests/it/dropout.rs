//! One mask a sequence.

use spiketrace::{Dropout, Dropout2d, Layer, Part};
use tch::{Device, Kind, Tensor};

#[test]
fn the_mask_is_kept_over_steps_and_drawn_anew_after_a_reset() {
    tch::manual_seed(1);
    let x = Tensor::ones([4, 100], (Kind::Float, Device::Cpu));
    let mut dropout = Dropout::new(0.5).unwrap();
    let first = dropout.forward(&x, true).unwrap();
    assert_eq!(dropout.forward(&x, true).unwrap(), first);
    dropout.reset();
    assert_ne!(dropout.forward(&x, true).unwrap(), first);
}

#[test]
fn the_expectation_is_kept_and_the_rate_is_p() {
    tch::manual_seed(2);
    let x = Tensor::ones([200, 100], (Kind::Double, Device::Cpu));
    let y = Dropout::new(0.3).unwrap().forward(&x, true).unwrap();
    let dropped = y.eq(0.0).mean(Kind::Double).double_value(&[]);
    assert!((dropped - 0.3).abs() < 0.02, "{dropped}");
    assert!((y.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.02);
}

#[test]
fn channels_fall_whole() {
    let x = Tensor::ones([8, 8, 3, 3], (Kind::Float, Device::Cpu));
    let y = Dropout2d::new(0.5).unwrap().forward(&x, true).unwrap();
    let (low, high) = (y.amin([2, 3], false), y.amax([2, 3], false));
    assert_eq!(low, high);
}
