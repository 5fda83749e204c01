//! Skip connections, against networks written out with SpikingJelly's parts.

use rstest::rstest;
use spiketrace::train::{
    bptt_training, ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Update,
};
use spiketrace::{
    ws_conv2d, AdaptiveAvgPool2d, AvgPool2d, Flatten, OnlineModule, OtttLifConfig, OtttLifNode,
    OtttSequential, Part, Residual, Signal, SlttLifConfig, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Tensor};

use super::all_agree;
use super::fixture::Case;
use super::layers::var_store;
use crate::common::FLOAT;

const TIME_STEPS: i64 = 6;

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
    let (x_seq, target) = (case.get("x"), case.get("target"));
    let target_seq = repeat_over_time(&target, TIME_STEPS).unwrap();
    let mut still = nn::Sgd::default().build(&vs, 0.0).unwrap();
    let loss = OtttLoss::new(0.05, TIME_STEPS).unwrap();
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    let out = if case.flag("through_time") {
        bptt_training(&mut net, &mut still, &x_seq, &target_seq, loss)
    } else {
        let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
        ottt_online_training(&mut net, &mut still, &x_seq, &target_seq, loss, config)
    };
    let out = out.unwrap();
    case.value("loss", &out.loss);
    case.value("outputs", &out.outputs);
    for p in net.parameters() {
        case.gradient(&format!("grad.{}", p.name), &p.tensor.grad());
    }
    net.reset();
    let _no_grad = tch::no_grad_guard();
    let step = |t| net.step(&Signal::from(x_seq.select(1, t)), false).unwrap().into_value();
    let outputs: Vec<Tensor> = (0..TIME_STEPS).map(step).collect();
    case.value("eval_outputs", &Tensor::stack(&outputs, 1));
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
