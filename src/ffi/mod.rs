//! The only unsafe code: the Rust half of the C++ seam, safe towards the rest of the crate.
//!
//! C++ keeps one [`Node`] a function application and calls it back in forward and backward.
//! Errors cross as text, panics are caught here, C++ exceptions over there.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{c_char, c_void, CStr};
use std::mem::ManuallyDrop;
use std::ptr::null;

use tch::Tensor;

use crate::error::{catch_panic, Error, Result};

mod autocast;
mod bytes;
mod cuda;
#[cfg(all(feature = "distributed", unix))]
mod distributed;
mod heap;
mod memory;
mod optimizer;
mod random;
mod raw;
mod script;
mod sweep;

pub(crate) use autocast::{start_autocast, swap_autocast};
pub(crate) use bytes::bytes;
#[cfg(feature = "files")]
pub(crate) use bytes::bytes_mut;
pub(crate) use cuda::{launch, load_cuda};
#[cfg(all(feature = "distributed", unix))]
pub(crate) use distributed::{set_grad, Group, Meeting};
pub use heap::keep_freed_memory;
pub(crate) use memory::{
    copy_like, elements, identity, is_alike, is_unshared, layout, shape, strides, Layout,
};
pub(crate) use optimizer::{forget_grad, fused_adam, fused_sgd};
pub(crate) use random::{random_state, set_random_state};
pub(crate) use raw::{AdamOptions, SgdOptions};
pub(crate) use script::{Form, Script};
pub(crate) use sweep::{is_dense, sweep, sweep_rows, vectorized, vectorized_wide, Element, PIECE};

/// The Rust value behind one application of a differentiable function.
///
/// `backward` may be called on another thread than `forward`, and from several in turn.
pub(crate) trait Node: Send + Sync {
    fn forward(&self, ctx: &Context<'_>, inputs: &List, outputs: &mut List) -> Result<()>;
    fn backward(&self, ctx: &Context<'_>, grads: &List, out: &mut List) -> Result<()>;
}

/// Applies `node` to the inputs and records it in libtorch's graph where one of them asks for a gradient.
pub(crate) fn apply(node: Box<dyn Node>, inputs: &List) -> Result<List> {
    let output = List::new();
    let call = Box::into_raw(Box::new(node)).cast::<c_void>();
    LAST_ERROR.take();
    // SAFETY: `call` is a Box<Box<dyn Node>>, as the callbacks expect, and C++ takes it over; both lists are alive.
    let text = unsafe { raw::spiketrace_apply(&CALLBACKS, call, inputs.0, output.0) };
    // An error of our own forward comes back as it was, not as text.
    check(text).map_err(|error| LAST_ERROR.take().unwrap_or(error))?;
    Ok(output)
}

/// Makes the operation that `y` comes from see `x_r` where it kept its input `x` for its weight's gradient.
///
/// False, and nothing changed, where `y` is not a linear or convolution operation on `x`.
pub(crate) fn learn_from(y: &Tensor, x: &Tensor, x_r: &Tensor) -> Result<bool> {
    let mut done = false;
    // SAFETY: three tensors and a bool that live through the call.
    check(unsafe { raw::spiketrace_learn_from(y.as_ptr(), x.as_ptr(), x_r.as_ptr(), &mut done) })?;
    Ok(done)
}

/// Runs backward from `y`, whose gradient is `grad`; its graph stays for another time if `keep_graph`.
pub(crate) fn backward_from(y: &Tensor, grad: &Tensor, keep_graph: bool) -> Result<()> {
    // SAFETY: two tensors that live through the call.
    check(unsafe { raw::spiketrace_backward(y.as_ptr(), grad.as_ptr(), keep_graph) })
}

/// Whether operations are recorded on this thread.
pub(crate) fn grad_enabled() -> bool {
    // SAFETY: sets a flag of this thread and returns the former one, which is set again.
    unsafe {
        let enabled = torch_sys::at_grad_set_enabled(1);
        torch_sys::at_grad_set_enabled(enabled);
        enabled != 0
    }
}

/// libtorch's context of one application; lives as long as the callback that got it.
pub(crate) struct Context<'a>(&'a raw::Context);

impl Context<'_> {
    pub(crate) fn save_for_backward(&self, tensors: &List) -> Result<()> {
        // SAFETY: the context is alive during the callback, the list during the call.
        check(unsafe { raw::spiketrace_save_for_backward(self.0, tensors.0) })
    }

    pub(crate) fn saved_tensors(&self) -> Result<List> {
        let list = List::new();
        // SAFETY: as above; C++ fills the list that we own.
        check(unsafe { raw::spiketrace_saved_tensors(self.0, list.0) })?;
        Ok(list)
    }

    pub(crate) fn mark_non_differentiable(&self, outputs: &List) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { raw::spiketrace_mark_non_differentiable(self.0, outputs.0) })
    }

    pub(crate) fn needs_input_grad(&self, input: usize) -> Result<bool> {
        let mut needed = false;
        // SAFETY: as above; C++ checks the index and writes one bool.
        check(unsafe { raw::spiketrace_needs_input_grad(self.0, input, &mut needed) })?;
        Ok(needed)
    }
}

/// Tensors on their way through the seam, some of them undefined.
pub(crate) struct List(*mut raw::List);

impl List {
    pub(crate) fn new() -> Self {
        // SAFETY: no precondition; the list is freed in drop.
        Self(unsafe { raw::spiketrace_list_new() })
    }

    pub(crate) fn push(&mut self, tensor: Option<&Tensor>) {
        let tensor = tensor.filter(|t| t.defined()).map_or(null(), Tensor::as_ptr);
        // SAFETY: C++ copies the handle of a tensor that lives through this call; null is allowed.
        unsafe { raw::spiketrace_list_push(self.0, tensor) }
    }

    pub(crate) fn len(&self) -> usize {
        // SAFETY: the list is alive.
        unsafe { raw::spiketrace_list_len(self.0) }
    }

    /// Element `i`, None where it is undefined.
    pub(crate) fn get(&self, i: usize) -> Option<Tensor> {
        assert!(i < self.len());
        // SAFETY: i is in range; C++ returns a new handle that the Tensor takes over, or null.
        unsafe {
            let tensor = raw::spiketrace_list_get(self.0, i);
            (!tensor.is_null()).then(|| Tensor::from_ptr(tensor))
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<Tensor>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}

impl<'a> FromIterator<Option<&'a Tensor>> for List {
    fn from_iter<I: IntoIterator<Item = Option<&'a Tensor>>>(tensors: I) -> Self {
        let mut list = Self::new();
        tensors.into_iter().for_each(|tensor| list.push(tensor));
        list
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by spiketrace_list_new, freed once.
        unsafe { raw::spiketrace_list_free(self.0) }
    }
}

thread_local! {
    /// What a callback failed with, kept while the C++ exception that stands for it passes.
    static LAST_ERROR: RefCell<Option<Error>> = const { RefCell::new(None) };
}

static CALLBACKS: raw::Callbacks = raw::Callbacks { forward, backward, drop: drop_call };

type Body = fn(&dyn Node, &Context<'_>, &List, &mut List) -> Result<()>;

unsafe extern "C" fn forward(
    call: *const c_void,
    ctx: *const raw::Context,
    input: *mut raw::List,
    output: *mut raw::List,
) -> i32 {
    // SAFETY: the arguments are those of a callback, passed on.
    unsafe { call_back(call, ctx, input, output, |node, ctx, inputs, out| node.forward(ctx, inputs, out)) }
}

unsafe extern "C" fn backward(
    call: *const c_void,
    ctx: *const raw::Context,
    input: *mut raw::List,
    output: *mut raw::List,
) -> i32 {
    // SAFETY: the arguments are those of a callback, passed on.
    unsafe { call_back(call, ctx, input, output, |node, ctx, grads, out| node.backward(ctx, grads, out)) }
}

/// Runs `body` for C++: 0, or 1 with the text of an error or panic on `output`.
///
/// # Safety
/// `call` is what `apply` made; context and lists are alive during the call.
unsafe fn call_back(
    call: *const c_void,
    ctx: *const raw::Context,
    input: *mut raw::List,
    output: *mut raw::List,
    body: Body,
) -> i32 {
    // SAFETY: `apply` boxed exactly this type; C++ drops it only after the last callback.
    let (node, ctx) = unsafe { (&**call.cast::<Box<dyn Node>>(), Context(&*ctx)) };
    // The lists stay C++'s: they must not be freed here.
    let (input, mut out) = (ManuallyDrop::new(List(input)), ManuallyDrop::new(List(output)));
    let result = catch_panic("a custom function", || body(node, &ctx, &input, &mut out));
    let Err(error) = result.and_then(|result| result) else {
        // What `body` met on the way and handled must not stand for a later failure of libtorch's.
        LAST_ERROR.take();
        return 0;
    };
    let text = match &error {
        // It gets this prefix again at the caller.
        Error::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    // SAFETY: C++ copies `len` bytes of a text that is alive.
    unsafe { raw::spiketrace_list_fail(output, text.as_ptr().cast(), text.len()) };
    LAST_ERROR.set(Some(error));
    1
}

unsafe extern "C" fn drop_call(call: *mut c_void) {
    // SAFETY: made by Box::into_raw in `apply`; C++'s owner calls this once.
    let call = unsafe { Box::from_raw(call.cast::<Box<dyn Node>>()) };
    // A panicking destructor has nobody left to report to.
    let _ = catch_panic("the drop of a custom function", || std::mem::drop(call));
}

/// Takes over an error text of C++.
fn check(text: *mut c_char) -> Result<()> {
    take_text(text).map_or(Ok(()), |message| Err(Error::Torch(message)))
}

/// Takes over a text of C++, `None` for null.
fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: a zero-terminated text that C++ allocated for us; freed once.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        raw::spiketrace_text_free(text);
        Some(owned)
    }
}
