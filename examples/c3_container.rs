//! Course, 3 of 4: a network, and what flows through it.
//!
//! `OtttSequential` takes layers and neurons in order. From a neuron on, a spike and its trace travel
//! as a pair; a layer with parameters learns from the trace, one without is applied to both.

use anyhow::Result;
use spiketrace::{ws_conv2d, AvgPool2d, Flatten, OnlineModule, OtttLifNode, OtttSequential, Part, Signal};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

fn main() -> Result<()> {
    tch::manual_seed(1);
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();

    // A container is a module as well, so networks nest. tch's layers and closures go in as they are.
    let features = OtttSequential::new()
        .add(ws_conv2d(&p / "features" / 0, 1, 4, 3, Default::default())?)
        .add(OtttLifNode::new(Default::default())?)
        .add(AvgPool2d::new(2, Default::default())?)
        .add(nn::func(|x| x * 2.74));
    let mut net = OtttSequential::new().add(features).add(Flatten::default()).add(nn::linear(
        &p / "readout",
        4 * 3 * 3,
        10,
        Default::default(),
    ));
    println!("{net}");

    // One time step a call. The image is the same each time, the answer is not: neurons remember.
    let image = Tensor::rand([1, 1, 8, 8], (Kind::Float, Device::Cpu));
    let mut signals = Vec::new();
    let first = net.step_inspected(&Signal::from(&image), true, |i, module, signal| {
        signals.push((i, module.name(), signal.value().size(), signal.trace().is_some()));
    })?;
    for (i, name, size, traced) in &signals {
        println!("behind {i}, {name}: {size:?}{}", if *traced { ", with a trace" } else { "" });
    }
    let traced: Vec<bool> = signals.iter().map(|(.., traced)| *traced).collect();
    assert_eq!(traced, [true, true, false]);

    let second = net.step(&Signal::from(&image), true)?;
    assert_ne!(first.value(), second.value());

    // After a reset it starts from rest again.
    net.reset();
    let again = net.step(&Signal::from(&image), true)?;
    assert_eq!(first.value(), again.value());

    // All parameters, under PyTorch's names for this nesting.
    let names: Vec<String> = net.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["0.0.weight", "0.0.bias", "0.0.gain", "2.weight", "2.bias"]);

    // A mistake is a sentence with the place and the shapes.
    net.reset();
    let error = net.step(&Tensor::rand([1, 3, 8, 8], (Kind::Float, Device::Cpu)).into(), true).unwrap_err();
    println!("three channels: {error}");
    assert!(error.to_string().contains("[1, 3, 8, 8]"));
    Ok(())
}
