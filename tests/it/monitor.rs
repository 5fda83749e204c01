//! What a monitor records, against the numbers themselves.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{
    bptt_training, evaluate, ottt_online_training, repeat_over_time, OtttTrainingConfig, Sgd, SgdConfig,
    Update,
};
use spiketrace::{
    Error, Feedback, Memory, Monitor, MonitorConfig, OnlineModule, OtttLifNode, OtttSequential, Part, Pass,
    Result, Scale, Signal, SlttLifNode,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{mse, FLOAT};

fn node() -> OtttLifNode {
    OtttLifNode::new(Default::default()).unwrap()
}

fn every(every: u64) -> Monitor {
    Monitor::new(MonitorConfig { every }).unwrap()
}

/// The number recorded last under a name.
fn last(monitor: &Monitor, name: &str, quantity: &str) -> f64 {
    let mut found = monitor.records().iter().rev().filter(|r| r.name == name && r.quantity == quantity);
    found.next().unwrap_or_else(|| panic!("no {quantity} of {name}")).value
}

#[rstest]
fn spikes_and_potentials_are_those_of_the_neurons(
    #[values(None, Some(2.74), Some(-0.5), Some(0.0), Some(1e-60), Some(f64::INFINITY))] scale: Option<f64>,
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
) {
    // One neuron that never fires, one that always does, and two in between.
    let x = Tensor::from_slice2(&[[0.0f32, 9.0, 0.6, 1.2], [-1.0, 3.0, 0.7, 0.2]]);
    let mut net = OtttSequential::new().add(node());
    if let Some(scale) = scale {
        net = net.add(Scale(scale));
    }
    let mut monitor = every(1);
    let run = |net: &mut OtttSequential| (0..5).try_for_each(|_| net.step(&(&x).into(), true).map(drop));
    with_fast_paths(paths, || monitor.watch(&mut net, run)).unwrap();

    let (mut alone, mut spikes, mut potentials) = (node(), Vec::new(), Vec::new());
    for _ in 0..5 {
        spikes.push(alone.step(&(&x).into(), true).unwrap().into_value());
        potentials.push(alone.v().unwrap().copy());
    }
    let (spikes, v) = (Tensor::stack(&spikes, 0), Tensor::stack(&potentials, 0).to_kind(Kind::Double));
    let expected = [
        ("rate", spikes.mean(Kind::Double)),
        ("silent", Tensor::from(0.25)),
        ("saturated", Tensor::from(0.25)),
        ("v_mean", v.mean(Kind::Double)),
        ("v_std", v.std(false)),
        ("v_min", v.min()),
        ("v_max", v.max()),
    ];
    assert_eq!(monitor.records().len(), expected.len());
    for (quantity, expected) in expected {
        let (got, expected) = (last(&monitor, "0", quantity), expected.double_value(&[]));
        assert!((got - expected).abs() < 1e-5, "{quantity}: {got} for {expected}");
    }
}

#[rstest]
fn images_are_counted_alike_however_they_lie(
    #[values(Kind::Float, Kind::Double)] kind: Kind,
    #[values(1, 9)] batch: i64,
) {
    // More than a piece of a sweep.
    let x = (Tensor::randn([batch, 5, 13, 11], (kind, Device::Cpu)) + 0.5).contiguous();
    let over_two_steps = |x: &Tensor, paths: FastPaths| {
        let (mut net, mut monitor) = (node(), every(1));
        let run = |node: &mut OtttLifNode| {
            node.step(&x.into(), true)?;
            node.step(&x.into(), true)
        };
        with_fast_paths(paths, || monitor.watch(&mut net, run)).unwrap();
        monitor.records().iter().map(|record| (record.quantity, record.value)).collect::<Vec<_>>()
    };
    let expected = over_two_steps(&x, FastPaths::NONE);
    let channels_last = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let samples_last = x.permute([1, 2, 3, 0]).contiguous().permute([3, 0, 1, 2]);
    for x in [&x, &channels_last, &samples_last, &Tensor::cat(&[&x, &x], 2).narrow(2, 0, 13)] {
        for ((quantity, got), (_, expected)) in over_two_steps(x, FastPaths::default()).iter().zip(&expected)
        {
            assert!(
                (got - expected).abs() < 1e-5,
                "{quantity}: {got} for {expected}, strides {:?}",
                x.stride()
            );
        }
    }
}

fn deep(vs: &VarStore) -> OtttSequential {
    let p = vs.root();
    let linear = |name: i64, from, to| nn::linear(&p / name, from, to, Default::default());
    let inner = OtttSequential::new().add(linear(1, 8, 8)).add(SlttLifNode::new(Default::default()).unwrap());
    OtttSequential::new()
        .add(linear(0, 5, 8))
        .add(node())
        .add(inner)
        .add(linear(2, 8, 6))
        .add(Feedback::new(linear(3, 6, 6), OtttSequential::new().add(node()).add(Scale(2.0))))
        .add(linear(4, 6, 2))
}

#[rstest]
#[case::online(Some(Update::EveryStep))]
#[case::accumulated(Some(Update::EndOfSequence))]
#[case::through_time(None)]
fn layers_and_parameters_go_by_their_paths(#[case] update: Option<Update>) {
    let vs = VarStore::new(Device::Cpu);
    let mut net = deep(&vs);
    let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default()).unwrap();
    let x = repeat_over_time(&(Tensor::randn([4, 5], FLOAT) * 4.0), 3).unwrap();
    let target = Tensor::ones([4, 3, 2], FLOAT);
    let mut monitor = every(1);
    let train = |net: &mut OtttSequential| match update {
        Some(update) => ottt_online_training(net, &mut sgd, &x, &target, mse, update),
        None => bptt_training(net, &mut sgd, &x, &target, mse),
    };
    monitor.watch(&mut net, train).unwrap();
    let of = |quantity: &str| {
        let records = monitor.records().iter().filter(|record| record.quantity == quantity);
        records.map(|record| record.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("rate"), ["1", "2.1", "4.block.0"]);
    let parameters: Vec<String> = net.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(of("grad_norm"), parameters);
    for p in net.parameters() {
        let expected = p.tensor.grad().norm().double_value(&[]);
        assert!((last(&monitor, &p.name, "grad_norm") - expected).abs() < 1e-6, "{}", p.name);
    }
}

/// Two neurons that no container tells apart.
#[derive(Debug)]
struct Pair(OtttLifNode, OtttLifNode);

impl OnlineModule for Pair {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        let spike = self.0.pass(x, pass)?.into_value();
        self.1.pass(&spike.into(), pass)
    }
}

impl Part for Pair {
    fn memories(&mut self) -> Vec<&mut Memory> {
        self.0.memories().into_iter().chain(self.1.memories()).collect()
    }
}

#[test]
fn named_modules_neurons_at_one_place_and_inputs_of_another_size_are_told_apart() {
    let inner = OtttSequential::new().add_named("fire", node()).unwrap().add(Pair(node(), node()));
    let mut net = OtttSequential::new().add_named("features", inner).unwrap();
    let mut monitor = every(1);
    let run = |net: &mut OtttSequential| {
        net.step(&Tensor::ones([2, 3], FLOAT).into(), true)?;
        net.reset();
        net.step(&Tensor::zeros([2, 5], FLOAT).into(), true)
    };
    monitor.watch(&mut net, run).unwrap();
    let rates = monitor.records().iter().filter(|record| record.quantity == "rate");
    let rates: Vec<_> = rates.map(|record| (&*record.name, record.value)).collect();
    let [fire, pair] = ["features.fire", "features.1"];
    let expected = [
        (fire.to_owned(), 1.0),
        (pair.to_owned(), 1.0),
        (format!("{pair}#2"), 1.0),
        (format!("{fire}#2"), 0.0),
        (format!("{pair}#3"), 0.0),
        (format!("{pair}#4"), 0.0),
    ];
    assert_eq!(rates, expected.each_ref().map(|(name, rate)| (&**name, *rate)));
}

#[rstest]
fn spikes_in_half_precision_are_all_counted(#[values(1.0, 2.74)] scale: f64) {
    // bfloat16 itself counts to 256, and 2.74 is 2.734 in it.
    let x = Tensor::full([1031, 2], 9.0, (Kind::BFloat16, Device::Cpu)).into();
    let mut net = OtttSequential::new().add(node()).add(Scale(scale));
    let mut monitor = every(1);
    monitor.watch(&mut net, |net| net.step(&x, true)).unwrap();
    assert_eq!(["rate", "saturated"].map(|quantity| last(&monitor, "0", quantity)), [1.0, 1.0]);
}

#[rstest]
fn what_is_no_number_is_not_hidden(
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
    #[values(f32::NAN, f32::INFINITY)] bad: f32,
) {
    let x: Signal = Tensor::from_slice2(&[[0.2, 0.3, 0.1], [0.2, bad, 0.1]]).into();
    let mut net = node();
    let mut monitor = every(1);
    with_fast_paths(paths, || monitor.watch(&mut net, |net| net.step(&x, true))).unwrap();
    for quantity in ["v_mean", "v_std", "v_min", "v_max"] {
        assert!(last(&monitor, "", quantity).is_nan(), "{quantity}");
    }
}

#[rstest]
fn long_calls_lose_no_digits(#[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths) {
    // The first potential is 0.7, and each next one as well.
    let steps = [0.7f32, 0.35].map(|x| Signal::from(Tensor::full([500, 3], f64::from(x), FLOAT)));
    let mut net = node();
    let mut monitor = every(1);
    let run = |net: &mut OtttLifNode| {
        net.step(&steps[0], true)?;
        (0..2000).try_for_each(|_| net.step(&steps[1], true).map(drop))
    };
    with_fast_paths(paths, || monitor.watch(&mut net, run)).unwrap();
    for (quantity, expected) in [("v_mean", 0.7), ("v_std", 0.0), ("v_min", 0.7), ("v_max", 0.7)] {
        let got = last(&monitor, "", quantity);
        assert!((got - expected).abs() < 1e-6, "{quantity}: {got}");
    }
}

#[test]
fn several_steps_a_pass_count_the_same_spikes() {
    let x = repeat_over_time(&((Tensor::arange(20, FLOAT) * 7.7).sin().view([4, 5]) * 4.0), 6).unwrap();
    let target = Tensor::ones([4, 6, 5], FLOAT);
    let rates = [1, 3, 6].map(|steps_per_pass| {
        let vs = VarStore::new(Device::Cpu);
        let config = nn::LinearConfig { ws_init: nn::Init::Const(0.3), ..Default::default() };
        let config = nn::LinearConfig { bs_init: Some(nn::Init::Const(0.1)), ..config };
        let mut net = OtttSequential::new().add(nn::linear(vs.root(), 5, 5, config)).add(node());
        let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default()).unwrap();
        let mut monitor = every(1);
        let config = OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass };
        let train = |net: &mut OtttSequential| ottt_online_training(net, &mut sgd, &x, &target, mse, config);
        monitor.watch(&mut net, train).unwrap();
        ["rate", "silent", "saturated"].map(|quantity| last(&monitor, "1", quantity))
    });
    assert!(rates[0][0] > 0.0);
    assert_eq!(rates[0], rates[1]);
    assert_eq!(rates[0], rates[2]);
}

#[test]
fn only_every_nth_call_is_recorded_and_nothing_outside() {
    let mut net = OtttSequential::new().add(node());
    let x = repeat_over_time(&Tensor::ones([2, 3], FLOAT), 2).unwrap();
    let mut monitor = every(3);
    for _ in 0..7 {
        let _ = evaluate(&mut net, &x).unwrap();
        let _ = monitor.watch(&mut net, |net| evaluate(net, &x)).unwrap();
    }
    let mut calls: Vec<u64> = monitor.records().iter().map(|record| record.call).collect();
    calls.dedup();
    assert_eq!(calls, [0, 3, 6]);
}

#[test]
fn a_failed_call_leaves_no_record_and_no_watch_behind() {
    let mut net = OtttSequential::new().add(node());
    let x: spiketrace::Signal = Tensor::ones([2, 3], FLOAT).into();
    let mut monitor = every(1);
    let fail = |net: &mut OtttSequential| {
        net.step(&x, true)?;
        Err::<(), _>(Error::Gradient("none".into()))
    };
    assert_eq!(monitor.watch(&mut net, fail).unwrap_err().to_string(), "none");
    let panics = std::panic::AssertUnwindSafe(|| monitor.watch::<_, (), Error>(&mut net, |_| panic!("oh")));
    assert!(std::panic::catch_unwind(panics).is_err());
    net.step(&x, true).unwrap();
    assert!(monitor.records().is_empty());
    monitor.watch(&mut net, |net| net.step(&x, true)).unwrap();
    assert_eq!(last(&monitor, "0", "rate"), 1.0);
}

#[test]
fn a_module_that_panics_leaves_no_name_behind() {
    #[derive(Debug)]
    struct Panics(bool);

    impl Part for Panics {}

    impl spiketrace::Layer for Panics {
        fn forward(&mut self, x: &Tensor, _: bool) -> Result<Tensor> {
            assert!(!std::mem::take(&mut self.0), "once");
            Ok(x.shallow_clone())
        }
    }

    let mut net = OtttSequential::new().add(OtttSequential::new().add(Panics(true))).add(node());
    let x: Signal = Tensor::ones([2, 3], FLOAT).into();
    let mut monitor = every(1);
    let run = |net: &mut OtttSequential| {
        assert!(net.step(&x, true).is_err());
        net.step(&x, true)
    };
    monitor.watch(&mut net, run).unwrap();
    assert_eq!(last(&monitor, "1", "rate"), 1.0);
}

#[test]
fn records_can_be_taken_out() {
    let mut net = OtttSequential::new().add(node());
    let x: Signal = Tensor::ones([2, 3], FLOAT).into();
    let mut monitor = every(2);
    monitor.watch(&mut net, |net| net.step(&x, true)).unwrap();
    assert!(monitor.take_records().iter().all(|record| record.call == 0));
    assert!(monitor.records().is_empty());
    for _ in 0..2 {
        monitor.watch(&mut net, |net| net.step(&x, true)).unwrap();
    }
    assert!(!monitor.records().is_empty() && monitor.records().iter().all(|record| record.call == 2));
}

#[test]
fn the_file_has_a_line_for_each_record() {
    let mut net = OtttSequential::new().add_named("a,\"b\"", node()).unwrap();
    let x: spiketrace::Signal = Tensor::ones([2, 3], FLOAT).into();
    let mut monitor = every(1);
    monitor.watch(&mut net, |net| net.step(&x, true)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("monitor.csv");
    monitor.write_csv(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["call,name,quantity,value", r#"0,"a,""b""",rate,1"#, r#"0,"a,""b""",silent,0"#]);
    assert_eq!(lines.len(), 1 + monitor.records().len());
    let error = monitor.write_csv(folder.path()).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    let never = Monitor::new(MonitorConfig { every: 0 }).unwrap_err();
    assert_eq!(never.to_string(), "Monitor's every is 0, expected at least 1");
}
