use std::cell::Cell;

use spiketrace::train::{
    accuracy, evaluate, fptt_online_training, fptt_online_training_init_w_ra, ottt_online_training,
    repeat_over_time, top_k_accuracy, Adam, AdamConfig, AdamState, OtttLoss, Sgd, SgdConfig, Update,
};
use spiketrace::{Error, OnlineModule, OtttLifNode, OtttSequential, Part, Result};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, numbers};

use super::{check, ones};

fn net(vs: &VarStore) -> OtttSequential {
    OtttSequential::new()
        .add(nn::linear(vs.root() / 0, 4, 5, Default::default()))
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(nn::linear(vs.root() / 2, 5, 3, Default::default()))
}

fn train(x: Tensor, target: Tensor, loss: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<()> {
    let vs = VarStore::new(Device::Cpu);
    let mut sgd = nn::Sgd::default().build(&vs, 0.1)?;
    ottt_online_training(&mut net(&vs), &mut sgd, &x, &target, loss, Update::EveryStep).map(drop)
}

fn fptt(alpha: f64, w_ra: fn(Vec<Tensor>) -> Vec<Tensor>) -> Result<()> {
    let vs = VarStore::new(Device::Cpu);
    let mut net = net(&vs);
    let mut sgd = nn::Sgd::default().build(&vs, 0.1)?;
    let mut w_ra = w_ra(fptt_online_training_init_w_ra(&sgd));
    let (x, target) = (ones(&[6, 2, 4]), ones(&[6, 2, 3]));
    fptt_online_training(&mut net, &mut sgd, &x, &target, mse, alpha, &mut w_ra).map(drop)
}

#[test]
fn sequences_and_losses() {
    check(&[
        (
            "no time",
            &|| train(ones(&[4]), ones(&[2, 6, 3]), mse),
            &["x_seq has shape [4], expected [B, T, ...]", "repeat_over_time()"],
        ),
        (
            "T = 0",
            &|| train(ones(&[2, 0, 4]), ones(&[2, 0, 3]), mse),
            &["x_seq has shape [2, 0, 4]", "at least one element"],
        ),
        (
            "an empty batch",
            &|| train(ones(&[0, 6, 4]), ones(&[0, 6, 3]), mse),
            &["x_seq", "[0, 6, 4]", "skip empty batches"],
        ),
        ("no input", &|| train(Tensor::new(), ones(&[2, 6, 3]), mse), &["x_seq is an undefined tensor"]),
        (
            "another batch in the target",
            &|| train(ones(&[2, 6, 4]), ones(&[3, 6, 3]), mse),
            &["target_seq has shape [3, 6, 3], expected [2, 6, ...]"],
        ),
        (
            "another T in the target",
            &|| train(ones(&[2, 6, 4]), ones(&[2, 5, 3]), mse),
            &["target_seq", "[2, 6, ...]"],
        ),
        (
            "labels without time",
            &|| train(ones(&[2, 6, 4]), ones(&[2]), mse),
            &["target_seq has shape [2]", "repeat_over_time()"],
        ),
        (
            "features of the input",
            &|| train(ones(&[2, 6, 9]), ones(&[2, 6, 3]), mse),
            &["layer 0", "Linear(4 -> 5)", "[2, 9]"],
        ),
        (
            "a target that the loss refuses",
            &|| train(ones(&[2, 6, 4]), ones(&[2, 6, 7]), mse),
            &["libtorch", "size"],
        ),
        (
            "a loss an element",
            &|| train(ones(&[2, 6, 4]), ones(&[2, 6, 3]), |y, t| Ok(y.f_sub(t)?)),
            &["the loss has shape [2, 3], expected a single number", "mean()"],
        ),
        (
            "a loss without a graph",
            &|| train(ones(&[2, 6, 4]), ones(&[2, 6, 3]), |y, t| mse(&y.detach(), t)),
            &["depends on no parameter"],
        ),
        (
            "T = -1",
            &|| repeat_over_time(&ones(&[2, 4]), -1).map(drop),
            &["time_steps is -1, expected at least 1"],
        ),
        ("T = 0 repeated", &|| repeat_over_time(&ones(&[2, 4]), 0).map(drop), &["time_steps is 0"]),
        ("a scalar repeated", &|| repeat_over_time(&ones(&[]), 6).map(drop), &["unsqueeze(0)"]),
        (
            "nothing to evaluate",
            &|| evaluate(&mut net(&VarStore::new(Device::Cpu)), &ones(&[0, 6, 4])).map(drop),
            &["x_seq has shape [0, 6, 4]"],
        ),
        (
            "no time to evaluate",
            &|| evaluate(&mut net(&VarStore::new(Device::Cpu)), &ones(&[4])).map(drop),
            &["x_seq has shape [4]"],
        ),
        ("alpha 0", &|| fptt(0.0, |w| w), &["alpha is 0, expected a finite number above 0"]),
        ("alpha NaN", &|| fptt(f64::NAN, |w| w), &["alpha is NaN"]),
        (
            "too few averages",
            &|| {
                fptt(0.5, |mut w| {
                    w.pop();
                    w
                })
            },
            &["the length of w_ra is 3, expected 4 running averages", "init_w_ra()"],
        ),
        (
            "averages of another shape",
            &|| {
                fptt(0.5, |mut w| {
                    w[0] = ones(&[1]);
                    w
                })
            },
            &["w_ra[0] has shape [1]"],
        ),
    ]);
}

#[test]
fn a_frozen_network() {
    let mut vs = VarStore::new(Device::Cpu);
    let mut net = net(&vs);
    let mut sgd = nn::Sgd::default().build(&vs, 0.1).unwrap();
    vs.freeze();
    let (x, target) = (ones(&[2, 6, 4]), ones(&[2, 6, 3]));
    let error = ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EveryStep).unwrap_err();
    assert!(error.to_string().contains("is the VarStore frozen"), "{error}");
}

#[test]
fn another_batch_size_without_a_reset() {
    let vs = VarStore::new(Device::Cpu);
    let (mut net, mut sgd) = (net(&vs), nn::Sgd::default().build(&vs, 0.1).unwrap());
    let mut train = |net: &mut OtttSequential, batch: i64| {
        let (x, target) = (ones(&[batch, 6, 4]), ones(&[batch, 6, 3]));
        ottt_online_training(net, &mut sgd, &x, &target, mse, Update::EveryStep)
    };
    train(&mut net, 4).unwrap();
    let error = train(&mut net, 3).unwrap_err().to_string();
    assert!(error.contains("layer 1: OtttLifNode") && error.contains("call reset()"), "{error}");
    net.reset();
    train(&mut net, 3).unwrap();
}

#[test]
fn optimizers() {
    let p = ones(&[2]).set_requires_grad(true);
    let sgd = |config| Sgd::new([&p], config).map(drop);
    let adam = |config| Adam::new([&p], config).map(drop);
    let (s, a) = (SgdConfig::default(), AdamConfig::default());
    check(&[
        ("no parameter", &|| Sgd::new([], s).map(drop), &["Sgd's parameters is none, expected at least one"]),
        (
            "a result for a parameter",
            &|| Adam::new([&p, &(&p * 2.0)], a).map(drop),
            &["Adam's parameter 1 is the result of an operation, expected a weight itself"],
        ),
        ("an undefined parameter", &|| Sgd::new([&Tensor::new()], s).map(drop), &["Sgd's parameter 0 is"]),
        ("lr NaN", &|| sgd(SgdConfig { lr: f64::NAN, ..s }), &["Sgd's lr is NaN, expected a finite number"]),
        ("momentum below 0", &|| sgd(SgdConfig { momentum: -0.1, ..s }), &["Sgd's momentum is -0.1"]),
        (
            "nesterov without momentum",
            &|| sgd(SgdConfig { nesterov: true, ..s }),
            &["Sgd's momentum is 0, with dampening 0, expected above 0"],
        ),
        ("beta 1", &|| adam(AdamConfig { betas: (0.9, 1.0), ..a }), &["Adam's beta is 1, expected from 0"]),
        ("eps below 0", &|| adam(AdamConfig { eps: -1.0, ..a }), &["Adam's eps is -1, expected"]),
        (
            "too few buffers",
            &|| Sgd::new([&p], s)?.set_momentum_buffers(&[]),
            &["the count of momentum buffers is 0, expected 1"],
        ),
        (
            "a buffer of another shape",
            &|| Sgd::new([&p], s)?.set_momentum_buffers(&[Some(ones(&[3]))]),
            &["momentum buffer 0 has shape [3], expected [2]"],
        ),
        ("too few states", &|| Adam::new([&p], a)?.set_states(&[]), &["the count of Adam's states is 0"]),
        (
            "a step in another kind",
            &|| {
                let step = tch::Tensor::from(1i64);
                let state = AdamState { step, exp_avg: ones(&[2]), exp_avg_sq: ones(&[2]) };
                Adam::new([&p], a)?.set_states(&[state])
            },
            &["step of state 0 holds Int64, expected Float"],
        ),
    ]);
}

#[test]
fn losses_and_accuracies() {
    let logits = || ones(&[2, 3]);
    let labels = |labels: &[i64]| Tensor::from_slice(labels);
    let loss = |y: Tensor, label: Tensor| OtttLoss::new(0.05, 6)?.forward(&y, &label).map(drop);
    check(&[
        (
            "lambda above 1",
            &|| OtttLoss::new(1.5, 6).map(drop),
            &["lambda is 1.5, expected a share from 0 to 1"],
        ),
        ("lambda NaN", &|| OtttLoss::new(f64::NAN, 6).map(drop), &["lambda is NaN"]),
        ("no steps", &|| OtttLoss::new(0.05, 0).map(drop), &["time_steps is 0, expected at least 1"]),
        (
            "a label too large",
            &|| loss(logits(), labels(&[0, 3])),
            &["the range of labels is 0 to 3", "class indices from 0 to 2"],
        ),
        (
            "a negative label",
            &|| loss(logits(), labels(&[0, -100])),
            &["the range of labels is -100 to 0", "0 to 2"],
        ),
        ("too few labels", &|| loss(logits(), labels(&[0])), &["labels has shape [1], expected [2]"]),
        ("labels of fractions", &|| loss(logits(), ones(&[2])), &["labels holds Float, expected Int64"]),
        ("outputs of images", &|| loss(ones(&[2, 3, 4]), labels(&[0, 1])), &["[B, C]", "[2, 3, 4]"]),
        (
            "accuracy of a sequence",
            &|| accuracy(&ones(&[2, 6, 3]), &labels(&[0, 1])).map(drop),
            &["logits has shape [2, 6, 3]", "sum the outputs over time"],
        ),
        (
            "accuracy of nothing",
            &|| accuracy(&ones(&[0, 3]), &labels(&[])).map(drop),
            &["logits", "at least one row"],
        ),
        (
            "too many labels",
            &|| accuracy(&logits(), &labels(&[0, 1, 2])).map(drop),
            &["labels has shape [3], expected [2]"],
        ),
        (
            "labels of another kind",
            &|| accuracy(&logits(), &labels(&[0, 1]).to_kind(Kind::Int)).map(drop),
            &["labels holds Int, expected Int64"],
        ),
        (
            "a label outside",
            &|| accuracy(&logits(), &labels(&[0, 3])).map(drop),
            &["class indices from 0 to 2"],
        ),
        (
            "k = 0",
            &|| top_k_accuracy(&logits(), &labels(&[0, 1]), 0).map(drop),
            &["k is 0, expected from 1 to 3"],
        ),
        ("k above the classes", &|| top_k_accuracy(&logits(), &labels(&[0, 1]), 4).map(drop), &["k is 4"]),
    ]);
}

/// FPTT looks at a step twice; the second look is as if it had never been, also where it fails.
#[test]
fn a_failed_second_look_leaves_the_state_of_the_step() {
    let vs = VarStore::new(Device::Cpu);
    let mut net = net(&vs);
    let x = numbers(&[2, 3, 4], 5).to_kind(Kind::Float);
    let state = |net: &mut OtttSequential| -> Vec<Tensor> {
        net.memories().into_iter().map(|memory| memory.get().unwrap().copy()).collect()
    };
    net.step(&x.get(0).into(), true).unwrap();
    let expected = state(&mut net);
    net.reset();

    for panics in [false, true] {
        let mut sgd = nn::Sgd::default().build(&vs, 0.0).unwrap();
        let mut averages = fptt_online_training_init_w_ra(&sgd);
        let calls = Cell::new(0);
        let loss = |y: &Tensor, target: &Tensor| {
            calls.set(calls.get() + 1);
            match calls.get() {
                2 if panics => panic!("no more"),
                2 => Err(Error::Gradient("no more".into())),
                _ => mse(y, target),
            }
        };
        let target = ones(&[2, 3, 3]);
        fptt_online_training(&mut net, &mut sgd, &x, &target, loss, 0.5, &mut averages).unwrap_err();
        assert_eq!(state(&mut net), expected);
        net.reset();
    }
}
