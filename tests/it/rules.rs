//! NDOT and SLTT-K against their equations.

use rstest::rstest;
use spiketrace::model::{
    OtttSpikingVgg, OtttSpikingVggConfig, SpikingNeuron, VggArchitecture, VggClassifier, VggStage,
};
use spiketrace::train::{
    ottt_online_training, repeat_over_time, sltt_k_training, Optimizer, OtttTrainingConfig, Sgd, SgdConfig,
    Update,
};
use spiketrace::{
    ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Flatten, NdotLifConfig, NdotLifNode, OnlineModule,
    OtttLifNode, OtttSequential, Part, Scale, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, mse, numbers, DOUBLE};
use crate::parity::fixture::relative_difference;

/// A VGG of NDOT neurons against its modules one after another in a container; one step a pass, and three.
#[rstest]
fn a_vgg_learns_by_ndot_as_the_network_written_out(#[values(1, 3)] steps_per_pass: i64) {
    let ndot = || NdotLifConfig { v_threshold: 0.2, ..Default::default() };
    let run = |build: &dyn Fn(&VarStore) -> Box<dyn OnlineModule>, steps_per_pass| {
        let mut vs = VarStore::new(Device::Cpu);
        let mut net = build(&vs);
        vs.double();
        fill(&net, 1.0);
        let x = numbers(&[2, 6, 3, 8, 8], 1) + 0.5;
        let target = numbers(&[2, 6, 4], 2);
        let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
        let out = ottt_online_training(&mut net, &mut sgd(&vs), &x, &target, mse, config).unwrap();
        let grads = net.parameters().into_iter().map(|p| (p.name, p.tensor.grad()));
        (out.outputs, grads.collect::<Vec<_>>())
    };
    let architecture = VggArchitecture {
        cfg: &[VggStage::Conv(5), VggStage::AvgPool, VggStage::Conv(6)],
        weight_standardization: true,
        classifier: VggClassifier::Light,
    };
    let vgg = |vs: &VarStore| -> Box<dyn OnlineModule> {
        let spiking_neuron = SpikingNeuron::Ndot(ndot());
        let config = OtttSpikingVggConfig { num_classes: 4, spiking_neuron, ..Default::default() };
        Box::new(OtttSpikingVgg::new(vs.root(), architecture, config).unwrap())
    };
    let by_hand = |vs: &VarStore| -> Box<dyn OnlineModule> {
        let (p, padded) = (vs.root(), WsConv2dConfig { padding: 1, ..Default::default() });
        let node = || NdotLifNode::new(ndot()).unwrap();
        let net = OtttSequential::new()
            .add(ws_conv2d(&p / 0, 3, 5, 3, padded).unwrap())
            .add(node())
            .add(Scale(2.74))
            .add(AvgPool2d::new(2, Default::default()).unwrap())
            .add(ws_conv2d(&p / 1, 5, 6, 3, padded).unwrap())
            .add(node())
            .add(Scale(2.74))
            .add(AdaptiveAvgPool2d::new([1, 1]).unwrap())
            .add(Flatten::default())
            .add(nn::linear(&p / 2, 6, 4, Default::default()));
        Box::new(net)
    };
    let ((outputs, grads), (expected, expected_grads)) = (run(&vgg, steps_per_pass), run(&by_hand, 1));
    assert!(relative_difference(&outputs, &expected) <= 1e-12);
    for ((name, grad), (_, expected)) in grads.iter().zip(&expected_grads) {
        assert!(expected.abs().max().double_value(&[]) > 0.0, "the gradient of {name} says nothing");
        assert!(relative_difference(grad, expected) <= 1e-10, "{name}: {grad} instead of {expected}");
    }
}

fn sgd(vs: &VarStore) -> Sgd {
    Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.0, ..Default::default() }).unwrap()
}

/// What one neuron was seen to do at a step: the potential before it (none at first), its spike, the potential behind it.
type Seen = (Option<f64>, f64, f64);

/// The traces of one neuron, number by number, from how its potential moved.
fn ndot_traces(seen: &[Seen], tau: f64, rest: f64) -> Vec<f64> {
    let most = 1.0 - 1.0 / tau;
    let (mut a, mut fading) = (0.0, most);
    let mut traces = Vec::new();
    for &(before, s, v) in seen {
        // The potential's way up to this step, not that of this step.
        a = fading * a + s;
        fading = match before {
            Some(before) if before != rest => ((v - rest) / (before - rest)).clamp(-most, most),
            _ => most,
        };
        traces.push(a);
    }
    traces
}

#[rstest]
fn ndots_trace_fades_by_the_clamped_ratio_of_potentials(
    #[values((Kind::Float, 1e-6), (Kind::Double, 1e-14))] (kind, tolerance): (Kind, f64),
    #[values(None, Some(0.0), Some(-0.3))] v_reset: Option<f64>,
    #[values(false, true)] decay_input: bool,
) {
    let config = || NdotLifConfig { tau: 3.0, decay_input, v_reset, ..Default::default() };
    let (mut node, mut ottt) = (NdotLifNode::new(config()).unwrap(), OtttLifNode::new(config()).unwrap());
    let doubles = |x: &Tensor| Vec::<f64>::try_from(x.detach().to_kind(Kind::Double)).unwrap();
    // The first neuron comes to rest also where the reset is soft: it is at the threshold at once.
    let x = (Tensor::randn([9, 40], DOUBLE) + 1.0).to_kind(kind);
    let _ = x.get(0).get(0).fill_(if decay_input { 3.0 } else { 1.0 });
    let (mut seen, mut got) = (vec![Vec::<Seen>::new(); 40], Vec::new());
    for t in 0..9 {
        let x = x.get(t).into();
        let before = node.v().map(doubles);
        let (out, of_ottt) = (node.step(&x, true).unwrap(), ottt.step(&x, true).unwrap());
        // A ratio over a small potential is as uncertain as that is: the node's own, which are OTTT's to the bit.
        assert_eq!((out.value(), node.v()), (of_ottt.value(), ottt.v()));
        let (s, v) = (doubles(out.value()), doubles(node.v().unwrap()));
        for (i, seen) in seen.iter_mut().enumerate() {
            seen.push((before.as_ref().map(|before| before[i]), s[i], v[i]));
        }
        got.push(out.trace().unwrap().to_kind(Kind::Double));
    }
    let rest = Tensor::from(v_reset.unwrap_or(0.0)).to_kind(kind).double_value(&[]);
    assert!(seen.iter().flatten().any(|(before, ..)| *before == Some(rest)), "some come to rest");
    let expected: Vec<f64> = seen.iter().flat_map(|seen| ndot_traces(seen, config().tau, rest)).collect();
    let expected = Tensor::from_slice(&expected).view([40, 9]);
    let difference = relative_difference(&Tensor::stack(&got, 1), &expected);
    assert!(difference < tolerance, "{difference:e}");
}

#[test]
fn weights_behind_ndot_learn_from_its_trace_and_those_before_through_the_spike() {
    let mut vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let mut net = OtttSequential::new()
        .add(nn::linear(&p / 0, 5, 8, Default::default()))
        .add(NdotLifNode::new(NdotLifConfig { v_threshold: 0.4, ..Default::default() }).unwrap())
        .add(nn::linear(&p / 2, 8, 3, Default::default()));
    vs.double();
    let x = Tensor::randn([4, 6, 5], DOUBLE) * 2.0;
    let target = Tensor::randn([4, 6, 3], DOUBLE);
    ottt_online_training(&mut net, &mut sgd(&vs), &x, &target, mse, Update::EndOfSequence).unwrap();
    let of = |name: &str| vs.variables()[name].detach();
    let mut node = NdotLifNode::new(NdotLifConfig { v_threshold: 0.4, ..Default::default() }).unwrap();
    let (mut d_out, mut d_in) = (of("2.weight").zeros_like(), of("0.weight").zeros_like());
    for t in 0..6 {
        let x = x.select(1, t);
        let u = x.linear(&of("0.weight"), Some(of("0.bias")));
        let before = node.v().map_or(u.zeros_like(), Tensor::copy);
        let out = node.step(&(&u).into(), true).unwrap();
        let y = out.value().linear(&of("2.weight"), Some(of("2.bias")));
        let g = (&y - target.select(1, t)) * (2.0 / y.numel() as f64);
        d_out += g.tr().matmul(out.trace().unwrap());
        let sigmoid = ((before * 0.5 + u - 0.4) * 4.0).sigmoid();
        let g: Tensor = g.matmul(&of("2.weight")) * &sigmoid * (1.0 - &sigmoid) * 4.0;
        d_in += g.tr().matmul(&x);
    }
    for (name, expected) in [("2.weight", d_out), ("0.weight", d_in)] {
        let difference = relative_difference(&vs.variables()[name].grad(), &expected);
        assert!(difference < 1e-10, "{name} differs by {difference:e}");
    }
}

#[test]
fn ndot_is_ottt_while_potentials_keep_falling_slower_than_the_leak() {
    // A steady input below the threshold: the ratio is clamped to the leak at every step.
    let (mut ndot, mut ottt) =
        (NdotLifNode::new(Default::default()).unwrap(), OtttLifNode::new(Default::default()).unwrap());
    for x in [1.5, 0.3, 0.3, 0.3] {
        let x = Tensor::from_slice(&[x]).into();
        let (a, b) = (ndot.step(&x, true).unwrap(), ottt.step(&x, true).unwrap());
        assert_eq!(a.trace(), b.trace());
    }
}

#[test]
fn an_ndot_node_goes_on_from_the_state_it_is_given() {
    let (mut first, mut second) =
        (NdotLifNode::new(Default::default()).unwrap(), NdotLifNode::new(Default::default()).unwrap());
    let x: spiketrace::Signal = Tensor::from_slice(&[1.5, 0.75]).into();
    first.step(&x, true).unwrap();
    second.set_v(&first.v().unwrap().copy());
    second.set_trace(&first.trace().unwrap().copy());
    // Behind one step the trace fades by the leak, which is what a given trace does.
    for _ in 0..3 {
        let outs = [&mut first, &mut second].map(|node| node.step(&x, true).unwrap());
        assert_eq!((outs[0].value(), outs[0].trace()), (outs[1].value(), outs[1].trace()));
    }
    second.reset();
    second.set_trace(&Tensor::ones([3], DOUBLE));
    let error = second.step(&x, true).unwrap_err().to_string();
    assert!(error.contains("NdotLifNode's trace"), "{error}");
}

/// An SLTT network on a constant input, all of whose first layer is made once.
fn sltt(k: Option<i64>, seed: i64) -> (Vec<Tensor>, Tensor, Tensor) {
    let mut vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let mut net = OtttSequential::new()
        .add(ws_linear(&p / 0, 5, 8, Default::default()).unwrap())
        .add(SlttLifNode::new(Default::default()).unwrap())
        .add(nn::linear(&p / 2, 8, 3, Default::default()));
    vs.double();
    fill(&net, 3.0);
    let x = repeat_over_time(&(numbers(&[4, 5], 10) * 4.0), 6).unwrap();
    let target = numbers(&[4, 6, 3], 11);
    let mut sgd = sgd(&vs);
    tch::manual_seed(seed);
    let out = match k {
        Some(k) => sltt_k_training(&mut net, &mut sgd, &x, &target, mse, k),
        None => ottt_online_training(&mut net, &mut sgd, &x, &target, mse, Update::EndOfSequence),
    };
    let out = out.unwrap();
    (Optimizer::parameters(&sgd).iter().map(Tensor::grad).collect(), out.loss, out.outputs)
}

#[test]
fn sltt_k_at_all_steps_is_sltt() {
    let ((k_grads, k_loss, k_outputs), (grads, loss, outputs)) = (sltt(Some(6), 1), sltt(None, 1));
    assert_eq!(k_outputs, outputs);
    assert!(relative_difference(&k_loss, &loss) < 1e-12);
    for (k, grad) in k_grads.iter().zip(&grads) {
        assert!(relative_difference(k, grad) < 1e-12);
    }
}

#[rstest]
fn sltt_k_sums_the_gradients_of_k_different_steps(#[values(1, 2, 5)] k: i64) {
    let (_, _, outputs) = sltt(None, 1);
    // With k = 1 each draw is the gradient and the loss of one step; all six turn up.
    let mut singles: Vec<(Tensor, Tensor)> = Vec::new();
    for seed in 0..200 {
        let (mut grads, loss, _) = sltt(Some(1), seed);
        if singles.iter().all(|(other, _)| relative_difference(other, &grads[0]) > 1e-9) {
            singles.push((grads.remove(0), loss));
        }
    }
    assert_eq!(singles.len(), 6);
    let mut drawn = std::collections::HashSet::new();
    for seed in 0..40 {
        let (grads, loss, k_outputs) = sltt(Some(k), seed);
        assert_eq!(k_outputs, outputs, "all steps run forward");
        let sums = |set: u32| {
            let chosen = (0..6).filter(|i| set & (1 << i) != 0).map(|i| &singles[i]);
            let none = (grads[0].zeros_like(), loss.zeros_like());
            chosen.fold(none, |sums, (grad, loss)| (sums.0 + grad, sums.1 + loss))
        };
        let subsets = (1u32..64).filter(|set| set.count_ones() as i64 == k);
        let explains = |set: &u32| relative_difference(&grads[0], &sums(*set).0) < 1e-9;
        let matching: Vec<u32> = subsets.filter(explains).collect();
        assert_eq!(matching.len(), 1, "one set of {k} steps explains the gradient");
        assert!(relative_difference(&loss, &sums(matching[0]).1) < 1e-9, "and the loss is theirs");
        drawn.extend(matching);
    }
    assert!(drawn.len() > 3, "the steps are drawn anew");
}

#[rstest]
fn sltt_k_wants_a_count_of_steps_there_are(#[values(0, 7, -1)] k: i64) {
    let vs = VarStore::new(Device::Cpu);
    let mut net = nn::linear(vs.root(), 5, 3, Default::default());
    let x = Tensor::ones([4, 6, 5], (Kind::Float, Device::Cpu));
    let target = Tensor::ones([4, 6, 3], (Kind::Float, Device::Cpu));
    let error = sltt_k_training(&mut net, &mut sgd(&vs), &x, &target, mse, k).unwrap_err().to_string();
    assert_eq!(error, format!("k is {k}, expected from 1 to 6, the count of time steps"));
}
