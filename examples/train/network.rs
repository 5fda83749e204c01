//! The networks: weight-standardized layers, OTTT neurons, a linear readout.

use anyhow::Result;
use spiketrace::{
    ws_conv2d, ws_linear, AvgPool2d, Flatten, OtttLifNode, OtttSequential, Scale, WsConv2dConfig,
};
use tch::nn::{self, Path};
use tch::vision::dataset::Dataset;

use crate::options::{NetworkName, Settings};

/// What the OTTT networks multiply spikes by, so that standardized layers keep their scale.
const SPIKE_SCALE: f64 = 2.74;

pub fn build(p: &Path, settings: &Settings, data: &Dataset) -> Result<OtttSequential> {
    let size = data.train_images.size();
    let (channels, height, width) = (size[1], size[2], size[3]);
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let net = OtttSequential::new();
    Ok(match settings.network {
        NetworkName::Mlp => net
            .add(Flatten::default())
            .add(ws_linear(p / "1", channels * height * width, 256, Default::default())?)
            .add(OtttLifNode::new(Default::default())?)
            .add(Scale(SPIKE_SCALE))
            .add(nn::linear(p / "4", 256, data.labels, Default::default())),
        NetworkName::Conv => net
            .add(ws_conv2d(p / "0", channels, 24, 3, same)?)
            .add(OtttLifNode::new(Default::default())?)
            .add(Scale(SPIKE_SCALE))
            .add(AvgPool2d::new(2, Default::default())?)
            .add(ws_conv2d(p / "4", 24, 48, 3, same)?)
            .add(OtttLifNode::new(Default::default())?)
            .add(Scale(SPIKE_SCALE))
            .add(AvgPool2d::new(2, Default::default())?)
            .add(Flatten::default())
            .add(nn::linear(p / "9", 48 * (height / 4) * (width / 4), data.labels, Default::default())),
    })
}
