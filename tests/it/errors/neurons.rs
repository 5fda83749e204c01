use std::sync::Arc;

use spiketrace::surrogate::{
    spike, MultiLevelSpikeCount, PiecewiseQuadratic, Sigmoid, SquarewaveFourierSeries,
};
use spiketrace::{
    gradcheck, replace_for_grad, GradWithTrace, NdotLifConfig, NdotLifNode, OnlineModule, OtttLifConfig,
    OtttLifNode, Result, Scale, Signal, SlttLifConfig, SlttLifNode, SpikeTraceOp,
};
use tch::{nn, Device, Kind, Tensor};

use super::{check, ones, FLOAT};

fn ottt(config: OtttLifConfig) -> Result<()> {
    OtttLifNode::new(config).map(drop)
}

/// A node that has seen one input of shape [2, 3].
fn used() -> OtttLifNode {
    let mut node = OtttLifNode::new(Default::default()).unwrap();
    node.step(&ones(&[2, 3]).into(), true).unwrap();
    node
}

fn step(mut node: impl OnlineModule, x: Tensor) -> Result<()> {
    node.step(&x.into(), true).map(drop)
}

#[test]
fn options_of_neurons_and_surrogates() {
    let with_tau = |tau| ottt(OtttLifConfig { tau, ..Default::default() });
    let with_surrogate = |surrogate| ottt(OtttLifConfig { surrogate, ..Default::default() });
    check(&[
        (
            "tau NaN",
            &|| with_tau(f64::NAN),
            &["OtttLifNode's tau is NaN", "number of time steps, at least 1"],
        ),
        ("tau below 1", &|| with_tau(0.5), &["OtttLifNode's tau is 0.5", "at least 1"]),
        ("tau infinite", &|| with_tau(f64::INFINITY), &["tau is inf", "finite"]),
        (
            "tau of the SLTT node",
            &|| SlttLifNode::new(SlttLifConfig { tau: -2.0, ..Default::default() }).map(drop),
            &["SlttLifNode's tau is -2"],
        ),
        (
            "tau of the NDOT node",
            &|| NdotLifNode::new(NdotLifConfig { tau: 0.0, ..Default::default() }).map(drop),
            &["NdotLifNode's tau is 0"],
        ),
        (
            "threshold NaN",
            &|| ottt(OtttLifConfig { v_threshold: f64::NAN, ..Default::default() }),
            &["v_threshold is NaN, expected a finite number"],
        ),
        (
            "reset to infinity",
            &|| ottt(OtttLifConfig { v_reset: Some(f64::INFINITY), ..Default::default() }),
            &["v_reset is inf, expected a finite number"],
        ),
        (
            "alpha NaN",
            &|| with_surrogate(Arc::new(Sigmoid { alpha: f64::NAN })),
            &["the surrogate", "Sigmoid", "NaN"],
        ),
        (
            "alpha negative",
            &|| with_surrogate(Arc::new(PiecewiseQuadratic { alpha: -1.0 })),
            &["PiecewiseQuadratic"],
        ),
        (
            "no period",
            &|| with_surrogate(Arc::new(SquarewaveFourierSeries { n: 2, t_period: 0.0 })),
            &["t_period above 0"],
        ),
        (
            "no spike allowed",
            &|| with_surrogate(Arc::new(MultiLevelSpikeCount::new(0))),
            &["max_spike_count of at least 1"],
        ),
    ]);
}

#[test]
fn inputs_and_states_of_neurons() {
    let integers = || Tensor::ones([2], (Kind::Int64, Device::Cpu));
    check(&[
        ("integers into a neuron", &|| step(used(), integers()), &["OtttLifNode"]),
        (
            "integers into a fresh neuron",
            &|| step(OtttLifNode::new(Default::default())?, integers()),
            &["OtttLifNode's input holds Int64, expected a floating-point kind"],
        ),
        (
            "an empty batch",
            &|| step(OtttLifNode::new(Default::default())?, ones(&[0, 3])),
            &["OtttLifNode's input has shape [0, 3]", "at least one element"],
        ),
        (
            "an undefined tensor",
            &|| step(OtttLifNode::new(Default::default())?, Tensor::new()),
            &["undefined"],
        ),
        ("another batch size", &|| step(used(), ones(&[4, 3])), &["[2, 3]", "[4, 3]", "call reset()"]),
        (
            "another kind",
            &|| step(used(), ones(&[2, 3]).to_kind(Kind::Double)),
            &["Float", "Double", "reset()"],
        ),
        (
            "v of a wrong shape",
            &|| {
                let mut node = SlttLifNode::new(Default::default())?;
                node.set_v(&ones(&[7]));
                step(node, ones(&[2, 3]))
            },
            &["SlttLifNode's membrane potential v", "[7]", "[2, 3]"],
        ),
        (
            "a trace of a wrong shape",
            &|| {
                let mut node = used();
                node.set_trace(&ones(&[7]));
                step(node, ones(&[2, 3]))
            },
            &["OtttLifNode's trace", "[7]", "[2, 3]"],
        ),
        ("integers into a surrogate", &|| spike(&integers(), Sigmoid::default()).map(drop), &["holds Int64"]),
        ("nothing into a surrogate", &|| spike(&ones(&[0]), Sigmoid::default()).map(drop), &["shape [0]"]),
    ]);
}

#[test]
fn a_failed_step_leaves_the_state_as_it_was() {
    let mut node = used();
    let (v, trace) = (node.v().unwrap().copy(), node.trace().unwrap().copy());
    node.step(&ones(&[4, 3]).into(), true).unwrap_err();
    assert_eq!((node.v(), node.trace()), (Some(&v), Some(&trace)));
}

#[test]
fn pairs_of_tensors_that_do_not_fit() {
    let vs = nn::VarStore::new(Device::Cpu);
    let linear = || nn::linear(vs.root(), 3, 2, Default::default());
    let pair = |trace: Tensor| Signal::SpikeTrace { spike: ones(&[2, 3]), trace };
    let double = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Double, Device::Cpu));
    check(&[
        (
            "x_r of another shape",
            &|| replace_for_grad(&ones(&[2, 3]), &ones(&[3, 2])).map(drop),
            &["replace_for_grad's x_r has shape [3, 2], expected [2, 3]"],
        ),
        (
            "x_r that would broadcast",
            &|| replace_for_grad(&ones(&[2, 3]), &ones(&[1, 3])).map(drop),
            &["[1, 3]"],
        ),
        (
            "x_r of another kind",
            &|| replace_for_grad(&ones(&[2, 3]), &double([2, 3])).map(drop),
            &["holds Double, expected Float", "to_kind()"],
        ),
        (
            "x_r undefined",
            &|| replace_for_grad(&ones(&[2, 3]), &Tensor::new()).map(drop),
            &["x_r", "undefined"],
        ),
        (
            "a trace of another shape",
            &|| GradWithTrace::new(linear()).step(&pair(ones(&[2, 4])), true).map(drop),
            &["the trace has shape [2, 4], expected [2, 3]"],
        ),
        (
            "a trace of another kind",
            &|| SpikeTraceOp::new(Scale(1.0)).step(&pair(double([2, 3])), true).map(drop),
            &["the trace holds Double, expected Float"],
        ),
        (
            "gradcheck without a gradient",
            &|| gradcheck(|x| Ok(x[0].copy()), &[ones(&[2])], Default::default()),
            &["set_requires_grad(true)"],
        ),
        (
            "gradcheck in single precision",
            &|| {
                let x = Tensor::ones([2], FLOAT).set_requires_grad(true);
                gradcheck(|x| Ok(x[0].copy()), &[x], Default::default())
            },
            &["gradcheck's input 0 holds Float, expected Double"],
        ),
    ]);
}
