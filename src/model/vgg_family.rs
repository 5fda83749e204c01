//! SpikingJelly's nine spiking VGG networks for OTTT.

use std::borrow::Borrow;

use tch::nn::Path;

use super::spiking_vgg::VggStage::{self, AvgPool as A, Conv as C, MaxPool as M};
use super::{OtttSpikingVgg, OtttSpikingVggConfig, VggArchitecture, VggClassifier};
use crate::error::Result;

const CFG_A: &[VggStage] = &[C(64), M, C(128), M, C(256), C(256), M, C(512), C(512), M, C(512), C(512), M];
#[rustfmt::skip]
const CFG_B: &[VggStage] = &[
    C(64), C(64), M, C(128), C(128), M, C(256), C(256), M, C(512), C(512), M, C(512), C(512), M,
];
#[rustfmt::skip]
const CFG_D: &[VggStage] = &[
    C(64), C(64), M, C(128), C(128), M, C(256), C(256), C(256), M, C(512), C(512), C(512), M,
    C(512), C(512), C(512), M,
];
#[rustfmt::skip]
const CFG_E: &[VggStage] = &[
    C(64), C(64), M, C(128), C(128), M, C(256), C(256), C(256), C(256), M,
    C(512), C(512), C(512), C(512), M, C(512), C(512), C(512), C(512), M,
];
const CFG_S: &[VggStage] = &[C(64), C(128), A, C(256), C(256), A, C(512), C(512), A, C(512), C(512)];

/// The architecture and the function of each network.
macro_rules! family {
    ($($function:ident, $architecture:ident: $cfg:ident, ws $ws:literal, $classifier:expr, $doc:literal;)*) => {
        impl VggArchitecture<'static> {
            $(
                #[doc = concat!("That of [`", stringify!($function), "`]: ", $doc, ".")]
                pub const $architecture: Self =
                    Self { cfg: $cfg, weight_standardization: $ws, classifier: $classifier };
            )*
        }

        $(
            #[doc = concat!("SpikingJelly's `", stringify!($function), "`: ", $doc, ".")]
            ///
            /// # Shapes
            /// `[N, in_channels, H, W]` to `[N, num_classes]`, one step a call.
            ///
            /// # Errors
            /// When an option is out of range.
            pub fn $function<'a>(
                vs: impl Borrow<Path<'a>>,
                config: OtttSpikingVggConfig,
            ) -> Result<OtttSpikingVgg> {
                OtttSpikingVgg::new(vs, VggArchitecture::$architecture, config)
            }
        )*
    };
}

const HEAVY: VggClassifier = VggClassifier::Heavy { hidden: 4096 };

family! {
    ottt_spiking_vggws, VGGWS: CFG_S, ws true, VggClassifier::Light,
        "8 weight-standardized convolutions, 3 average poolings, one linear layer; the OTTT paper's network";
    ottt_spiking_vgg11, VGG11: CFG_A, ws false, HEAVY, "8 convolutions, 3 linear layers";
    ottt_spiking_vgg11_ws, VGG11_WS: CFG_A, ws true, HEAVY, "VGG-11 with weight standardization";
    ottt_spiking_vgg13, VGG13: CFG_B, ws false, HEAVY, "10 convolutions, 3 linear layers";
    ottt_spiking_vgg13_ws, VGG13_WS: CFG_B, ws true, HEAVY, "VGG-13 with weight standardization";
    ottt_spiking_vgg16, VGG16: CFG_D, ws false, HEAVY, "13 convolutions, 3 linear layers";
    ottt_spiking_vgg16_ws, VGG16_WS: CFG_D, ws true, HEAVY, "VGG-16 with weight standardization";
    ottt_spiking_vgg19, VGG19: CFG_E, ws false, HEAVY, "16 convolutions, 3 linear layers";
    ottt_spiking_vgg19_ws, VGG19_WS: CFG_E, ws true, HEAVY, "VGG-19 with weight standardization";
}
