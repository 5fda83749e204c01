//! Whole training loops: losses, outputs, gradients, and the weights afterwards.

use spiketrace::train::{
    fptt_online_training, fptt_online_training_init_w_ra, ottt_online_training as train, Adam, AdamConfig,
    Optimizer, OtttLoss, Sgd, SgdConfig, Update,
};
use spiketrace::{
    ws_conv2d, AdaptiveAvgPool2d, AvgPool2d, Feedback, Flatten, OtttLifConfig, OtttLifNode, OtttSequential,
    Part, Scale, SlttLifConfig, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::Tensor;

use super::fixture::Case;
use super::layers::var_store;
use crate::common::mse;

const SEQUENCES: i64 = 3;
const TIME_STEPS: i64 = 6;

pub fn ottt_online_training(case: &mut Case) {
    let vs = var_store(case);
    let mut net = net(case, &vs);
    case.set(&net.parameters());
    let mut optimizer =
        nn::sgd(case.number("momentum"), 0.0, 0.0, false).build(&vs, case.number("lr")).unwrap();
    let loss = OtttLoss::new(0.05, TIME_STEPS).unwrap();
    let update = if case.flag("online") { Update::EveryStep } else { Update::EndOfSequence };

    let (x, target) = (case.get("x"), case.get("target"));
    let (mut losses, mut outputs) = (Vec::new(), Vec::new());
    for i in 0..SEQUENCES {
        let labels = target.get(i).unsqueeze(1).expand([-1, TIME_STEPS], false);
        let out = train(&mut net, &mut optimizer, &x.get(i), &labels, |y, l| loss.forward(y, l), update);
        let out = out.unwrap();
        losses.push(out.loss);
        outputs.push(out.outputs);
        net.reset();
    }
    case.value("loss", &Tensor::stack(&losses, 0));
    case.value("outputs", &Tensor::stack(&outputs, 0));
    for p in net.parameters() {
        case.value(&format!("after.{}", p.name), &p.tensor.detach());
        if update == Update::EndOfSequence {
            case.gradient(&format!("grad.{}", p.name), &p.tensor.grad());
        }
    }
}

fn net(case: &Case, vs: &VarStore) -> OtttSequential {
    let p = vs.root();
    let ottt = || OtttLifNode::new(OtttLifConfig::default()).unwrap();
    let linear = |name: i64, from, to| nn::linear(&p / name, from, to, Default::default());
    let conv = |name: i64, from, to| {
        let config = WsConv2dConfig { padding: 1, ..Default::default() };
        ws_conv2d(&p / name, from, to, 3, config).unwrap()
    };
    match case.name.trim_end_matches("_step").trim_end_matches("_sequence") {
        "mlp" => OtttSequential::new().add(linear(0, 5, 7)).add(ottt()).add(linear(2, 7, 4)),
        "mlp_sltt" => {
            let sltt = SlttLifNode::new(SlttLifConfig::default()).unwrap();
            OtttSequential::new().add(linear(0, 5, 7)).add(sltt).add(linear(2, 7, 4))
        }
        "conv" => OtttSequential::new()
            .add(conv(0, 2, 3))
            .add(ottt())
            .add(Scale(2.74))
            .add(AvgPool2d::new(2, Default::default()).unwrap())
            .add(conv(4, 3, 4))
            .add(ottt())
            .add(Scale(2.74))
            .add(AdaptiveAvgPool2d::new([1, 1]).unwrap())
            .add(Flatten::default())
            .add(linear(9, 4, 4)),
        "recurrent" => OtttSequential::new()
            .add(linear(0, 5, 7))
            .add(Feedback::new(
                nn::linear(&p / "c", 7, 7, Default::default()),
                OtttSequential::new().add(ottt()),
            ))
            .add(linear(2, 7, 4)),
        "feedback" => {
            let block = OtttSequential::new().add(ottt()).add(linear(11, 7, 6)).add(ottt());
            OtttSequential::new()
                .add(linear(0, 5, 7))
                .add(Feedback::new(nn::linear(&p / "c", 6, 7, Default::default()), block))
                .add(linear(2, 6, 4))
        }
        name => panic!("nothing replays {name}"),
    }
}

pub fn fptt(case: &mut Case) {
    let vs = var_store(case);
    let p = vs.root();
    let mut net = OtttSequential::new()
        .add(nn::linear(&p / 0, 5, 7, Default::default()))
        .add(SlttLifNode::new(SlttLifConfig::default()).unwrap())
        .add(nn::linear(&p / 2, 7, 4, Default::default()));
    case.set(&net.parameters());
    let mut optimizer =
        nn::sgd(case.number("momentum"), 0.0, 0.0, false).build(&vs, case.number("lr")).unwrap();
    let mut w_ra = fptt_online_training_init_w_ra(&optimizer);
    let (x, target) = (case.get("x"), case.get("target"));
    for i in 0..SEQUENCES {
        let (x, target, alpha) = (x.get(i), target.get(i), case.number("alpha"));
        let _ = fptt_online_training(&mut net, &mut optimizer, &x, &target, mse, alpha, &mut w_ra).unwrap();
        net.reset();
    }
    let optimized = Optimizer::parameters(&optimizer);
    for p in net.parameters() {
        // The averages lie in the optimizer's order, not in the network's.
        let place = optimized.iter().position(|o| o.data_ptr() == p.tensor.data_ptr()).unwrap();
        let average = &w_ra[place];
        case.value(&format!("after.{}", p.name), &p.tensor.detach());
        case.value(&format!("w_ra.{}", p.name), average);
    }
}

/// 100 steps; half of them after the state went through its accessors into a new optimizer.
pub fn optimizer(case: &mut Case) {
    let parameters: Vec<Tensor> =
        ["w", "b"].iter().map(|name| case.get(&format!("param.{name}")).set_requires_grad(true)).collect();
    let grads: Vec<Tensor> = ["w", "b"].iter().map(|name| case.get(&format!("grads.{name}"))).collect();
    let steps = |optimizer: &mut dyn Optimizer, range: std::ops::Range<i64>| {
        for t in range {
            optimizer.zero_grad().unwrap();
            for (parameter, grads) in parameters.iter().zip(&grads) {
                // The gradient of a sum of products is the other factor.
                (parameter * grads.get(t)).sum(parameter.kind()).backward();
            }
            optimizer.step().unwrap();
        }
    };
    let (lr, weight_decay) = (case.number("lr"), case.number("weight_decay"));
    if case.name.starts_with("sgd") {
        let (momentum, dampening) = (case.number("momentum"), case.number("dampening"));
        let config = SgdConfig { lr, momentum, dampening, weight_decay, nesterov: case.flag("nesterov") };
        let mut first = Sgd::new(&parameters, config).unwrap();
        steps(&mut first, 0..50);
        let mut second = Sgd::new(&parameters, config).unwrap();
        second.set_momentum_buffers(first.momentum_buffers()).unwrap();
        steps(&mut second, 50..100);
        for (name, buffer) in ["w", "b"].iter().zip(second.momentum_buffers()) {
            assert_eq!(buffer.is_some(), momentum > 0.0);
            if let Some(buffer) = buffer {
                case.value(&format!("momentum_buffer.{name}"), buffer);
            }
        }
    } else {
        let betas = case.numbers("betas");
        let decoupled_weight_decay = case.name.starts_with("adamw");
        let config = AdamConfig {
            lr,
            betas: (betas[0], betas[1]),
            eps: case.number("eps"),
            weight_decay,
            decoupled_weight_decay,
        };
        if case.name == "adamw" {
            assert_eq!(config, AdamConfig { lr, ..AdamConfig::adamw() });
        }
        let mut first = Adam::new(&parameters, config).unwrap();
        steps(&mut first, 0..50);
        let mut second = Adam::new(&parameters, config).unwrap();
        second.set_states(first.states()).unwrap();
        steps(&mut second, 50..100);
        for (name, state) in ["w", "b"].iter().zip(second.states()) {
            assert_eq!(state.step.double_value(&[]), 100.0);
            case.value(&format!("exp_avg.{name}"), &state.exp_avg);
            case.value(&format!("exp_avg_sq.{name}"), &state.exp_avg_sq);
        }
    }
    for (name, parameter) in ["w", "b"].iter().zip(&parameters) {
        case.value(&format!("after.{name}"), &parameter.detach());
    }
}
