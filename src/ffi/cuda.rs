//! libtorch's CUDA half, loaded and used at run time: building needs neither CUDA nor its compiler.

use std::ffi::CString;

use tch::Tensor;

use super::{check, raw, List};
use crate::error::{Error, Result};

/// Loads libtorch_cuda into the process; again costs nothing.
pub(crate) fn load_cuda() -> Result<()> {
    // SAFETY: no precondition; the library's own initializers run, as they do at the start of a program that
    // is linked to it.
    check(unsafe { raw::spiketrace_load_cuda() })
}

/// Runs the element-wise function `name` of the CUDA C++ `code` on CUDA tensors of one shape and kind.
///
/// `code` is `template <typename T> void name(T in, ..., T& out, ...)`, and with one output a function that
/// returns it.
pub(crate) fn launch(code: &str, name: &str, outputs: usize, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let text = |text: &str| CString::new(text).map_err(|_| Error::Torch("a kernel with a zero byte".into()));
    let (code, name) = (text(code)?, text(name)?);
    let input: List = inputs.iter().map(|&tensor| Some(tensor)).collect();
    let out = List::new();
    // SAFETY: texts and lists live through the call.
    check(unsafe { raw::spiketrace_launch(code.as_ptr(), name.as_ptr(), outputs as i32, input.0, out.0) })?;
    Ok(out.iter().map(Option::unwrap_or_default).collect())
}
