//! How images lie in memory between the modules of a container.

use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::{AvgPool2d, Layer, OtttLifNode, OtttSequential, Part, Result};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, numbers};
use crate::parity::fixture::relative_difference;

/// Takes its input apart by `view()`, which needs contiguous memory.
#[derive(Debug)]
struct Views;

impl Part for Views {}

impl Layer for Views {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        Ok(x.f_view([x.size()[0], -1])?)
    }
}

#[test]
fn images_lie_channels_last_for_convolutions_and_contiguous_for_other_peoples_modules() {
    let vs = VarStore::new(Device::Cpu);
    let conv = |name: &str, from| {
        let config = nn::ConvConfig { padding: 1, ..Default::default() };
        nn::conv2d(vs.root() / name, from, 5, 3, config)
    };
    let block = OtttSequential::new().add(conv("0", 3)).add(OtttLifNode::new(Default::default()).unwrap());
    let mut net = OtttSequential::new()
        .add(block)
        .add(conv("1", 5))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(Views)
        .add(nn::linear(vs.root() / "2", 5 * 16 * 16, 2, Default::default()));
    // Enough pixels for the faster layout.
    let x = (numbers(&[4, 3, 32, 32], 5).abs() * 3.0).to_kind(Kind::Float);
    fill(&net, 0.25);
    let mut run = |paths| {
        with_fast_paths(paths, || {
            let mut strides = Vec::new();
            let y = net
                .step_inspected(&(&x).into(), true, |_, _, signal| strides.push(signal.value().stride()[1]))
                .unwrap();
            net.reset();
            y.value().sum(Kind::Float).backward();
            let grads: Vec<Tensor> = net.parameters().iter().map(|p| p.tensor.grad().copy()).collect();
            net.parameters().iter_mut().for_each(|p| p.tensor.zero_grad());
            (y.into_value().detach(), grads, strides)
        })
    };
    let (y, grads, strides) = run(FastPaths::default());
    assert_eq!(strides, [1024, 1, 1, 1, 1, 1], "a nested container gives contiguous images");
    let (plain_y, plain_grads, plain_strides) = run(FastPaths::NONE);
    assert_eq!(plain_strides, [1024, 1024, 1024, 256, 1, 1]);
    assert!(y.allclose(&plain_y, 1e-4, 1e-5, false));
    for (grad, plain) in grads.iter().zip(&plain_grads) {
        let difference = relative_difference(grad, plain);
        assert!(difference < 1e-5, "{difference:e}");
    }
}
