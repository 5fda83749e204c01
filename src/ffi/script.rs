//! TorchScript modules. tch has them too, but hides their buffers, their forward's declaration and its constants.

use std::ffi::CString;
use std::path::Path;
use std::ptr::null_mut;

use tch::{Device, Kind, Tensor};

use super::{check, raw, take_text, List};
use crate::error::{Error, Result};

/// A TorchScript module, owned.
#[derive(Debug)]
pub(crate) struct Script(*mut raw::Script);

// SAFETY: the module is reached through this one owner only, and libtorch's reference counts are atomic.
unsafe impl Send for Script {}

/// What a module's forward takes and returns.
#[derive(Debug)]
pub(crate) struct Form {
    /// The module's class.
    pub(crate) name: String,
    /// forward's declaration.
    pub(crate) declaration: String,
    /// Whether one tensor goes in, other arguments having defaults, and one comes out.
    pub(crate) takes_one: bool,
    pub(crate) returns_one: bool,
    /// Floating-point tensors in the code, and how many numbers they are.
    pub(crate) constants: i64,
    pub(crate) constant_values: i64,
}

impl Script {
    pub(crate) fn load(path: &Path, device: Device) -> Result<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::argument("the path", "one without a zero byte", path.display()))?;
        let like = Tensor::f_empty([0], (Kind::Float, device))?;
        let mut script = null_mut();
        // SAFETY: path and tensor live through the call; C++ sets the pointer where it returns no error.
        check(unsafe { raw::spiketrace_script_load(path.as_ptr(), like.as_ptr(), &mut script) })?;
        Ok(Self(script))
    }

    pub(crate) fn form(&self) -> Result<Form> {
        let mut form = raw::ScriptForm {
            inputs: 0,
            constants: 0,
            constant_values: 0,
            text: null_mut(),
            takes_tensor: false,
            returns_tensor: false,
        };
        // SAFETY: the module is alive; C++ fills the struct, whose layout both sides assert.
        check(unsafe { raw::spiketrace_script_form(self.0, &mut form) })?;
        let text = take_text(form.text).unwrap_or_default();
        let (name, declaration) = text.split_once('\n').unwrap_or_default();
        Ok(Form {
            name: name.to_owned(),
            declaration: declaration.to_owned(),
            takes_one: form.takes_tensor && form.inputs <= 1,
            returns_one: form.returns_tensor,
            constants: form.constants,
            constant_values: form.constant_values,
        })
    }

    pub(crate) fn parameters(&self) -> Result<Vec<(String, Tensor)>> {
        self.tensors(false)
    }

    pub(crate) fn buffers(&self) -> Result<Vec<(String, Tensor)>> {
        self.tensors(true)
    }

    fn tensors(&self, buffers: bool) -> Result<Vec<(String, Tensor)>> {
        let (list, mut names) = (List::new(), null_mut());
        // SAFETY: the module and the list are alive; C++ sets the pointer to a text that we take over.
        check(unsafe { raw::spiketrace_script_tensors(self.0, buffers, list.0, &mut names) })?;
        let names = take_text(names).unwrap_or_default();
        let named = names.lines().map(str::to_owned).zip(list.iter());
        Ok(named.filter_map(|(name, tensor)| Some((name, tensor?))).collect())
    }

    pub(crate) fn set_train(&mut self, on: bool) -> Result<()> {
        // SAFETY: the module is alive.
        check(unsafe { raw::spiketrace_script_train(self.0, on) })
    }

    pub(crate) fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let list = List::new();
        // SAFETY: module, tensor and list are alive; C++ fills the list that we own.
        check(unsafe { raw::spiketrace_script_forward(self.0, x.as_ptr(), list.0) })?;
        Ok(list.get(0).unwrap_or_default())
    }

    /// The bytes of the module's file.
    pub(crate) fn saved(&self) -> Result<Tensor> {
        let list = List::new();
        // SAFETY: module and list are alive; C++ fills the list that we own.
        check(unsafe { raw::spiketrace_script_save(self.0, list.0) })?;
        Ok(list.get(0).unwrap_or_default())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: made by spiketrace_script_load, freed once.
        unsafe { raw::spiketrace_script_free(self.0) }
    }
}
