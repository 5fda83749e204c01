//! The networks of the comparison, as `reference.py` builds them with SpikingJelly.

use anyhow::{bail, Result};
use spiketrace::{
    ws_conv2d, AdaptiveAvgPool2d, AvgPool2d, Flatten, OtttLifNode, OtttSequential, Scale, WsConv2dConfig,
};
use tch::nn::{linear, Path};

pub fn build(network: &str, p: &Path) -> Result<OtttSequential> {
    match network {
        "vgg" => vgg(p),
        "mlp1" | "mlp64" => mlp(p),
        "conv" => conv(p),
        _ => bail!("no network {network}"),
    }
}

/// The OTTT family's weight-standardized VGG ("S") for 32x32 images.
fn vgg(p: &Path) -> Result<OtttSequential> {
    let mut net = OtttSequential::new();
    let mut channels = 3;
    for block in [&[64, 128][..], &[256, 256], &[512, 512], &[512, 512]] {
        if channels > 3 {
            net = net.add(AvgPool2d::new(2, Default::default())?);
        }
        for &out in block {
            net = spiking_conv(net, p, channels, out)?;
            channels = out;
        }
    }
    Ok(net.add(AdaptiveAvgPool2d::new([1, 1])?).add(Flatten::default()).add(linear(
        p / "fc",
        channels,
        10,
        Default::default(),
    )))
}

fn mlp(p: &Path) -> Result<OtttSequential> {
    Ok(OtttSequential::new()
        .add(linear(p / "0", 784, 512, Default::default()))
        .add(OtttLifNode::new(Default::default())?)
        .add(linear(p / "2", 512, 512, Default::default()))
        .add(OtttLifNode::new(Default::default())?)
        .add(linear(p / "4", 512, 10, Default::default())))
}

/// The conv network of `examples/train.rs` on 28x28 images.
fn conv(p: &Path) -> Result<OtttSequential> {
    let net = spiking_conv(OtttSequential::new(), p, 1, 24)?.add(AvgPool2d::new(2, Default::default())?);
    let net = spiking_conv(net, p, 24, 48)?.add(AvgPool2d::new(2, Default::default())?);
    Ok(net.add(Flatten::default()).add(linear(p / "fc", 48 * 7 * 7, 10, Default::default())))
}

fn spiking_conv(net: OtttSequential, p: &Path, channels: i64, out: i64) -> Result<OtttSequential> {
    let same = WsConv2dConfig { padding: 1, ..Default::default() };
    let layer = ws_conv2d(p / net.len(), channels, out, 3, same)?;
    Ok(net.add(layer).add(OtttLifNode::new(Default::default())?).add(Scale(2.74)))
}
