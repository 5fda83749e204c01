//! Many processes: data-parallel online training on torch.distributed's own engine.

mod agreement;
mod collectives;
mod data_parallel;
mod launch;
mod process_group;
mod sampler;

pub use collectives::{Collectives, ReduceOp, SingleProcess};
pub use data_parallel::DataParallel;
pub use launch::{is_launched, local_rank, restarts};
pub use process_group::{from_env_or_single, ProcessGroup};
pub use sampler::{ShardedSampler, ShardedSamplerConfig};
