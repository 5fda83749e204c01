//! The spiking VGG networks: names, outputs, losses and gradients.

use rstest::rstest;
use serde_json::Value;
use spiketrace::model::*;
use spiketrace::train::{
    bptt_training, ottt_online_training, repeat_over_time, OtttLoss, OtttTrainingConfig, Update,
};
use spiketrace::{OnlineModule, OtttLifConfig, Part, Signal, SlttLifConfig, Variable};
use tch::nn::{OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use super::all_agree;
use super::fixture::{manifest, Case};
use super::layers::var_store;

const TIME_STEPS: i64 = 6;

#[rstest]
fn vgg_agrees_with_spikingjelly(
    #[values(("f32", 1e-5), ("f64", 1e-10))] (dtype, tolerance): (&str, f64),
    #[values(one_step_a_pass, four_steps_a_pass, six_steps_a_pass)] replay: fn(&mut Case),
) {
    all_agree("models.json", "vgg", replay, dtype, tolerance);
}

fn one_step_a_pass(case: &mut Case) {
    vgg(case, 1);
}

fn four_steps_a_pass(case: &mut Case) {
    vgg(case, 4);
}

fn six_steps_a_pass(case: &mut Case) {
    vgg(case, 6);
}

fn vgg(case: &mut Case, steps_per_pass: i64) {
    let vs = var_store(case);
    let mut net = net(case, &vs);
    case.set(&net.parameters());
    let x = case.get("x");
    let x_seq = if case.flag("repeats") { repeat_over_time(&x, TIME_STEPS).unwrap() } else { x };
    set_masks(case, &mut net);
    learn(case, &vs, &mut net, &x_seq, steps_per_pass);
}

/// Trains on one sequence without moving the weights, and compares all that comes of it; then in evaluation.
pub fn learn(
    case: &mut Case,
    vs: &VarStore,
    net: &mut impl OnlineModule,
    x_seq: &Tensor,
    steps_per_pass: i64,
) {
    let target_seq = repeat_over_time(&case.get("target"), TIME_STEPS).unwrap();
    let mut still = tch::nn::Sgd::default().build(vs, 0.0).unwrap();
    let loss = OtttLoss::new(0.05, TIME_STEPS).unwrap();
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    let out = if case.flag("through_time") {
        bptt_training(net, &mut still, x_seq, &target_seq, loss)
    } else {
        let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
        ottt_online_training(net, &mut still, x_seq, &target_seq, loss, config)
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

fn net(case: &Case, vs: &VarStore) -> OtttSpikingVgg {
    let cfg: Vec<VggStage> = case.setting("cfg").as_array().unwrap().iter().map(stage).collect();
    let classifier = match case.option("hidden") {
        Some(hidden) => VggClassifier::Heavy { hidden: hidden as i64 },
        None => VggClassifier::Light,
    };
    let (tau, decay_input) = (case.number("tau"), case.flag("decay_input"));
    let (v_threshold, v_reset) = (case.number("v_threshold"), case.option("v_reset"));
    let spiking_neuron = if case.setting("node") == "ottt" {
        let config = OtttLifConfig { tau, decay_input, v_threshold, v_reset, ..Default::default() };
        SpikingNeuron::Ottt(config)
    } else {
        let config = SlttLifConfig { tau, decay_input, v_threshold, v_reset, ..Default::default() };
        SpikingNeuron::Sltt(config)
    };
    let config = OtttSpikingVggConfig {
        num_classes: 5,
        in_channels: case.number("in_channels") as i64,
        fc_hw: case.number("fc_hw") as i64,
        drop_rate: case.number("drop_rate"),
        spiking_neuron,
        ..Default::default()
    };
    let weight_standardization = case.flag("weight_standardization");
    let architecture = VggArchitecture { cfg: &cfg, weight_standardization, classifier };
    OtttSpikingVgg::new(vs.root(), architecture, config).unwrap()
}

fn stage(stage: &Value) -> VggStage {
    match stage.as_str() {
        Some("M") => VggStage::MaxPool,
        Some("A") => VggStage::AvgPool,
        _ => VggStage::Conv(stage.as_i64().unwrap()),
    }
}

/// Gives the dropouts the masks that SpikingJelly drew: one behind each neuron that has one.
fn set_masks(case: &mut Case, net: &mut OtttSpikingVgg) {
    let of_neuron = if case.setting("node") == "ottt" { 2 } else { 1 };
    let convs = case.setting("cfg").as_array().unwrap().iter().filter(|stage| stage.is_i64()).count();
    let dropped = usize::from(case.number("drop_rate") > 0.0);
    let (mut masks, mut memory) = (0, 0);
    let hidden = if case.option("hidden").is_some() { 2 } else { 0 };
    for mask in std::iter::repeat_n(dropped, convs).chain(std::iter::repeat_n(1, hidden)) {
        memory += of_neuron;
        if mask == 1 {
            net.memories()[memory].set(&case.get(&format!("mask.{masks}")));
            masks += 1;
            memory += 1;
        }
    }
    assert_eq!(memory, net.memories().len());
}

/// All nine with the names and shapes of SpikingJelly's state dicts, in their order; the classifiers are narrow, for 4096
/// neurons take half a gigabyte each.
#[rstest]
#[case("ottt_spiking_vggws", VggArchitecture::VGGWS)]
#[case("ottt_spiking_vgg11", VggArchitecture::VGG11)]
#[case("ottt_spiking_vgg11_ws", VggArchitecture::VGG11_WS)]
#[case("ottt_spiking_vgg13", VggArchitecture::VGG13)]
#[case("ottt_spiking_vgg13_ws", VggArchitecture::VGG13_WS)]
#[case("ottt_spiking_vgg16", VggArchitecture::VGG16)]
#[case("ottt_spiking_vgg16_ws", VggArchitecture::VGG16_WS)]
#[case("ottt_spiking_vgg19", VggArchitecture::VGG19)]
#[case("ottt_spiking_vgg19_ws", VggArchitecture::VGG19_WS)]
fn parameters_are_named_as_in_spikingjellys_state_dict(
    #[case] name: &str,
    #[case] architecture: VggArchitecture<'_>,
) {
    const NARROW: i64 = 3;
    let classifier = match architecture.classifier {
        VggClassifier::Heavy { hidden } => {
            assert_eq!(hidden, 4096);
            VggClassifier::Heavy { hidden: NARROW }
        }
        light => light,
    };
    let vs = VarStore::new(Device::Cpu);
    let config = OtttSpikingVggConfig { num_classes: 10, init_weights: false, ..Default::default() };
    let net = OtttSpikingVgg::new(vs.root(), VggArchitecture { classifier, ..architecture }, config).unwrap();
    let widened = |size: i64| if size == NARROW { 4096 } else { size };
    let ours: Vec<(String, Vec<i64>)> = net
        .parameters()
        .into_iter()
        // The images' channels are 3 as well.
        .map(|p| match p.name.starts_with("classifier") {
            true => (p.name, p.tensor.size().into_iter().map(widened).collect()),
            false => (p.name, p.tensor.size()),
        })
        .collect();
    let manifest = manifest("models.json");
    let theirs: Vec<(String, Vec<i64>)> = serde_json::from_value(manifest["names"][name].clone()).unwrap();
    assert_eq!(ours, theirs);

    let mut stored: Vec<String> = vs.variables().into_keys().collect();
    let mut names: Vec<String> = ours.into_iter().map(|(name, _)| name).collect();
    stored.sort();
    names.sort();
    assert_eq!(stored, names, "the VarStore has the same names");
}

/// The constructors of the widest and the smallest, as a user calls them.
#[test]
fn constructors_make_the_network_of_their_name() {
    let vs = VarStore::new(Device::Cpu);
    let config = OtttSpikingVggConfig { num_classes: 10, in_channels: 2, ..Default::default() };
    let mut net = ottt_spiking_vggws(vs.root(), config).unwrap();
    let y = net.step(&Tensor::rand([1, 2, 16, 16], (Kind::Float, Device::Cpu)).into(), true).unwrap();
    assert_eq!(y.value().size(), [1, 10]);
    assert_eq!(net.parameters()[0].tensor.size(), [64, 2, 3, 3]);
    assert!(net.to_string().contains("classifier.2"), "{net}");
}

/// Deviations of the draw against those of SpikingJelly's initialization.
#[rstest]
#[case(true, [(2.0f64 / (128.0 * 9.0)).sqrt(), 0.0, 0.01, 0.0])]
#[case(false, [(27.0f64 * 3.0).sqrt().recip(), (27.0f64 * 3.0).sqrt().recip(), (128.0f64 * 3.0).sqrt().recip(), (128.0f64 * 3.0).sqrt().recip()])]
fn weights_are_drawn_as_in_spikingjelly(#[case] init_weights: bool, #[case] deviations: [f64; 4]) {
    let vs = VarStore::new(Device::Cpu);
    let architecture = VggArchitecture {
        cfg: &[VggStage::Conv(128)],
        weight_standardization: false,
        classifier: VggClassifier::Light,
    };
    let config = OtttSpikingVggConfig { init_weights, num_classes: 200, ..Default::default() };
    let net = OtttSpikingVgg::new(vs.root(), architecture, config).unwrap();
    for (p, expected) in net.parameters().iter().zip(deviations) {
        let got = p.tensor.square().mean(Kind::Double).sqrt().double_value(&[]);
        assert!((got - expected).abs() <= 0.25 * expected, "{}: {got}, not {expected}", p.name);
    }
}

#[rstest]
#[case(&[], OtttSpikingVggConfig::default(), "cfg is [], expected at least one convolution")]
#[case(&[VggStage::Conv(0)], OtttSpikingVggConfig::default(), "a convolution's channels is 0, expected at least 1")]
#[case(&[VggStage::Conv(2)], OtttSpikingVggConfig { fc_hw: 0, ..Default::default() }, "fc_hw is 0, expected at least 1")]
#[case(&[VggStage::Conv(2)], OtttSpikingVggConfig { drop_rate: 1.0, ..Default::default() }, "drop_rate is 1, expected a probability from 0 to below 1")]
fn an_impossible_network_is_refused(
    #[case] cfg: &[VggStage],
    #[case] config: OtttSpikingVggConfig,
    #[case] sentence: &str,
) {
    let vs = VarStore::new(Device::Cpu);
    let classifier = VggClassifier::Light;
    let architecture = VggArchitecture { cfg, weight_standardization: true, classifier };
    let error = OtttSpikingVgg::new(vs.root(), architecture, config).unwrap_err();
    assert_eq!(error.to_string(), sentence);
    assert!(vs.is_empty(), "nothing was made");
}

#[test]
fn each_weight_of_either_classifier_finds_its_place() {
    let places = [
        (VggClassifier::Light, vec![("classifier.0.op", "classifier.2")]),
        (
            VggClassifier::Heavy { hidden: 2 },
            vec![
                ("classifier.0.op", "classifier.2"),
                ("classifier.4.op", "classifier.6"),
                ("classifier.8.op", "classifier.10"),
            ],
        ),
    ];
    for (classifier, places) in places {
        let vs = VarStore::new(Device::Cpu);
        let cfg = &[VggStage::Conv(2), VggStage::AvgPool, VggStage::Conv(2)];
        let architecture = VggArchitecture { cfg, weight_standardization: true, classifier };
        let config = OtttSpikingVggConfig { num_classes: 3, ..Default::default() };
        let net = OtttSpikingVgg::new(vs.root(), architecture, config).unwrap();
        let places: Vec<_> = places.into_iter().chain([("features.4.op", "features.4")]).collect();
        for Variable { name, .. } in net.parameters() {
            let theirs = places.iter().find_map(|(theirs, ours)| {
                Some(format!("{theirs}{}", name.strip_prefix(ours).filter(|rest| rest.starts_with('.'))?))
            });
            let theirs = theirs.unwrap_or_else(|| name.clone());
            assert_eq!(from_ottt_snn(&theirs), name);
            assert_eq!(from_ottt_snn(&name), name, "names of ours stay");
        }
    }
}
