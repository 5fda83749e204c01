use spiketrace::{
    ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Flatten, Layer, MaxPool2d,
    OnlineModule, OtttLifNode, OtttSequential, PoolConfig, Result, Scale, WsConv2dConfig, WsLinearConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use super::{check, ones};

fn vs() -> VarStore {
    VarStore::new(Device::Cpu)
}

fn forward(mut layer: impl Layer, x: Tensor) -> Result<()> {
    layer.forward(&x, true).map(drop)
}

#[test]
fn options_of_layers() {
    let conv = |config| ws_conv2d(vs().root(), 4, 6, 3, config).map(drop);
    let linear = |from, to, eps| {
        ws_linear(vs().root(), from, to, WsLinearConfig { eps, ..Default::default() }).map(drop)
    };
    let pool = |ksize, stride, padding| {
        AvgPool2d::new(ksize, PoolConfig { stride, padding, ceil_mode: false }).map(drop)
    };
    let conv_config = WsConv2dConfig::default;
    check(&[
        ("ws_linear without features", &|| linear(0, 4, 1e-4), &["WsLinear's weight", "[4, 0]"]),
        ("ws_linear of one feature", &|| linear(1, 4, 1e-4), &["2 weights an output"]),
        ("ws_linear without outputs", &|| linear(4, 0, 1e-4), &["at least 1 output"]),
        ("ws_linear with a negative eps", &|| linear(4, 2, -1.0), &["WsLinear's eps is -1", "from 0 on"]),
        ("ws_linear with eps NaN", &|| linear(4, 2, f64::NAN), &["WsLinear's eps is NaN"]),
        (
            "ws_conv2d without a kernel",
            &|| ws_conv2d(vs().root(), 4, 6, 0, conv_config()).map(drop),
            &["WsConv2d's ksize is 0"],
        ),
        (
            "ws_conv2d stride 0",
            &|| conv(WsConv2dConfig { stride: 0, ..conv_config() }),
            &["WsConv2d's stride is 0, expected at least 1"],
        ),
        (
            "ws_conv2d negative padding",
            &|| conv(WsConv2dConfig { padding: -1, ..conv_config() }),
            &["padding is -1, expected at least 0"],
        ),
        (
            "ws_conv2d dilation 0",
            &|| conv(WsConv2dConfig { dilation: 0, ..conv_config() }),
            &["dilation is 0"],
        ),
        (
            "ws_conv2d groups",
            &|| conv(WsConv2dConfig { groups: 3, ..conv_config() }),
            &["groups is 3", "divisor of both 4 and 6"],
        ),
        (
            "ws_conv2d negative channels",
            &|| ws_conv2d(vs().root(), -4, 6, 3, conv_config()).map(drop),
            &["WsConv2d"],
        ),
        ("dropout of all", &|| Dropout::new(1.0).map(drop), &["Dropout's p is 1", "from 0 to below 1"]),
        ("dropout NaN", &|| Dropout::new(f64::NAN).map(drop), &["Dropout's p is NaN"]),
        ("dropout negative", &|| Dropout2d::new(-0.1).map(drop), &["Dropout2d's p is -0.1"]),
        ("pool of 0", &|| pool(0, None, 0), &["AvgPool2d's ksize is 0, expected at least 1"]),
        ("pool with stride 0", &|| pool(2, Some(0), 0), &["AvgPool2d's stride is 0"]),
        ("pool with too much padding", &|| pool(2, None, 2), &["AvgPool2d's padding is 2", "half of ksize"]),
        (
            "pool to nothing",
            &|| AdaptiveAvgPool2d::new([0, 1]).map(drop),
            &["AdaptiveAvgPool2d's output is [0, 1]"],
        ),
    ]);
}

#[test]
fn inputs_of_layers() {
    let conv = || nn::conv2d(vs().root(), 3, 4, 3, Default::default());
    let ws = || ws_conv2d(vs().root(), 3, 4, 3, Default::default());
    check(&[
        (
            "features",
            &|| forward(nn::linear(vs().root(), 4, 2, Default::default()), ones(&[2, 5])),
            &["Linear(4 -> 2)'s input has shape [2, 5], expected [.., 4]", "layer below"],
        ),
        (
            "kind",
            &|| {
                forward(
                    nn::linear(vs().root(), 4, 2, Default::default()),
                    ones(&[2, 4]).to_kind(Kind::Double),
                )
            },
            &["Linear(4 -> 2)'s input holds Double, expected Float"],
        ),
        (
            "a scalar",
            &|| forward(nn::linear(vs().root(), 4, 2, Default::default()), ones(&[])),
            &["shape []"],
        ),
        (
            "undefined",
            &|| forward(nn::linear(vs().root(), 4, 2, Default::default()), Tensor::new()),
            &["Linear(4 -> 2)'s input", "undefined"],
        ),
        (
            "features of ws_linear",
            &|| forward(ws_linear(vs().root(), 4, 2, Default::default())?, ones(&[2, 5])),
            &["WsLinear(4 -> 2)'s input has shape [2, 5], expected [.., 4]"],
        ),
        ("channels", &|| forward(conv(), ones(&[1, 4, 8, 8])), &["Conv2d(3 -> 4", "[1, 4, 8, 8]", "[N, 3]"]),
        ("dimensions", &|| forward(conv(), ones(&[3, 8])), &["Conv2d", "[3, 8]", "2 spatial dimensions"]),
        (
            "an image smaller than the kernel",
            &|| forward(conv(), ones(&[1, 3, 2, 2])),
            &["Conv2d", "Kernel size"],
        ),
        (
            "channels of a transposed convolution",
            &|| forward(nn::conv_transpose2d(vs().root(), 3, 4, 3, Default::default()), ones(&[1, 4, 8, 8])),
            &["ConvTranspose2d(3 -> 4", "[N, 3]"],
        ),
        (
            "channels of ws_conv2d",
            &|| forward(ws()?, ones(&[1, 4, 8, 8])),
            &["WsConv2d(3 -> 4, 3x3)'s input", "[N, 3, H, W]"],
        ),
        (
            "kind of ws_conv2d",
            &|| forward(ws()?, ones(&[1, 3, 8, 8]).to_kind(Kind::Half)),
            &["holds Half, expected Float"],
        ),
        (
            "channels of a normalization",
            &|| forward(nn::batch_norm2d(vs().root(), 3, Default::default()), ones(&[1, 4, 8, 8])),
            &["BatchNorm(3)"],
        ),
        (
            "fractions into an embedding",
            &|| forward(nn::embedding(vs().root(), 10, 4, Default::default()), ones(&[2])),
            &["Embedding(10, 4)"],
        ),
        (
            "an index outside an embedding",
            &|| forward(nn::embedding(vs().root(), 10, 4, Default::default()), Tensor::from_slice(&[10i64])),
            &["Embedding(10, 4)", "out of range"],
        ),
        (
            "a flat input to a pool",
            &|| forward(MaxPool2d::new(2, Default::default())?, ones(&[2, 5])),
            &["MaxPool2d's input has shape [2, 5], expected [N, C, H, W]"],
        ),
        (
            "an image smaller than the pool",
            &|| forward(AvgPool2d::new(4, Default::default())?, ones(&[1, 1, 3, 8])),
            &["AvgPool2d's input has shape [1, 1, 3, 8]", "at least 4", "fewer poolings"],
        ),
        (
            "a flat input to an adaptive pool",
            &|| forward(AdaptiveAvgPool2d::new([1, 1])?, ones(&[5])),
            &["AdaptiveAvgPool2d's input"],
        ),
        (
            "a flat input to dropout of channels",
            &|| forward(Dropout2d::new(0.5)?, ones(&[2, 5])),
            &["Dropout2d's input", "[N, C, H, W]"],
        ),
        (
            "a mask of another shape",
            &|| {
                let mut dropout = Dropout::new(0.5)?;
                dropout.set_mask(&ones(&[3]));
                forward(dropout, ones(&[2, 5]))
            },
            &["Dropout's mask", "[3]", "[2, 5]", "reset()"],
        ),
        (
            "too few dimensions to flatten",
            &|| forward(Flatten::default(), ones(&[3])),
            &["Flatten's input has shape [3]"],
        ),
        (
            "a closure that panics",
            &|| forward(nn::func(|_| panic!("out of luck")), ones(&[3])),
            &["Func panicked: out of luck"],
        ),
    ]);
}

#[test]
fn a_layer_deep_in_a_network_is_named_by_its_place() {
    let store = vs();
    let inner = OtttSequential::new().add(Scale(1.0)).add(nn::linear(store.root(), 4, 2, Default::default()));
    let mut net = OtttSequential::new().add(OtttLifNode::new(Default::default()).unwrap()).add(inner);
    let x = ones(&[2, 5]);
    let error = net.step(&x.into(), true).unwrap_err().to_string();
    let place = "layer 1: OtttSequential(2 modules): layer 1: Linear(4 -> 2)'s input has shape [2, 5]";
    assert!(error.starts_with(place), "{error}");
}
