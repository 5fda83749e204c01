//! TorchScript modules as layers.
//!
//! A TorchScript file is a program, unlike a file of weights, and libtorch runs it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::{nn, Tensor};

use crate::atomic_file::write_bytes_atomically;
use crate::check::expect_defined;
use crate::error::{Error, Result};
use crate::ffi::{bytes, Form, Script};
use crate::module::{Layer, Part, Properties, Variable};

/// Options of [`ScriptModule::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScriptConfig {
    /// Whether the module treats each sample of a batch by itself, as linear layers and convolutions do and batch
    /// statistics do not: then it takes several time steps in one pass. False.
    pub samplewise: bool,
    /// Whether tensors that are constants of the module's code are meant to be such: a mean that is subtracted,
    /// a fixed filter. False, since weights that were baked in so cannot learn.
    pub constants: bool,
}

/// A module that Python has scripted or traced, and that learns on here.
///
/// Its file is a program: [`load`](ScriptModule::load) only what you trust. Weights of others come safely by
/// [`StateDict::read`](crate::StateDict::read), which runs nothing.
///
/// On a spike with its trace it acts as its parameters ask: as [`GradWithTrace`](crate::GradWithTrace) where it has
/// any, frozen or not, as [`SpikeTraceOp`](crate::SpikeTraceOp) where it has none. Dropout and batch norm in it
/// follow the `train` of the step.
///
/// # Shapes
/// What the module's `forward` takes and returns, one tensor each.
///
/// # Cost
/// Two forward passes in training, as [`GradWithTrace`](crate::GradWithTrace) says. libtorch optimizes the code in
/// its first calls, which are slower.
///
/// # Source
/// `torch.jit.script`, `torch.jit.trace`.
///
/// ```no_run
/// use spiketrace::{OtttLifNode, OtttSequential, ScriptModule};
/// use tch::{nn, Device};
/// let vs = nn::VarStore::new(Device::Cpu);
/// // In Python: torch.jit.script(block).save("block.pt")
/// let block = ScriptModule::load(vs.root() / 2, "block.pt", Default::default())?;
/// let net = OtttSequential::new()
///     .add(nn::linear(vs.root() / 0, 64, 128, Default::default()))
///     .add(OtttLifNode::new(Default::default())?)
///     .add(block);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "CModule")]
#[doc(alias = "TrainableCModule")]
#[derive(Debug)]
pub struct ScriptModule {
    /// Shared, so that a module inside a network can be saved.
    shared: Arc<Mutex<Shared>>,
    name: String,
    variables: Vec<Variable>,
    properties: Properties,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    /// The mode it is in; `None` for the one it was saved in.
    train: Option<bool>,
}

impl ScriptModule {
    /// Loads a module onto the device of `vs` and puts its parameters and buffers there, under their own names.
    ///
    /// From then on they are variables as any: the optimizer finds them, `freeze`, `set_device` and `double` reach
    /// them. A parameter that asks for no gradient in the file is none that is trained here; a weight with two
    /// names is trained once.
    ///
    /// # Security
    /// A TorchScript file holds code of whoever made it, which runs in this process, when the file is loaded and at each
    /// step: it can read and write files, take all memory, or run for ever. Nor is libtorch's reader made for hostile
    /// files. Load only what you trust as you would a program.
    ///
    /// # Errors
    /// When the file is no TorchScript, its `forward` takes or returns something else than one tensor, weights
    /// were baked in as constants, or `vs` has one of the names already; nothing is put there then.
    pub fn load<'a>(
        vs: impl std::borrow::Borrow<nn::Path<'a>>,
        path: impl AsRef<Path>,
        config: ScriptConfig,
    ) -> Result<Self> {
        let (vs, path) = (vs.borrow(), path.as_ref());
        // libtorch says of whatever it cannot read that it is no module. (To open a pipe could take for ever.)
        let is_file =
            fs::metadata(path).and_then(|found| Ok(found.is_file() && File::open(path).map(|_| true)?));
        if !is_file.map_err(|error| Error::io(path, "cannot be read", error))? {
            return Err(Error::data(path, "is not a file"));
        }
        let script = Script::load(path, vs.device()).map_err(|error| {
            let why = first_line(&error.to_string());
            Error::data(
                path,
                format!("no TorchScript module ({why}); write one by torch.jit.script(module).save(path)"),
            )
        })?;
        let form = script.form().map_err(|error| Error::data(path, first_line(&error.to_string())))?;
        let (parameters, buffers) = (script.parameters()?, script.buffers()?);
        check(path, &form, parameters.len(), config)?;

        let mut places = Vec::new();
        for (name, _) in parameters.iter().chain(&buffers) {
            let (folder, last) = name.rsplit_once('.').map_or((None, name.as_str()), |(f, l)| (Some(f), l));
            let place = folder.into_iter().flat_map(|f| f.split('.')).fold(vs.clone(), |vs, part| vs / part);
            if place.get(last).is_some() {
                let expected = "one that the VarStore does not have; load it under a path of its own";
                return Err(Error::argument("a variable's name", expected, place.path(last)));
            }
            places.push((place, last));
        }
        for (i, (_, tensor)) in parameters.iter().chain(&buffers).enumerate() {
            let (place, name) = &places[i];
            let known = parameters[..i.min(parameters.len())].iter().any(|(_, other)| is_same(other, tensor));
            let trainable = i < parameters.len() && tensor.requires_grad() && !known;
            let _ = place.add(name, tensor.shallow_clone(), trainable);
        }
        let parameters = parameters.iter().map(|(name, tensor)| Variable::parameter(name, tensor));
        let buffers = buffers.iter().map(|(name, tensor)| Variable::buffer(name, tensor));
        let variables = parameters.chain(buffers).collect();
        let name = format!("ScriptModule({})", form.name);
        let shared = Arc::new(Mutex::new(Shared { script, train: None }));
        let properties = match config.samplewise {
            true => Properties::default().samplewise(),
            false => Properties::default(),
        };
        Ok(Self { shared, name, variables, properties })
    }

    /// The same module, not a copy: one to go into a network, one to save it by.
    pub fn shallow_clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            name: self.name.clone(),
            variables: self.variables.clone(),
            properties: self.properties,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the module, with what it has learned, as TorchScript: `torch.jit.load(path)` reads it.
    ///
    /// An interruption leaves the file that was there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let saved = self
            .shared()
            .script
            .saved()
            .map_err(|error| Error::data(path, first_line(&error.to_string())))?;
        write_bytes_atomically(path, &bytes(saved)?)
            .map_err(|error| Error::io(path, "cannot be written", error))
    }
}

impl Part for ScriptModule {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn variables(&self) -> Vec<Variable> {
        self.variables.clone()
    }

    fn properties(&self) -> Properties {
        self.properties
    }
}

impl Layer for ScriptModule {
    fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        expect_defined(format_args!("{}'s input", self.name), x)?;
        let mut shared = self.shared();
        if shared.train != Some(train) {
            shared.script.set_train(train)?;
            shared.train = Some(train);
        }
        shared.script.forward(x).map_err(|error| match error {
            Error::Torch(text) => Error::Torch(format!("{}: {}", self.name, what_failed(&text))),
            other => other,
        })
    }
}

/// Errors unless the module is a layer that can learn.
fn check(path: &Path, form: &Form, parameters: usize, config: ScriptConfig) -> Result<()> {
    let Form { declaration, takes_one, returns_one, constants, constant_values, .. } = form;
    if !(*takes_one && *returns_one) {
        let fix = "a layer takes one tensor and returns one: script a module around it whose forward does";
        return Err(Error::data(path, format!("it has {declaration}, but {fix}")));
    }
    if *constants > 0 && !config.constants {
        let has = if parameters == 0 { "no parameters, but" } else { "beside its parameters" };
        let fix = "script or trace the nn.Module itself, neither frozen nor inside a function; if they are \
                   constants by intention, say so with ScriptConfig { constants: true, .. }";
        return Err(Error::data(
            path,
            format!(
                "it has {has} {constants} tensors ({constant_values} numbers) baked in as constants, which \
                 cannot learn; {fix}"
            ),
        ));
    }
    Ok(())
}

/// Whether both are one tensor: a weight that has two names.
fn is_same(a: &Tensor, b: &Tensor) -> bool {
    a.data_ptr() == b.data_ptr() && a.numel() > 0
}

/// Of what libtorch says about a file.
fn first_line(text: &str) -> String {
    text.trim_start_matches("libtorch: ").lines().next().unwrap_or_default().to_owned()
}

/// What libtorch's interpreter failed with, without the code around it.
fn what_failed(text: &str) -> &str {
    let last = text.rsplit_once("RuntimeError: ").map_or(text, |(_, last)| last);
    last.lines().next().unwrap_or(last)
}
