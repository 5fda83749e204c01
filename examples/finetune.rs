//! A checkpoint of PyTorch learns on, online.
//!
//! `examples/finetune/pretrain.py` trained a small spiking VGG on handwritten digits with SpikingJelly. Here a
//! camera is mounted the wrong way round: a stream of digits comes in, each seen once, mirrored. The weights
//! move after every time step, and the memory does not grow with the stream.

use anyhow::{ensure, Result};
use spiketrace::model::VggStage::{AvgPool, Conv};
use spiketrace::model::{OtttSpikingVgg, OtttSpikingVggConfig, VggArchitecture, VggClassifier};
use spiketrace::train::{
    accuracy, evaluate, ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update,
};
use spiketrace::{data::digits, LoadConfig, Part, StateDict};
use tch::nn::VarStore;
use tch::{Device, Tensor};

const TIME_STEPS: i64 = 6;

fn main() -> Result<()> {
    let vs = VarStore::new(Device::Cpu);
    let mut net = network(&vs)?;

    // Names, shapes and kinds must all fit, or nothing is loaded and the error says what does not.
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/finetune/checkpoint.pt");
    let report = StateDict::read(checkpoint)?.load_into(&net.variables(), LoadConfig::default())?;
    println!("{report}");

    let data = digits()?;
    let mirrored = data.test_images.flip([3]);
    let upright = right(&mut net, &data.test_images, &data.test_labels)?;
    let before = right(&mut net, &mirrored, &data.test_labels)?;
    println!("upright digits, as in PyTorch: {upright:.3}\nmirrored digits, before: {before:.3}");

    // The stream: one digit at a time, six time steps each, and on.
    let mut sgd =
        Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.005, momentum: 0.9, ..Default::default() })?;
    let loss = OtttLoss::new(0.0, TIME_STEPS)?;
    for i in 0..data.train_images.size()[0] {
        let (x, label) = (data.train_images.narrow(0, i, 1).flip([3]), data.train_labels.narrow(0, i, 1));
        let (x_seq, label_seq) = (repeat_over_time(&x, TIME_STEPS)?, repeat_over_time(&label, TIME_STEPS)?);
        let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        ottt_online_training(&mut net, &mut sgd, &x_seq, &label_seq, loss, Update::EveryStep)?;
        net.reset();
    }
    let after = right(&mut net, &mirrored, &data.test_labels)?;
    println!("mirrored digits, behind a stream of {}: {after:.3}", data.train_images.size()[0]);
    ensure!(upright > 0.9 && before < 0.6 && after > 0.85, "the network did not learn on");

    // And back: torch.load("learned.pt", weights_only=True).
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("learned.pt");
    StateDict::of(&net.variables()).write(&path)?;
    let again = VarStore::new(Device::Cpu);
    let mut again = network(&again)?;
    StateDict::read(&path)?.load_into(&again.variables(), LoadConfig::default())?;
    ensure!(right(&mut again, &mirrored, &data.test_labels)? == after, "the file holds another network");
    println!("saved for PyTorch under the same names");
    Ok(())
}

/// The network of the checkpoint: weight-standardized, one channel, 2x2 regions of the last image.
fn network(vs: &VarStore) -> Result<OtttSpikingVgg> {
    let cfg = &[Conv(16), AvgPool, Conv(32)];
    let architecture =
        VggArchitecture { cfg, weight_standardization: true, classifier: VggClassifier::Light };
    let config = OtttSpikingVggConfig { num_classes: 10, in_channels: 1, fc_hw: 2, ..Default::default() };
    Ok(OtttSpikingVgg::new(vs.root(), architecture, config)?)
}

/// The share of images whose class is found.
fn right(net: &mut OtttSpikingVgg, images: &Tensor, labels: &Tensor) -> Result<f64> {
    Ok(accuracy(&evaluate(net, &repeat_over_time(images, TIME_STEPS)?)?, labels)?)
}
