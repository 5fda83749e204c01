//! The networks: weight-standardized layers, a neuron of the method's kind, a linear readout.

use anyhow::Result;
use spiketrace::{
    ws_conv2d, ws_linear, AvgPool2d, Dropout, Feedback, Flatten, NdotLifConfig, NdotLifNode, OtttLifNode,
    OtttSequential, Scale, SlttLifConfig, SlttLifNode, WsConv2dConfig,
};
use tch::nn::{self, Init, Path};

use crate::options::{Method, Preset, Settings};

/// What the OTTT networks multiply spikes by, so that standardized layers keep their scale. A readout, which is not
/// standardized, learns worse with it.
const SPIKE_SCALE: f64 = 2.74;
const CLASSES: i64 = 10;

pub fn build(p: &Path, settings: &Settings) -> Result<OtttSequential> {
    let spiking = |net: OtttSequential| -> Result<OtttSequential> {
        Ok(match settings.method {
            Method::OtttA | Method::OtttO | Method::Bptt => net.add(OtttLifNode::new(Default::default())?),
            Method::NdotA | Method::NdotO => net.add(NdotLifNode::new(NdotLifConfig::default())?),
            // The same dynamics, so that only the rule differs.
            Method::Sltt | Method::SlttK => net.add(SlttLifNode::new(SlttLifConfig {
                decay_input: false,
                v_reset: None,
                ..Default::default()
            })?),
        })
    };
    let dropped = |net: OtttSequential| -> Result<OtttSequential> {
        Ok(if settings.dropout > 0.0 { net.add(Dropout::new(settings.dropout)?) } else { net })
    };
    let net = OtttSequential::new();
    Ok(match settings.preset {
        Preset::R400 => {
            // Starts at zero, as the feedback of the paper's VGG-F.
            let zero = nn::LinearConfig { ws_init: Init::Const(0.0), bias: false, ..Default::default() };
            let back = nn::linear(p / "recurrent", 400, 400, zero);
            net.add(Flatten::default())
                .add(ws_linear(p / "hidden", 784, 400, Default::default())?)
                .add(Feedback::new(back, dropped(spiking(OtttSequential::new())?)?))
                .add(nn::linear(p / "readout", 400, CLASSES, Default::default()))
        }
        Preset::Mlp => {
            let hidden = ws_linear(p / "hidden", 784, 400, Default::default())?;
            let readout = nn::linear(p / "readout", 400, CLASSES, Default::default());
            dropped(spiking(net.add(Flatten::default()).add(hidden))?)?.add(readout)
        }
        Preset::Conv => {
            let same = WsConv2dConfig { padding: 1, ..Default::default() };
            let pooled = |net: OtttSequential| -> Result<OtttSequential> {
                dropped(spiking(net)?.add(Scale(SPIKE_SCALE)).add(AvgPool2d::new(2, Default::default())?))
            };
            let net = pooled(net.add(ws_conv2d(p / "conv1", 1, 16, 3, same)?))?;
            let net = pooled(net.add(ws_conv2d(p / "conv2", 16, 64, 3, same)?))?;
            let net = dropped(spiking(net.add(ws_conv2d(p / "conv3", 64, 128, 3, same)?))?)?;
            net.add(Flatten::default()).add(nn::linear(
                p / "readout",
                128 * 7 * 7,
                CLASSES,
                Default::default(),
            ))
        }
    })
}
