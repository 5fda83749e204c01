//! What libtorch refuses, and what tch would panic on: undefined tensors, too little memory, closures.

use rstest::rstest;
use spiketrace::surrogate::{heaviside, spike, DeterministicPass};
use spiketrace::train::{ottt_online_training, OtttLoss, Update};
use spiketrace::*;
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

use super::*;

type Use = fn() -> Result<()>;

fn step(module: &mut impl OnlineModule, x: &Tensor) -> Result<()> {
    module.step(&x.into(), true).map(drop)
}

fn pair(spike: Tensor, trace: Tensor) -> Signal {
    Signal::SpikeTrace { spike, trace }
}

fn vs() -> VarStore {
    VarStore::new(Device::Cpu)
}

fn linear() -> nn::Linear {
    nn::linear(vs().root(), 4, 2, Default::default())
}

fn conv(groups: i64) -> nn::Conv2D {
    nn::conv2d(vs().root(), 4, 2, 3, nn::ConvConfig { groups, ..Default::default() })
}

fn ws_conv() -> WsConv2d {
    ws_conv2d(vs().root(), 4, 2, 3, Default::default()).unwrap()
}

fn node() -> OtttLifNode {
    OtttLifNode::new(Default::default()).unwrap()
}

fn labels(count: i64) -> Tensor {
    Tensor::zeros([count], (Kind::Int64, Device::Cpu))
}

/// tch's infallible interface panics on them nearly everywhere.
#[rstest]
#[case::linear(|| step(&mut linear(), &Tensor::new()))]
#[case::conv(|| step(&mut conv(1), &Tensor::new()))]
#[case::ws_linear(|| step(&mut ws_linear(vs().root(), 4, 2, Default::default())?, &Tensor::new()))]
#[case::ws_conv(|| step(&mut ws_conv(), &Tensor::new()))]
#[case::batch_norm(|| step(&mut nn::batch_norm1d(vs().root(), 4, Default::default()), &Tensor::new()))]
#[case::avg_pool(|| step(&mut AvgPool2d::new(2, Default::default())?, &Tensor::new()))]
#[case::adaptive_pool(|| step(&mut AdaptiveAvgPool2d::new([2, 2])?, &Tensor::new()))]
#[case::flatten(|| step(&mut Flatten::default(), &Tensor::new()))]
#[case::scale(|| step(&mut Scale(2.0), &Tensor::new()))]
#[case::dropout(|| step(&mut Dropout::new(0.5)?, &Tensor::new()))]
#[case::dropout2d(|| step(&mut Dropout2d::new(0.5)?, &Tensor::new()))]
#[case::node(|| step(&mut node(), &Tensor::new()))]
#[case::node_that_has_a_trace(|| { let mut node = node(); step(&mut node, &ones(&[2]))?; step(&mut node, &Tensor::new()) })]
#[case::trace(|| GradWithTrace::new(linear()).step(&pair(ones(&[2, 4]), Tensor::new()), true).map(drop))]
#[case::spike_of_a_pair(|| SpikeTraceOp::new(Scale(2.0)).step(&pair(Tensor::new(), ones(&[2])), true).map(drop))]
#[case::replaced(|| replace_for_grad(&Tensor::new(), &ones(&[2])).map(drop))]
#[case::both_replaced(|| replace_for_grad(&Tensor::new(), &Tensor::new()).map(drop))]
#[case::heaviside(|| heaviside(&Tensor::new()).map(drop))]
#[case::spike(|| spike(&Tensor::new(), DeterministicPass {}).map(drop))]
#[case::repeat(|| train::repeat_over_time(&Tensor::new(), 2).map(drop))]
#[case::evaluate(|| train::evaluate(&mut Identity, &Tensor::new()).map(drop))]
#[case::logits(|| train::accuracy(&Tensor::new(), &labels(2)).map(drop))]
#[case::labels(|| train::accuracy(&ones(&[2, 2]), &Tensor::new()).map(drop))]
#[case::loss_outputs(|| OtttLoss::new(0.0, 1)?.forward(&Tensor::new(), &labels(2)).map(drop))]
#[case::loss_labels(|| OtttLoss::new(0.0, 1)?.forward(&ones(&[2, 2]), &Tensor::new()).map(drop))]
#[case::gradcheck(|| gradcheck(|x| Ok(x[0].shallow_clone()), &[Tensor::new()], Default::default()))]
#[case::gradchecks_output(
    || gradcheck(|_| Ok(Tensor::new()), &[ones(&[1]).to_kind(Kind::Double).set_requires_grad(true)], Default::default()))]
fn an_undefined_tensor_is_refused_by(#[case] wrong_use: Use) {
    check(&[("undefined", &wrong_use, &["undefined"])]);
}

/// 256 TiB, by a view of one number: the first copy of it fails.
fn too_large(size: &[i64]) -> Tensor {
    ones(&[1]).expand(size, false)
}

const LARGE: i64 = 1 << 46;

/// tch's `f_mul_scalar` and its kin panic where libtorch fails.
#[rstest]
#[case::scale(|| step(&mut Scale(2.0), &too_large(&[LARGE])))]
#[case::dropout(|| step(&mut Dropout::new(0.5)?, &too_large(&[LARGE])))]
#[case::dropout_of_channels(|| step(&mut Dropout2d::new(0.5)?, &too_large(&[1, LARGE, 1, 1])))]
#[case::node(|| step(&mut node(), &too_large(&[LARGE])))]
#[case::node_with_a_state(|| { let mut node = node(); node.set_v(&too_large(&[LARGE])); step(&mut node, &too_large(&[LARGE])) })]
#[case::heaviside(|| heaviside(&too_large(&[LARGE])).map(drop))]
#[case::spike(|| spike(&too_large(&[LARGE]), DeterministicPass {}).map(drop))]
#[case::loss(|| OtttLoss::new(0.5, 1)?.forward(&too_large(&[1, LARGE]), &labels(1)).map(drop))]
fn too_little_memory_is_an_error_of(#[case] wrong_use: Use) {
    check(&[("too large", &wrong_use, &["libtorch", "memory"])]);
}

/// A layer of one's own that panics, on the trace alone or on both.
#[derive(Debug)]
struct Panics {
    parameters: bool,
}

impl Layer for Panics {
    fn forward(&mut self, _: &Tensor, _: bool) -> Result<Tensor> {
        panic!("my own mistake")
    }
}

impl Part for Panics {
    fn variables(&self) -> Vec<Variable> {
        self.parameters.then(|| Variable::parameter("weight", &ones(&[1]))).into_iter().collect()
    }
}

#[test]
fn what_panics_inside_a_loop_is_an_error_with_its_place() {
    let network = |parameters| OtttSequential::new().add(node()).add(Panics { parameters });
    let train = |net: &mut OtttSequential, loss: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let mut sgd = nn::Sgd::default().build(&vs(), 0.1)?;
        let (x, target) = (ones(&[2, 3, 4]), ones(&[2, 3, 2]));
        ottt_online_training(net, &mut sgd, &x, &target, loss, Update::EveryStep).map(drop)
    };
    let mine = |_: &Tensor, _: &Tensor| panic!("my own loss");
    let tchs = |y: &Tensor, target: &Tensor| Ok(y.mse_loss(target, Reduction::Mean));
    let in_evaluation = || train::evaluate(&mut network(false), &ones(&[2, 3, 4])).map(drop);
    check(&[
        ("a layer", &|| train(&mut network(false), mine), &["layer 1: Panics:", "panicked: my own mistake"]),
        (
            "a layer with weights",
            &|| train(&mut network(true), mine),
            &["layer 1: Panics:", "my own mistake"],
        ),
        ("in evaluation", &in_evaluation, &["layer 1: Panics:", "my own mistake"]),
        ("a loss", &|| train(&mut OtttSequential::new(), mine), &["the loss panicked: my own loss"]),
        ("tch's loss", &|| train(&mut OtttSequential::new(), tchs), &["libtorch: the loss:", "size"]),
    ]);
}

/// The first pass through a weighted layer is one without gradients: a panic in it must not keep them off.
#[rstest]
fn a_panic_does_not_stop_the_recording_of_gradients(#[values(true, false)] parameters: bool) {
    let mut net = OtttSequential::new().add(node()).add(Panics { parameters });
    step(&mut net, &ones(&[2])).unwrap_err();
    assert!((ones(&[1]).set_requires_grad(true) * 2.0).requires_grad());
}

#[rstest]
#[case::channels(|| step(&mut conv(1), &ones(&[1, 8, 8, 8])), &["Conv2d(4 -> 2, [3, 3])", "[1, 8, 8, 8]", "4 channels"])]
#[case::no_channels(|| step(&mut conv(1), &ones(&[1, 0, 8, 8])), &["Conv2d(4 -> 2, [3, 3])", "[1, 0, 8, 8]"])]
#[case::layer_norm(|| step(&mut nn::layer_norm(vs().root(), vec![4], Default::default()), &ones(&[2, 3])), &["LayerNorm([4])", "[2, 3]"])]
#[case::group_norm(|| step(&mut nn::group_norm(vs().root(), 2, 4, Default::default()), &ones(&[2, 3])), &["GroupNorm(2 groups, 4)", "[2, 3]"])]
#[case::a_block(|| step(&mut with_parameters("Block", nn::seq().add(linear()), vec![]), &ones(&[2, 5])), &["Block", "2x5 and 4x2"])]
#[case::no_height(|| step(&mut AdaptiveAvgPool2d::new([2, 2])?, &ones(&[1, 1, 0, 4])), &["[1, 1, 0, 4]"])]
#[case::whole_outputs(|| OtttLoss::new(0.5, 1)?.forward(&ones(&[2, 2]).to_kind(Kind::Int64), &labels(2)).map(drop), &["output", "Int64"])]
fn what_only_libtorch_sees_is_an_error_without_its_backtrace(#[case] wrong_use: Use, #[case] words: &[&str]) {
    check(&[("refused", &wrong_use, words)]);
}

#[rstest]
#[case::kernel(|| ws_conv2d(vs().root(), 4, 2, 1 << 32, Default::default()).map(drop), &["WsConv2d's weight", "4294967296"])]
#[case::features(|| ws_linear(vs().root(), i64::MAX, 2, Default::default()).map(drop), &[])]
#[case::pool(
    || step(&mut AvgPool2d::new(i64::MAX, PoolConfig { padding: i64::MAX / 2, ..Default::default() })?, &ones(&[1, 1, 0, 2])),
    &["AvgPool2d"])]
fn sizes_beyond_all_measure_do_not_overflow(#[case] wrong_use: Use, #[case] words: &[&str]) {
    check(&[("size", &wrong_use, words)]);
}

/// An undefined state is named as the state, not as an unknown kind.
#[rstest]
#[case::v(|| { let mut node = node(); node.set_v(&Tensor::new()); step(&mut node, &ones(&[3])) }, &["membrane potential", "undefined"])]
#[case::trace(|| { let mut node = node(); node.set_trace(&Tensor::new()); step(&mut node, &ones(&[3])) }, &["OtttLifNode's trace", "undefined"])]
#[case::mask(|| { let mut dropout = Dropout::new(0.5)?; dropout.set_mask(&Tensor::new()); step(&mut dropout, &ones(&[2])) }, &["Dropout's mask", "undefined"])]
fn an_undefined_state_is_named(#[case] wrong_use: Use, #[case] words: &[&str]) {
    check(&[("state", &wrong_use, words)]);
}
