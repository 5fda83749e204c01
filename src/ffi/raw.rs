//! The declarations of `seam.h`, one to one.

use std::ffi::{c_char, c_void};

use torch_sys::C_tensor;

#[repr(C)]
pub(super) struct List {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(super) struct Context {
    _opaque: [u8; 0],
}

pub(super) type Callback = unsafe extern "C" fn(*const c_void, *const Context, *mut List, *mut List) -> i32;

pub(super) type SweepBody = unsafe extern "C" fn(*const c_void, i64, i64);

#[repr(C)]
pub(super) struct Callbacks {
    pub(super) forward: Callback,
    pub(super) backward: Callback,
    pub(super) drop: unsafe extern "C" fn(*mut c_void),
}

/// libtorch's automatic casts.
#[repr(C)]
pub(super) struct Autocast {
    pub(super) dtype: i8,
    pub(super) enabled: bool,
    pub(super) cache: bool,
}

/// What libtorch's fused SGD is told.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SgdOptions {
    pub(crate) lr: f64,
    pub(crate) momentum: f64,
    pub(crate) dampening: f64,
    pub(crate) weight_decay: f64,
    pub(crate) nesterov: bool,
}

/// What libtorch's fused Adam is told; `decoupled` makes it AdamW.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamOptions {
    pub(crate) lr: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
    pub(crate) decoupled: bool,
}

#[repr(C)]
pub(super) struct Script {
    _opaque: [u8; 0],
}

/// What a TorchScript module's forward takes and returns.
#[repr(C)]
pub(super) struct ScriptForm {
    pub(super) inputs: i64,
    pub(super) constants: i64,
    pub(super) constant_values: i64,
    pub(super) text: *mut c_char,
    pub(super) takes_tensor: bool,
    pub(super) returns_tensor: bool,
}

// The C++ side asserts the same.
const _: () = assert!(size_of::<Callbacks>() == 3 * size_of::<usize>());
const _: () = assert!(size_of::<SgdOptions>() == 40 && size_of::<AdamOptions>() == 48);
const _: () = assert!(size_of::<Autocast>() == 3);
const _: () = assert!(size_of::<ScriptForm>() == 40);

extern "C" {
    pub(super) fn spiketrace_list_new() -> *mut List;
    pub(super) fn spiketrace_list_free(list: *mut List);
    pub(super) fn spiketrace_list_len(list: *const List) -> usize;
    pub(super) fn spiketrace_list_push(list: *mut List, tensor: *const C_tensor);
    pub(super) fn spiketrace_list_get(list: *const List, i: usize) -> *mut C_tensor;
    pub(super) fn spiketrace_list_fail(list: *mut List, text: *const c_char, len: usize);

    pub(super) fn spiketrace_apply(
        callbacks: *const Callbacks,
        call: *mut c_void,
        input: *const List,
        output: *mut List,
    ) -> *mut c_char;

    pub(super) fn spiketrace_save_for_backward(ctx: *const Context, tensors: *const List) -> *mut c_char;
    pub(super) fn spiketrace_saved_tensors(ctx: *const Context, out: *mut List) -> *mut c_char;
    pub(super) fn spiketrace_mark_non_differentiable(
        ctx: *const Context,
        outputs: *const List,
    ) -> *mut c_char;
    pub(super) fn spiketrace_needs_input_grad(
        ctx: *const Context,
        input: usize,
        needed: *mut bool,
    ) -> *mut c_char;

    pub(super) fn spiketrace_backward(
        y: *const C_tensor,
        grad: *const C_tensor,
        keep_graph: bool,
    ) -> *mut c_char;
    pub(super) fn spiketrace_handles(tensor: *const C_tensor) -> usize;
    pub(super) fn spiketrace_memory_handles(tensor: *const C_tensor) -> usize;
    pub(super) fn spiketrace_written(tensor: *const C_tensor);

    pub(super) fn spiketrace_learn_from(
        y: *const C_tensor,
        x: *const C_tensor,
        x_r: *const C_tensor,
        done: *mut bool,
    ) -> *mut c_char;

    pub(super) fn spiketrace_sweep(
        output: *const C_tensor,
        grain: i64,
        body: SweepBody,
        call: *const c_void,
    ) -> *mut c_char;

    pub(super) fn spiketrace_fused_sgd(
        params: *const List,
        grads: *const List,
        buffers: *const List,
        options: *const SgdOptions,
        first: bool,
    ) -> *mut c_char;
    pub(super) fn spiketrace_fused_adam(
        params: *const List,
        grads: *const List,
        exp_avgs: *const List,
        exp_avg_sqs: *const List,
        steps: *const List,
        options: *const AdamOptions,
    ) -> *mut c_char;
    pub(super) fn spiketrace_layout(tensor: *const C_tensor) -> u8;
    pub(super) fn spiketrace_is_alike(a: *const C_tensor, b: *const C_tensor) -> bool;
    pub(super) fn spiketrace_identity(tensor: *const C_tensor) -> *const c_void;
    pub(super) fn spiketrace_forget_grad(tensor: *const C_tensor) -> *mut c_char;

    pub(super) fn spiketrace_load_cuda() -> *mut c_char;
    pub(super) fn spiketrace_launch(
        code: *const c_char,
        name: *const c_char,
        outputs: i32,
        input: *const List,
        output: *mut List,
    ) -> *mut c_char;

    pub(super) fn spiketrace_autocast(like: *const C_tensor, state: *mut Autocast) -> *mut c_char;

    pub(super) fn spiketrace_script_load(
        path: *const c_char,
        like: *const C_tensor,
        script: *mut *mut Script,
    ) -> *mut c_char;
    pub(super) fn spiketrace_script_free(script: *mut Script);
    pub(super) fn spiketrace_script_form(script: *const Script, form: *mut ScriptForm) -> *mut c_char;
    pub(super) fn spiketrace_script_tensors(
        script: *const Script,
        buffers: bool,
        out: *mut List,
        names: *mut *mut c_char,
    ) -> *mut c_char;
    pub(super) fn spiketrace_script_train(script: *mut Script, on: bool) -> *mut c_char;
    pub(super) fn spiketrace_script_forward(
        script: *mut Script,
        x: *const C_tensor,
        out: *mut List,
    ) -> *mut c_char;
    pub(super) fn spiketrace_script_save(script: *const Script, out: *mut List) -> *mut c_char;
    pub(super) fn spiketrace_random_state(like: *const C_tensor, out: *mut List) -> *mut c_char;
    pub(super) fn spiketrace_set_random_state(like: *const C_tensor, state: *const C_tensor) -> *mut c_char;

    pub(super) fn spiketrace_text_free(text: *mut c_char);
}
