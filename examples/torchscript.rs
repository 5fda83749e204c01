//! A block that Python scripted learns on inside a spiking network.
//!
//! `examples/torchscript/block.py` wrote the block: two convolutions with a relu between them. Here it
//! stands between two layers of neurons and is trained with the rest, one time step at a time.

use anyhow::{ensure, Result};
use spiketrace::train::{
    accuracy, evaluate, ottt_online_training, repeat_over_time, OtttLoss, Sgd, SgdConfig, Update,
};
use spiketrace::{
    data::digits, ws_conv2d, AvgPool2d, Flatten, OtttLifConfig, OtttLifNode, OtttSequential, Part, Scale,
    ScriptConfig, ScriptModule, WsConv2dConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

const TIME_STEPS: i64 = 6;

fn main() -> Result<()> {
    tch::manual_seed(1);
    let vs = VarStore::new(Device::Cpu);
    let p = vs.root();

    // Its weights become variables under their own names; samplewise: each image by itself.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/torchscript/block.pt");
    let block = ScriptModule::load(&p / 3, file, ScriptConfig { samplewise: true, ..Default::default() })?;
    let handle = block.shallow_clone(); // to save it by
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let mut net = OtttSequential::new()
        .add(ws_conv2d(&p / 0, 1, 8, 3, same)?)
        .add(OtttLifNode::new(Default::default())?)
        .add(Scale(2.74))
        .add(block)
        .add(OtttLifNode::new(OtttLifConfig { v_threshold: 0.3, ..Default::default() })?) // the block speaks softly
        .add(AvgPool2d::new(2, Default::default())?)
        .add(Flatten::default())
        .add(nn::linear(&p / 7, 16 * 4 * 4, 10, Default::default()));
    println!("{net}"); // the block meets GradWithTrace, as any layer with weights

    // The optimizer sees the block's weights among the others.
    let before: Vec<Tensor> = in_block(&net).iter().map(Tensor::copy).collect();
    let mut sgd =
        Sgd::new(&vs.trainable_variables(), SgdConfig { lr: 0.05, momentum: 0.9, ..Default::default() })?;
    let loss = OtttLoss::new(0.05, TIME_STEPS)?;
    let data = digits()?;
    for epoch in 1..=3 {
        let mut sum = 0.0;
        for (x, labels) in data.train_iter(64).shuffle() {
            let (x_seq, label_seq) =
                (repeat_over_time(&x, TIME_STEPS)?, repeat_over_time(&labels, TIME_STEPS)?);
            let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
            let out = ottt_online_training(&mut net, &mut sgd, &x_seq, &label_seq, loss, Update::EveryStep)?;
            net.reset();
            sum += f64::try_from(&out.loss)?;
        }
        println!("epoch {epoch}: loss {:.3}", sum / 22.0);
    }
    let x_seq = repeat_over_time(&data.test_images, TIME_STEPS)?;
    let test = accuracy(&evaluate(&mut net, &x_seq)?, &data.test_labels)?;
    println!("test accuracy {test:.3}");
    ensure!(test > 0.85, "the digits were not learned");
    ensure!(in_block(&net).iter().zip(&before).all(|(now, then)| now != then), "the block did not learn");

    // Back to Python: torch.jit.load("block.pt").
    let folder = tempfile::tempdir()?;
    let learned = folder.path().join("block.pt");
    handle.save(&learned)?;
    let again = VarStore::new(Device::Cpu);
    let again = ScriptModule::load(again.root(), &learned, ScriptConfig::default())?;
    ensure!(again.parameters().iter().zip(in_block(&net)).all(|(a, b)| a.tensor == b), "the file differs");
    println!("the block, with what it learned, was saved as TorchScript");
    Ok(())
}

/// The block's weights.
fn in_block(net: &OtttSequential) -> Vec<Tensor> {
    net.parameters().into_iter().filter(|p| p.name.starts_with("3.")).map(|p| p.tensor).collect()
}
