//! Many processes: data-parallel online training on torch.distributed's own engine (feature `distributed`, Unix).
//!
//! Each process holds the whole network and a part of each batch; before the weights move, the gradients are
//! averaged over all. The engine is c10d, which is inside libtorch: Gloo on CPUs, NCCL on GPUs (feature `nccl`).
//! Whoever sets `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` can launch: torchrun, Kubernetes' PyTorchJob, you;
//! under Slurm, `RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID`.
//!
//! ```sh
//! # one machine, two processes
//! scripts/with-libtorch torchrun --no-python --nproc-per-node 2 target/release/examples/train
//! # two machines, on each, with its number K
//! scripts/with-libtorch torchrun --no-python --nnodes 2 --node-rank K --nproc-per-node 2 \
//!     --master-addr 10.0.0.1 --master-port 29500 target/release/examples/train
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`from_env_or_single`], [`ProcessGroup::from_env`] | the group that a launcher started this process in |
//! | [`DataParallel`] | goes around an optimizer; the training loops stay as they are |
//! | [`ShardedSampler`] | this process's part of each batch |
//! | [`Collectives`] | `all_reduce`, `broadcast`, `barrier`, `sum`; [`SingleProcess`] has nothing to do |
//!
//! # What it costs
//!
//! Let a network have P parameters of b bytes (4 for f32), n processes, T time steps; α the time that a message
//! takes whatever its size, β the bytes a second that a process can send. In a ring each process sends its part
//! round twice, once to add up and once to hand out, so one reduction takes
//!
//! ```text
//! bytes sent by a process   S(n) = 2 (n-1)/n b P                 (at most 2 b P, however many processes)
//! time                      R(n) = 2 (n-1) α + S(n) / β.
//! ```
//!
//! [`Update::EveryStep`](crate::train::Update::EveryStep) (OTTT_O) reduces at each of the T steps,
//! [`Update::EndOfSequence`](crate::train::Update::EndOfSequence) (OTTT_A) once a sequence, whatever T. With c_1 the
//! time that a process computes a time step of its part, and c_K the same per step where K go through together
//! (`steps_per_pass`; c_K <= c_1), the share of time in communication is
//!
//! ```text
//! OTTT_O   T S(n) bytes a sequence     R / (R + c_1)         bound by the network where R > c_1
//! OTTT_A     S(n) bytes a sequence     R / (R + T c_K)       bound by the network where R > T c_K
//! ```
//!
//! So OTTT_A bears a network T c_K / c_1 times as slow. K steps a pass change no byte: they make the computing
//! faster, and the network count sooner. Weights that move only every U-th step or sequence, by gradients
//! gathered meanwhile, divide bytes and R by U: between the two, with OTTT_A at U = T. (The loops here know U = 1
//! and U = T.) Nothing overlaps: with OTTT_O the next step's forward needs the weights that this step's reduction
//! makes, so that only its own backward could hide it.
//!
//! Milliseconds of R for f32, α = 25 µs:
//!
//! | | n = 2 | 16 | 128 | 1,000 |
//! |---|---|---|---|---|
//! | MLP 784-512-512-10, P = 0.67 M, 10 Gbit/s | 2.2 | 4.8 | 10.6 | 54 |
//! | the same, 100 Gbit/s | 0.3 | 1.2 | 6.8 | 50 |
//! | OTTT's VGG, P = 9.2 M, 10 Gbit/s | 30 | 56 | 65 | 109 |
//! | the same, 100 Gbit/s | 3.0 | 6.3 | 12 | 56 |
//!
//! Up to some n the bytes rule, R ≈ 2 b P / β, at most twice that of two processes; behind
//! n ≈ b P / (α β) the 2 (n-1) messages do: 86 for the MLP at 10 Gbit/s, 1,180 for the VGG. At 1,000 processes of
//! 100 Gbit/s R is nearly all latency, 50 ms, for both: OTTT_O pays it T times a sequence and stays below half its
//! time only where a process computes a step for as long. Weights or batches must be large by then, or R be made
//! of fewer messages: NCCL's trees need 2 log2(n) of them, 20 instead of 1,998.
//!
//! Measured on one machine of 2 cores, one thread a process, Gloo over the loopback interface
//! (`scripts/bench-distributed`), two processes against one:
//!
//! | | speed | share of time in all-reduce |
//! |---|---|---|
//! | MLP, batch 64 a process, OTTT_O | 0.61 | 55 % |
//! | the same, OTTT_A | 1.27 | 25 % |
//! | VGG, batch 8 a process, OTTT_O | 1.56 | 13 % |
//! | the same, OTTT_A | 1.84 | 2.5 % |
//! | the same, 6 steps a pass | 1.86 | 3.7 % |
//!
//! Where the whole batch is fixed, each process's part shrinks, c(n) = c(1) / n, and the network is what counts
//! from n ≈ c(1) / R on; where each process's part is fixed, the share above at most doubles until latency counts.
//!
//! # When something breaks
//!
//! A process that ends, or stays away longer than the timeout, is an error on all others, which names the
//! collective ([`Error::Distributed`](crate::Error::Distributed)); NCCL ends the process instead. The group cannot be mended: let all end.
//! `torchrun --max-restarts N` starts all again; restore a checkpoint on rank 0 then ([`restarts`] tells).
//! `scripts/distributed-faults` tries it all on `examples/train`, with two processes:
//!
//! | what happens | what comes of it |
//! |---|---|
//! | a random rank killed at a random moment, `--max-restarts 3`, 20 times | each time the undisturbed run's weights, bit for bit |
//! | a rank stopped (SIGSTOP) for longer than the timeout | "all_reduce (Sum) of gradients ... failed on rank 0 of 2: a process did not come within 3 s" |
//! | the same with `--max-restarts 1` | the undisturbed run's weights |
//! | rank 0 absent | "joining the group failed on rank 1 of 2: nobody listened at MASTER_ADDR:MASTER_PORT 127.0.0.1:29400 within 3 s" |
//! | rank 0 killed while others wait for the last | within a second "joining the group failed on rank 1 of 3: a process has ended" |
//! | different networks | "comparing parameters failed on rank 0 of 2: parameter 0 is ... on rank 1, but ... on rank 0" |
//! | a stranger sends garbage to all ports | the undisturbed run's weights |
//! | a rank killed on one of two hosts, `--max-restarts 3` | the undisturbed run's weights |
//! | the cable between two hosts pulled | "all_reduce (Sum) of gradients ... did not come within 3 s" |
//!
//! The collectives of [`Collectives`] compare what all call first. The averaging of gradients does not, to be
//! fast: parameters and their order were compared at the start, but a process that makes more steps than the others meets another
//! collective's bytes, and Gloo then fails, or ends the process where sizes differ.

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
