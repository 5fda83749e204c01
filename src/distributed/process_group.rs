//! Processes joined by libtorch's c10d: Gloo on CPUs, NCCL on GPUs.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use super::collectives::{Collectives, ReduceOp, SingleProcess};
use super::launch::{is_launched, Launch};
use crate::check::expect_defined;
use crate::error::{Error, Result};
use crate::ffi::{Group, Meeting};

/// One process's part in a group that a launcher started.
///
/// Rank 0 keeps the store where all meet, at `MASTER_ADDR` and at no other address; under torchrun its agent
/// does. Then each process is connected to each other one, from the address that it reaches the store by
/// (or the interface in `GLOO_SOCKET_IFNAME`). Nobody is asked for a password: the network must be yours alone.
///
/// What fails once fails for good: the processes no longer agree on what comes next. Let them end, and the
/// launcher start them again. `TORCH_CPP_LOG_LEVEL=INFO` makes libtorch tell more.
///
/// A group of one process connects to nobody. A process may join several groups, at a time or one after another, if
/// all ranks join as many in the same order; rank 0's store, and with it the port, stays until its process ends.
#[doc(alias = "init_process_group")]
#[derive(Debug)]
pub struct ProcessGroup {
    rank: i64,
    world_size: i64,
    timeout: Duration,
    device: Device,
    /// None: one process.
    group: Option<Group>,
    /// The first failure.
    failed: RefCell<Option<String>>,
}

/// What this process has joined so far.
static JOINED: Mutex<Joined> = Mutex::new(Joined { groups: 0, store: None });

struct Joined {
    /// How many groups: each has keys of its own in the store, which is the same for all.
    groups: u64,
    /// Where this process keeps the store.
    store: Option<SocketAddr>,
}

/// The group that a launcher started this process in, or, without a launcher, the single process.
///
/// # Errors
/// As [`ProcessGroup::from_env`].
pub fn from_env_or_single(timeout: Duration) -> Result<Box<dyn Collectives>> {
    match is_launched() {
        true => Ok(Box::new(ProcessGroup::from_env(timeout)?)),
        false => Ok(Box::new(SingleProcess)),
    }
}

impl ProcessGroup {
    /// Joins the group that the environment tells of: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`.
    ///
    /// torchrun sets them, and so may Slurm, Kubernetes or you. `timeout` is how long to wait for the others:
    /// now, and in each collective later; give it the longest time that they may differ by, for instance in
    /// reading data.
    ///
    /// # Errors
    /// When a variable is missing or makes no sense, the port is taken, a process is absent, or two have one rank.
    pub fn from_env(timeout: Duration) -> Result<Self> {
        Self::join(Launch::from_env()?, timeout, None)
    }

    /// The same over NCCL, for tensors on CUDA device number `gpu`, usually [`local_rank`](super::local_rank).
    ///
    /// NCCL finds a hung or lost process in a thread of its own, and ends this one when the time is over.
    ///
    /// # Errors
    /// As [`from_env`](ProcessGroup::from_env).
    #[cfg(feature = "nccl")]
    pub fn from_env_nccl(timeout: Duration, gpu: usize) -> Result<Self> {
        crate::device(&format!("cuda:{gpu}"))?;
        Self::join(Launch::from_env()?, timeout, Some(gpu))
    }

    fn join(launch: Launch, timeout: Duration, gpu: Option<usize>) -> Result<Self> {
        // Longer is for ever.
        let timeout = timeout.min(Duration::from_secs(365 * 24 * 3600));
        let timeout_ms = timeout.as_millis() as i64;
        if timeout_ms == 0 {
            return Err(Error::argument("the timeout", "at least a millisecond", format!("{timeout:?}")));
        }
        let Launch { rank, world_size, .. } = launch;
        let device = gpu.map_or(Device::Cpu, Device::Cuda);
        let alone = Self { rank, world_size, timeout, device, group: None, failed: RefCell::default() };
        if world_size == 1 {
            return Ok(alone);
        }
        let fail = |problem| alone.error("joining the group", problem);
        // Held to the end: a second thread would join another rank's first.
        let mut joined = JOINED.lock().unwrap_or_else(PoisonError::into_inner);
        let (address, own, listener) = meet(&launch, timeout, joined.store).map_err(fail)?;
        let store = listener.is_some().then_some(address);
        let meeting = Meeting {
            host: &address.ip().to_string(),
            port: address.port(),
            prefix: &format!("spiketrace/{}/{}", launch.attempt, joined.groups),
            own: (!launch.interface).then_some(own.as_str()),
            timeout_ms,
            listener: listener.map(IntoRawFd::into_raw_fd),
            rank: rank as i32,
            size: world_size as i32,
            gpu: gpu.map(|gpu| gpu as i32),
        };
        let group = Group::join(&meeting).map_err(|error| match error {
            Error::Torch(text) => fail(alone.why(&text)),
            other => other,
        })?;
        joined.groups += 1;
        joined.store = store.or(joined.store);
        let all = Self { group: Some(group), ..alone };
        all.barrier()?;
        Ok(all)
    }

    /// Runs a collective, and remembers when it failed.
    fn run(
        &self,
        what: impl Fn() -> String,
        check: bool,
        body: impl FnOnce(&Group) -> Result<()>,
    ) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        if let Some(first) = &*self.failed.borrow() {
            return Err(
                self.error(&what(), format!("the group broke before ({first}); start all processes again"))
            );
        }
        let checked = if check { self.all_call(group, &what()) } else { Ok(()) };
        let result = checked.and_then(|()| body(group));
        result.map_err(|error| {
            let error = match error {
                Error::Torch(text) => self.error(&what(), self.why(&text)),
                other => other,
            };
            *self.failed.borrow_mut() = Some(error.to_string());
            error
        })
    }

    /// Errors unless all processes call `what`: Gloo would mix up their bytes, or abort where sizes differ.
    fn all_call(&self, group: &Group, what: &str) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let own = (hasher.finish() >> 1) as i64;
        let call = Tensor::from_slice(&[own, -own]).to_device(self.device);
        group.all_reduce(&call, c10d_number(ReduceOp::Min))?;
        if Vec::<i64>::try_from(&call)? == [own, -own] {
            return Ok(());
        }
        let problem =
            "another process calls something else here, or with a tensor of another shape or kind; \
                       all must call the same in the same order";
        Err(self.error(what, problem.to_owned()))
    }

    /// `tensor` as dense memory that the others' fits: c10d ignores strides.
    fn dense(&self, tensor: &mut Tensor, run: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        expect_defined("a tensor for other processes", tensor)?;
        let _no_grad = tch::no_grad_guard();
        let mut own = tensor.detach();
        let dense = own.f_contiguous()?;
        run(&dense)?;
        if dense.data_ptr() != own.data_ptr() {
            own.f_copy_(&dense)?;
        }
        Ok(())
    }

    /// libtorch's words with the likely cause.
    fn why(&self, text: &str) -> String {
        // Gloo begins with a place in its code and ends with advice.
        let text =
            text.strip_prefix('[').and_then(|text| text.split_once("] ")).map_or(text, |parts| parts.1);
        let text = text.split(". This is typically").next().unwrap_or(text).trim();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let cause = if has(&["imed out", "imeout"]) {
            let seconds = self.timeout.as_secs_f64();
            format!(
                "a process did not come within {seconds} s: it hangs, was stopped, or does something else"
            )
        } else if has(&[
            "onnection closed",
            "onnection reset",
            "roken pipe",
            "onnection refused",
            "likely closed",
        ]) {
            "a process has ended: look for its own error".to_owned()
        } else {
            return text.to_owned();
        };
        format!("{cause} ({text})")
    }

    fn error(&self, action: &str, problem: String) -> Error {
        let (rank, world_size) = (self.rank, self.world_size);
        Error::Distributed { action: action.to_owned(), rank, world_size, problem }
    }
}

impl Collectives for ProcessGroup {
    fn rank(&self) -> i64 {
        self.rank
    }

    fn world_size(&self) -> i64 {
        self.world_size
    }

    fn device(&self) -> Device {
        self.device
    }

    fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> Result<()> {
        self.dense(tensor, |dense| {
            let what = || format!("all_reduce ({op:?}) of {}", described(dense));
            self.run(what, true, |group| group.all_reduce(dense, c10d_number(op)))
        })
    }

    fn broadcast(&self, tensor: &mut Tensor, root: i64) -> Result<()> {
        if !(0..self.world_size).contains(&root) {
            let range = format!("a rank from 0 to {}", self.world_size - 1);
            return Err(Error::argument("broadcast's root", &range, root));
        }
        self.dense(tensor, |dense| {
            let what = || format!("broadcast from rank {root} of {}", described(dense));
            self.run(what, true, |group| group.broadcast(dense, root as i32))
        })
    }

    fn barrier(&self) -> Result<()> {
        self.run(|| "barrier".to_owned(), true, Group::barrier)
    }

    fn sum_alike(&self, tensor: &mut Tensor) -> Result<()> {
        let what = || format!("all_reduce (Sum) of gradients, {}", described(tensor));
        self.run(what, false, |group| group.all_reduce(tensor, c10d_number(ReduceOp::Sum)))
    }
}

fn described(tensor: &Tensor) -> String {
    let kind = tensor.f_kind().map_or_else(|_| "unknown kind".to_owned(), |kind| format!("{kind:?}"));
    format!("{kind} {:?}", tensor.size())
}

/// c10d's ReduceOp::RedOpType.
fn c10d_number(op: ReduceOp) -> u8 {
    match op {
        ReduceOp::Sum => 0,
        ReduceOp::Product => 2,
        ReduceOp::Min => 3,
        ReduceOp::Max => 4,
    }
}

/// The store's address, the own address towards the other processes, and the store's socket where it is ours and new.
fn meet(
    launch: &Launch,
    timeout: Duration,
    kept: Option<SocketAddr>,
) -> Result<(SocketAddr, String, Option<TcpListener>), String> {
    let Launch { master, port, .. } = launch;
    let at = format!("MASTER_ADDR:MASTER_PORT {master}:{port}");
    let resolved = (master.as_str(), *port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved
        .map_err(|error| format!("MASTER_ADDR {master} is not known ({error}); give its IP address"))?
        .collect();
    if let Some(address) = kept.filter(|kept| addresses.contains(kept)) {
        return Ok((address, address.ip().to_string(), None));
    }
    if launch.rank == 0 && !launch.agent_store {
        let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
            format!(
                "rank 0 cannot listen at {at} ({error}); MASTER_ADDR must be an address of rank 0's machine and the \
                 port free: does an earlier run still go on?"
            )
        })?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        return Ok((address, address.ip().to_string(), Some(listener)));
    }
    // Who is first waits for rank 0.
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut why = "no address".to_owned();
        for &address in &addresses {
            // Where one address leads nowhere, another may.
            match TcpStream::connect_timeout(&address, left.min(Duration::from_secs(5))) {
                Ok(stream) => {
                    let own = stream.local_addr().map_err(|error| error.to_string())?;
                    return Ok((address, own.ip().to_string(), None));
                }
                Err(error) => why = error.to_string(),
            }
        }
        if Instant::now() >= end {
            return Err(format!(
                "nobody listened at {at} within {} s ({why}); is rank 0 there, and can this machine reach it? \
                 The name of a machine may mean 127.0.0.1 to itself: an IP address is surer",
                timeout.as_secs_f64()
            ));
        }
        sleep(Duration::from_millis(50).min(left));
    }
}
