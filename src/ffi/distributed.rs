//! Process groups of libtorch (feature `distributed`); `distributed.h` one to one, and its safe half.

use std::ffi::{c_char, CString};
use std::ptr::null_mut;

use tch::Tensor;
use torch_sys::C_tensor;

use super::check;
use crate::error::{Error, Result};

/// Where the processes meet, and which of them this one is.
pub(crate) struct Meeting<'a> {
    /// The store's host.
    pub(crate) host: &'a str,
    /// The store's port.
    pub(crate) port: u16,
    /// What the store's keys begin with.
    pub(crate) prefix: &'a str,
    /// The address that peers reach this process at; `None`: as GLOO_SOCKET_IFNAME says.
    pub(crate) own: Option<&'a str>,
    pub(crate) timeout_ms: i64,
    /// A listening socket that becomes the store's own, of the process that runs the store.
    pub(crate) listener: Option<i32>,
    pub(crate) rank: i32,
    pub(crate) size: i32,
    /// NCCL on this GPU; `None`: Gloo.
    pub(crate) gpu: Option<i32>,
}

/// This process's part in a group.
#[derive(Debug)]
pub(crate) struct Group(*mut RawGroup);

// SAFETY: libtorch's group is used from whichever thread owns it; it is not shared (no Sync).
unsafe impl Send for Group {}

impl Group {
    /// Returns when all processes are there.
    pub(crate) fn join(at: &Meeting<'_>) -> Result<Self> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| Error::argument("an address", "without a zero byte", text))
        };
        let (host, prefix, own) = (text(at.host)?, text(at.prefix)?, at.own.map(text).transpose()?);
        let at = RawMeeting {
            host: host.as_ptr(),
            prefix: prefix.as_ptr(),
            own: own.as_ref().map_or(std::ptr::null(), |own| own.as_ptr()),
            timeout_ms: at.timeout_ms,
            port: i32::from(at.port),
            listener: at.listener.unwrap_or(-1),
            rank: at.rank,
            size: at.size,
            gpu: at.gpu.unwrap_or(-1),
        };
        let mut group = null_mut();
        // SAFETY: the texts live through the call; C++ sets `group` to what it made, unless it fails.
        check(unsafe { spiketrace_group_join(&at, &mut group) })?;
        Ok(Self(group))
    }

    /// Reduces dense `tensor` over all processes by c10d's operation number `op`, in place.
    pub(crate) fn all_reduce(&self, tensor: &Tensor, op: u8) -> Result<()> {
        // SAFETY: the group is alive, the tensor lives until the call returns. Gloo is done then; NCCL's work stands in
        // the stream that later uses of the memory are behind.
        check(unsafe { spiketrace_all_reduce(self.0, tensor.as_ptr(), op) })
    }

    /// Copies dense `tensor` of process `root` over those of the others.
    pub(crate) fn broadcast(&self, tensor: &Tensor, root: i32) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { spiketrace_broadcast(self.0, tensor.as_ptr(), root) })
    }

    /// Returns when all processes have called it.
    pub(crate) fn barrier(&self) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { spiketrace_barrier(self.0) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by spiketrace_group_join, freed once.
        unsafe { spiketrace_group_free(self.0) }
    }
}

/// Gives `tensor` the gradient `grad`, which must have its shape, kind and device.
pub(crate) fn set_grad(tensor: &Tensor, grad: &Tensor) {
    // SAFETY: two defined tensors that live through the call; C++ keeps a handle of its own.
    unsafe { spiketrace_set_grad(tensor.as_ptr(), grad.as_ptr()) }
}

#[repr(C)]
struct RawGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawMeeting {
    host: *const c_char,
    prefix: *const c_char,
    own: *const c_char,
    timeout_ms: i64,
    port: i32,
    listener: i32,
    rank: i32,
    size: i32,
    gpu: i32,
}

// The C++ side asserts the same.
const _: () = assert!(size_of::<RawMeeting>() == 3 * size_of::<usize>() + 32);

extern "C" {
    fn spiketrace_group_join(at: *const RawMeeting, group: *mut *mut RawGroup) -> *mut c_char;
    fn spiketrace_group_free(group: *mut RawGroup);
    fn spiketrace_all_reduce(group: *mut RawGroup, tensor: *const C_tensor, op: u8) -> *mut c_char;
    fn spiketrace_broadcast(group: *mut RawGroup, tensor: *const C_tensor, root: i32) -> *mut c_char;
    fn spiketrace_barrier(group: *mut RawGroup) -> *mut c_char;
    fn spiketrace_set_grad(tensor: *const C_tensor, grad: *const C_tensor);
}
