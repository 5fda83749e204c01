//! Skip connections, against networks written out with SpikingJelly's parts.

use rstest::rstest;
use spiketrace::{
    ws_conv2d, AdaptiveAvgPool2d, AvgPool2d, Flatten, OnlineModule, OtttLifConfig, OtttLifNode,
    OtttSequential, Part, Residual, Signal, SlttLifConfig, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

use super::all_agree;
use super::fixture::Case;
use super::layers::var_store;
use super::models::learn;
use crate::common::FLOAT;

#[rstest]
fn skip_connections_agree_with_pytorchs(
    #[values(("f32", 1e-5), ("f64", 1e-10))] (dtype, tolerance): (&str, f64),
    #[values(one_step_a_pass, four_steps_a_pass)] replay: fn(&mut Case),
) {
    all_agree("residual.json", "residual", replay, dtype, tolerance);
}

fn one_step_a_pass(case: &mut Case) {
    residual(case, 1);
}

fn four_steps_a_pass(case: &mut Case) {
    residual(case, 4);
}

fn neuron(case: &Case) -> Box<dyn OnlineModule> {
    let (tau, decay_input) = (case.number("tau"), case.flag("decay_input"));
    let (v_threshold, v_reset) = (case.number("v_threshold"), case.option("v_reset"));
    if case.setting("node") == "ottt" {
        let config = OtttLifConfig { tau, decay_input, v_threshold, v_reset, ..Default::default() };
        return Box::new(OtttLifNode::new(config).unwrap());
    }
    let config = SlttLifConfig { tau, decay_input, v_threshold, v_reset, ..Default::default() };
    Box::new(SlttLifNode::new(config).unwrap())
}

fn network(case: &Case, vs: &VarStore) -> OtttSequential {
    let mut places = 0;
    let mut place = || {
        places += 1;
        vs.root() / places
    };
    let mut conv = |inputs, outputs, size: i64| {
        let config = WsConv2dConfig { padding: size / 2, ..Default::default() };
        ws_conv2d(place(), inputs, outputs, size, config).unwrap()
    };
    let plain = nn::ConvConfig { padding: 1, ..Default::default() };
    let inner = OtttSequential::new().add(neuron(case)).add(nn::conv2d(vs.root() / "inner", 5, 5, 3, plain));
    OtttSequential::new()
        .add(conv(2, 4, 3))
        .add(neuron(case))
        .add(Residual::with_shortcut(
            OtttSequential::new().add(conv(4, 5, 3)).add(neuron(case)).add(conv(5, 5, 3)),
            OtttSequential::new().add(conv(4, 5, 1)),
        ))
        .add(Residual::new(
            OtttSequential::new().add(neuron(case)).add(conv(5, 5, 3)).add(Residual::new(inner)),
        ))
        .add(neuron(case))
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(Residual::new(OtttSequential::new().add(conv(5, 5, 3))))
        .add(neuron(case))
        .add(AdaptiveAvgPool2d::new([1, 1]).unwrap())
        .add(Flatten::default())
        .add(nn::linear(vs.root() / "readout", 5, 5, Default::default()))
}

fn residual(case: &mut Case, steps_per_pass: i64) {
    let vs = var_store(case);
    let mut net = network(case, &vs);
    case.set(&net.parameters());
    let x_seq = case.get("x");
    learn(case, &vs, &mut net, &x_seq, steps_per_pass);
}

#[test]
fn a_skip_connection_says_what_cannot_be_added() {
    let vs = VarStore::new(Device::Cpu);
    let linear = |name: i64, from, to| nn::linear(vs.root() / name, from, to, Default::default());
    let x: Signal = Tensor::ones([2, 4], FLOAT).into();
    let spikes = linear(0, 4, 4);
    let spikes = OtttSequential::new().add(spikes).add(OtttLifNode::new(Default::default()).unwrap());
    let error = Residual::new(spikes).step(&x, true).unwrap_err().to_string();
    assert!(error.starts_with("what Residual's block gives is a spike with its trace"), "{error}");
    let error = Residual::new(linear(1, 4, 3)).step(&x, true).unwrap_err().to_string();
    assert!(error.starts_with("Residual's shortcut has shape [2, 4], expected [2, 3]; give it"), "{error}");
    let mut net = OtttSequential::new().add(Residual::with_shortcut(linear(2, 4, 3), linear(3, 5, 3)));
    let error = net.step(&x, true).unwrap_err().to_string();
    assert!(error.contains("layer shortcut: Linear(5 -> 3)'s input has shape [2, 4]"), "{error}");
}
