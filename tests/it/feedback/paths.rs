//! The same learning by every path: constants as they are, images with channels last, fused and composed.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{
    bptt_training, evaluate, ottt_online_training, repeat_over_time, Sgd, SgdConfig, Update,
};
use spiketrace::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Feedback, Flatten, OtttLifNode,
    OtttSequential, Part, Scale, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use super::{node, BATCH, TIME_STEPS};
use crate::common::{fill, mse, numbers, DOUBLE, FLOAT};
use crate::parity::fixture::relative_difference;

#[rstest]
#[case::online(Some(Update::EveryStep))]
#[case::accumulated(Some(Update::EndOfSequence))]
#[case::through_time(None)]
fn a_constant_image_learns_as_its_repetition(#[case] update: Option<Update>) {
    let run = |constant: bool| {
        let mut vs = VarStore::new(Device::Cpu);
        let p = vs.root();
        let back = nn::linear(&p / "back", 8, 8, Default::default());
        let mut net = OtttSequential::new()
            .add(ws_linear(&p / "in", 5, 8, Default::default()).unwrap())
            .add(Feedback::new(back, node()))
            .add(nn::linear(&p / "out", 8, 3, Default::default()));
        vs.double();
        fill(&net, 1.0);
        let x = repeat_over_time(&numbers(&[BATCH, 5], 9), TIME_STEPS).unwrap();
        let x = if constant { x } else { x.contiguous() };
        let target = Tensor::ones([BATCH, TIME_STEPS, 3], DOUBLE);
        let config = SgdConfig { lr: 0.1, ..Default::default() };
        let mut sgd = Sgd::new(&vs.trainable_variables(), config).unwrap();
        match update {
            Some(update) => ottt_online_training(&mut net, &mut sgd, &x, &target, mse, update).unwrap(),
            None => bptt_training(&mut net, &mut sgd, &x, &target, mse).unwrap(),
        };
        net.reset();
        let weights: Vec<Tensor> = net.parameters().iter().map(|p| p.tensor.detach()).collect();
        (weights, evaluate(&mut net, &x).unwrap())
    };
    let ((weights, answer), (expected, expected_answer)) = (run(true), run(false));
    assert!(relative_difference(&answer, &expected_answer) < 1e-10);
    for (got, expected) in weights.iter().zip(&expected) {
        assert!(relative_difference(got, expected) < 1e-10);
    }
}

/// Convolutions, pooled, whose output comes back enlarged: the shape of VGG-F.
fn images() -> (VarStore, OtttSequential) {
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let conv = nn::ConvConfig { padding: 1, ..Default::default() };
    let enlarge = nn::func(|x| x.upsample_nearest2d([32, 32], None, None));
    let back = OtttSequential::new()
        .add(with_parameters("Upsample", enlarge, Vec::new()).samplewise())
        .add(nn::conv2d(&p / "back", 5, 3, 3, conv));
    let block = OtttSequential::new()
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.74))
        .add(AvgPool2d::new(2, Default::default()).unwrap())
        .add(ws_conv2d(&p / "2", 3, 5, 3, same).unwrap())
        .add(OtttLifNode::new(Default::default()).unwrap())
        .add(Scale(2.74));
    let net = OtttSequential::new()
        .add(ws_conv2d(&p / "1", 2, 3, 3, same).unwrap())
        .add(Feedback::new(back, block))
        .add(AdaptiveAvgPool2d::new([1, 1]).unwrap())
        .add(Flatten::default())
        .add(nn::linear(&p / "out", 5, 3, Default::default()));
    (vs, net)
}

#[rstest]
fn images_feed_back_the_same_on_every_path(
    #[values(Update::EveryStep, Update::EndOfSequence)] update: Update,
) {
    // Large enough for channels to lie last.
    let x = repeat_over_time(&(numbers(&[4, 2, 32, 32], 0) * 2.0).to_kind(Kind::Float), 3).unwrap();
    let target = Tensor::ones([4, 3, 3], FLOAT);
    let moves = [FastPaths::default(), FastPaths::NONE].map(|paths| {
        let (vs, mut net) = images();
        fill(&net, 1.0);
        let config = SgdConfig { lr: 0.01, ..Default::default() };
        let mut sgd = Sgd::new(&vs.trainable_variables(), config).unwrap();
        let before: Vec<Tensor> = net.parameters().iter().map(|p| p.tensor.detach().copy()).collect();
        with_fast_paths(paths, || {
            ottt_online_training(&mut net, &mut sgd, &x, &target, mse, update).unwrap()
        });
        let moved = net.parameters().into_iter().zip(before);
        moved.map(|(p, before)| (p.name, p.tensor.detach() - before)).collect::<Vec<_>>()
    });
    for ((name, fast), (_, plain)) in moves[0].iter().zip(&moves[1]) {
        // Rounding may flip a spike or two of ten thousands.
        let difference = relative_difference(fast, plain);
        assert!(plain.abs().max().double_value(&[]) > 0.0, "{name} did not move");
        assert!(difference < 1e-2, "{name} differs by {difference:e}");
    }
}
