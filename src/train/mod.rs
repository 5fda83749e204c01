//! Online training: the loops, what they optimize with, and how well it went.

mod accuracy;
mod adam;
mod bptt;
#[cfg(feature = "files")]
mod checkpoint;
mod evaluate;
mod fptt;
mod labels;
mod laid_out;
mod loss;
mod optimizer;
mod ottt;
mod parameters;
mod schedule;
mod sequence;
mod sgd;
mod sltt_k;

pub use accuracy::{accuracy, top_k_accuracy};
pub use adam::{Adam, AdamConfig, AdamState};
pub use bptt::bptt_training;
#[cfg(feature = "files")]
pub use checkpoint::Checkpoint;
pub use evaluate::evaluate;
pub use fptt::{fptt_online_training, fptt_online_training_init_w_ra};
pub use loss::OtttLoss;
pub use optimizer::Optimizer;
pub use ottt::{ottt_online_training, OtttTrainingConfig, Update};
pub use schedule::{CosineConfig, CosineSchedule};
pub use sequence::{repeat_over_time, SequenceOutput};
pub use sgd::{Sgd, SgdConfig};
pub use sltt_k::sltt_k_training;
