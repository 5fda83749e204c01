//! Ready networks, with SpikingJelly's names for their weights.
//!
//! | SpikingJelly | here |
//! |---|---|
//! | `ottt_spiking_vggws(num_classes=10)` | [`ottt_spiking_vggws`]`(vs, OtttSpikingVggConfig { num_classes: 10, ..Default::default() })` |
//! | `OTTTSpikingVGG(cfg, ...)` | [`OtttSpikingVgg::new`] |
//! | a checkpoint of the authors' OTTT-SNN | [`from_ottt_snn`] gives the names used here |

mod ottt_snn;
mod spiking_vgg;
mod vgg_family;

pub use ottt_snn::from_ottt_snn;
pub use spiking_vgg::{
    OtttSpikingVgg, OtttSpikingVggConfig, SpikingNeuron, VggArchitecture, VggClassifier, VggStage,
};
pub use vgg_family::{
    ottt_spiking_vgg11, ottt_spiking_vgg11_ws, ottt_spiking_vgg13, ottt_spiking_vgg13_ws, ottt_spiking_vgg16,
    ottt_spiking_vgg16_ws, ottt_spiking_vgg19, ottt_spiking_vgg19_ws, ottt_spiking_vggws,
};
