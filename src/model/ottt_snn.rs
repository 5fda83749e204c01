//! Names of weights in checkpoints of OTTT-SNN, the code that the OTTT paper came with.

/// The name that a weight of an OTTT-SNN checkpoint has in [`OtttSpikingVgg`](super::OtttSpikingVgg).
///
/// OTTT-SNN keeps each wrapped layer as `op`, and pools and flattens outside its classifier, whose positions
/// are therefore two lower. Names that are SpikingJelly's already stay as they are.
///
/// Its weight-standardized `online_spiking_vgg11_ws` is [`ottt_spiking_vggws`](super::ottt_spiking_vggws): the
/// state dict lies under `net` in the checkpoint, and `fc_hw` is 1 in its CIFAR scripts, 3 if none is given.
/// Event cameras have `c_in` 2, here `in_channels`. Its networks with batch norm, with feedback, or without weight
/// standardization have no counterpart here.
///
/// # Source
/// <https://github.com/pkuxmq/OTTT-SNN>, `models/spiking_vgg.py`.
///
/// ```
/// use spiketrace::model::from_ottt_snn;
/// assert_eq!(from_ottt_snn("features.4.op.gain"), "features.4.gain");
/// assert_eq!(from_ottt_snn("classifier.0.op.weight"), "classifier.2.weight");
/// assert_eq!(from_ottt_snn("classifier.2.weight"), "classifier.2.weight");
/// ```
pub fn from_ottt_snn(name: &str) -> String {
    let name = name.replace(".op.", ".");
    // Weights at 0, 4, 8 there, at 2, 6, 10 here: no position is both.
    for (theirs, ours) in [("classifier.0.", "classifier.2."), ("classifier.4.", "classifier.6.")] {
        if let Some(rest) = name.strip_prefix(theirs) {
            return format!("{ours}{rest}");
        }
    }
    name.strip_prefix("classifier.8.").map_or(name.clone(), |rest| format!("classifier.10.{rest}"))
}
