//! However many processes share a batch, training gives the same weights.

use std::path::Path;

use rstest::rstest;
use spiketrace::distributed::{Collectives, DataParallel, ShardedSampler, ShardedSamplerConfig};
use spiketrace::train::{
    bptt_training, fptt_online_training, fptt_online_training_init_w_ra, ottt_online_training,
    repeat_over_time, OtttLoss, OtttTrainingConfig, Sgd, SgdConfig, Update,
};
use spiketrace::{
    ws_conv2d, ws_linear, AvgPool2d, Flatten, OtttLifNode, OtttSequential, Part, Result, Scale,
    WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, numbers};

use super::processes::Processes;

const TIME_STEPS: i64 = 4;
const CLASSES: i64 = 3;
const BATCH: i64 = 10;
const EPOCHS: u64 = 5;

#[derive(Debug, Clone, Copy)]
enum Loop {
    /// OTTT_O.
    EveryStep,
    /// OTTT_A.
    EndOfSequence,
    /// OTTT_A with several steps a pass.
    Passes,
    Bptt,
    Fptt,
}

const LOOPS: [Loop; 5] = [Loop::EveryStep, Loop::EndOfSequence, Loop::Passes, Loop::Bptt, Loop::Fptt];

fn mlp(p: &nn::Path) -> Result<OtttSequential> {
    Ok(OtttSequential::new()
        .add(Flatten::default())
        .add(ws_linear(p / "1", 36, 16, Default::default())?)
        .add(OtttLifNode::new(Default::default())?)
        .add(Scale(2.74))
        .add(nn::linear(p / "4", 16, CLASSES, Default::default())))
}

fn vgg(p: &nn::Path) -> Result<OtttSequential> {
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    Ok(OtttSequential::new()
        .add(ws_conv2d(p / "0", 1, 4, 3, same)?)
        .add(OtttLifNode::new(Default::default())?)
        .add(Scale(2.74))
        .add(AvgPool2d::new(2, Default::default())?)
        .add(ws_conv2d(p / "4", 4, 6, 3, same)?)
        .add(OtttLifNode::new(Default::default())?)
        .add(Scale(2.74))
        .add(Flatten::default())
        .add(nn::linear(p / "8", 54, CLASSES, Default::default())))
}

type Build = fn(&nn::Path) -> Result<OtttSequential>;

/// 50 batches; the weights before and after.
fn train(group: &dyn Collectives, build: Build, how: Loop, kind: Kind) -> Result<[Vec<Tensor>; 2]> {
    // Only rank 0 begins with the right weights.
    tch::manual_seed(group.rank());
    let mut vs = VarStore::new(Device::Cpu);
    let mut net = build(&vs.root())?;
    vs.set_kind(kind);
    if group.rank() == 0 {
        fill(&net, 0.5);
    }
    // 10 batches an epoch; the last one has 1 sample, which leaves ranks without, or, for FPTT, 5.
    let samples = if let Loop::Fptt = how { 95 } else { 91 };
    let images = (numbers(&[samples, 1, 6, 6], 50) + 1.0).to_kind(kind);
    let labels = images.flatten(1, -1).matmul(&numbers(&[36, CLASSES], 51).to_kind(kind)).argmax(1, false);

    let config = SgdConfig { lr: 0.005, momentum: 0.5, weight_decay: 1e-3, ..Default::default() };
    let mut optimizer = DataParallel::new(group, &net, Sgd::new(&vs.trainable_variables(), config)?)?;
    let weights = |net: &OtttSequential| net.parameters().iter().map(|p| p.tensor.detach().copy()).collect();
    let before = weights(&net);
    let config = ShardedSamplerConfig { batch: BATCH, seed: 5, shuffle: true };
    let sampler = ShardedSampler::new(group, samples, config)?;
    let loss = OtttLoss::new(0.1, TIME_STEPS)?;
    let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
    let mut averages = fptt_online_training_init_w_ra(&optimizer);
    for indices in (0..EPOCHS).flat_map(|epoch| sampler.epoch(epoch)) {
        if indices.size()[0] == 0 {
            optimizer.sit_out(match how {
                Loop::EveryStep => TIME_STEPS,
                Loop::EndOfSequence | Loop::Passes | Loop::Bptt => 1,
                Loop::Fptt => unreachable!("no rank is left out"),
            })?;
            continue;
        }
        let x = repeat_over_time(&images.index_select(0, &indices), TIME_STEPS)?;
        let label = repeat_over_time(&labels.index_select(0, &indices), TIME_STEPS)?;
        let update = match how {
            Loop::Bptt => {
                bptt_training(&mut net, &mut optimizer, &x, &label, loss)?;
                net.reset();
                continue;
            }
            Loop::Fptt => {
                let (x, label) = (x.transpose(0, 1).contiguous(), label.transpose(0, 1).contiguous());
                let _ = fptt_online_training(&mut net, &mut optimizer, &x, &label, loss, 0.5, &mut averages)?;
                net.reset();
                continue;
            }
            Loop::EveryStep => Update::EveryStep.into(),
            Loop::EndOfSequence => Update::EndOfSequence.into(),
            Loop::Passes => OtttTrainingConfig { update: Update::EndOfSequence, steps_per_pass: 3 },
        };
        ottt_online_training(&mut net, &mut optimizer, &x, &label, loss, update)?;
        net.reset();
    }
    optimizer.expect_identical()?;
    Ok([before, weights(&net)])
}

fn cases() -> impl Iterator<Item = (String, Build, Loop, Kind)> {
    let nets: [(&str, Build); 2] = [("mlp", mlp), ("vgg", vgg)];
    nets.into_iter().flat_map(|(name, build)| {
        LOOPS.into_iter().flat_map(move |how| {
            // In f32 a rounding can grow beyond the bound, the sooner the less a loop is damped.
            let kinds: &[Kind] = match how {
                Loop::Bptt | Loop::Fptt => &[Kind::Double],
                _ => &[Kind::Double, Kind::Float],
            };
            kinds.iter().map(move |&kind| (format!("{name}, {how:?}, {kind:?}"), build, how, kind))
        })
    })
}

pub fn job(group: &dyn Collectives, folder: &Path) -> Result<()> {
    for (name, build, how, kind) in cases() {
        let [before, after] = train(group, build, how, kind)?;
        let named: Vec<(String, &Tensor)> = [("before", &before), ("after", &after)]
            .into_iter()
            .flat_map(|(when, all)| {
                all.iter().enumerate().map(move |(i, tensor)| (format!("{when} {i}"), tensor))
            })
            .collect();
        Tensor::write_safetensors(&named, folder.join(format!("{name} {}", group.rank())))?;
    }
    Ok(())
}

#[rstest]
#[case(2)]
#[case(4)]
fn n_processes_learn_the_same_weights_as_one(#[case] n: usize) {
    let (alone, together) = (Processes::start(1, "train"), Processes::start(n, "train"));
    let (alone, together) = (alone.succeed(), together.succeed());
    for (name, _, _, kind) in cases() {
        let mut worst = 0.0f64;
        let read = |folder: &tempfile::TempDir, rank: usize| {
            let mut all = Tensor::read_safetensors(folder.path().join(format!("{name} {rank}"))).unwrap();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        let expected = read(&alone, 0);
        let ranks: Vec<_> = (0..n).map(|rank| read(&together, rank)).collect();
        let tolerance = if kind == Kind::Double { 1e-10 } else { 1e-6 };
        let half = expected.len() / 2;
        for (i, (what, expected_values)) in expected.iter().enumerate() {
            for rank in &ranks {
                assert_eq!(rank[i], ranks[0][i], "{name}: {what}: ranks differ in bits");
            }
            let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
            let difference = largest(&(&ranks[0][i].1 - expected_values)) / largest(expected_values).max(1.0);
            worst = worst.max(difference);
            if i < half {
                let moved = largest(&(&expected[half + i].1 - expected_values));
                assert!(moved > 1e-4, "{name}: {what} moved by {moved:e} only");
            }
        }
        println!("{name}: {n} processes differ by {worst:.1e}");
        assert!(worst <= tolerance, "{name}: {worst:e}");
    }
}
