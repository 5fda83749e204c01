//! Weights by name, in files that PyTorch reads and writes too.
//!
//! | file | read | written |
//! |---|---|---|
//! | `.safetensors` | yes | yes |
//! | `.pt`, `.pth`, `.bin` of `torch.save(model.state_dict(), ..)` or of a checkpoint with it in (feature `pytorch`) | yes | yes |
//! | whole modules, TorchScript, files from before PyTorch 1.6 | no: the error says what to do in Python | no |
//!
//! What a file is, its content says, not its name. No code in a pickle is ever run. A file is not believed:
//! lengths, shapes, strides and offsets are checked, the storages of torch.save against their checksums, and
//! no more memory is taken than the file is long, beside what [`StateDict::read`] names.

mod files;
mod load;
mod names;
#[cfg(feature = "pytorch")]
mod torch_save;
mod watched;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tch::{Device, Kind, Tensor};

pub use load::{LoadConfig, LoadReport, Misfit};

use self::files::{shown, Contents, Dtype, Entry, Storage};
use self::watched::Watched;
use crate::error::{Error, Result};
use crate::ffi::bytes_mut;
use crate::module::Variable;

/// How [`StateDict::read_with`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConfig {
    /// The key of the state dict in a checkpoint; by default `state_dict`, `model`, `net` or `model_state_dict`.
    pub key: Option<String>,
}

/// Tensors by name.
///
/// ```
/// use spiketrace::{LoadConfig, Part, OtttSequential, StateDict};
/// use tch::{nn, Device};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let net = OtttSequential::new().add(nn::linear(vs.root(), 4, 2, Default::default()));
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
///
/// StateDict::of(&net.variables()).write(&path)?;
/// let report = StateDict::read(&path)?.load_into(&net.variables(), LoadConfig::default())?;
/// assert_eq!(report.loaded, ["0.weight", "0.bias"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "load_state_dict")]
#[derive(Debug, Default)]
pub struct StateDict {
    tensors: Vec<(String, Tensor)>,
    /// Their places by name.
    places: HashMap<String, usize>,
    others: Vec<(String, String)>,
    metadata: BTreeMap<String, String>,
}

impl StateDict {
    /// Reads a file of weights, onto the CPU.
    ///
    /// Tensors keep their strides, and those that share memory in the file share it here.
    ///
    /// # Cost
    /// Memory and work are linear in the file's length. Each storage is read once, to where it stays. Beside them
    /// no more than 16 MiB of header or pickle is read, of which no more than two million objects are made.
    ///
    /// # Errors
    /// When the file cannot be read, is broken, or holds something else than tensors and plain containers.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_with(path, ReadConfig::default())
    }

    /// [`read`](StateDict::read) with options.
    pub fn read_with(path: impl AsRef<Path>, config: ReadConfig) -> Result<Self> {
        let path = path.as_ref();
        let unreadable = |error| Error::io(path, "cannot be read", error);
        let mut file = Watched::new(File::open(path).map_err(unreadable)?);
        Self::read_from(&mut file, path, config)
            .map_err(|error| file.refusal.take().map(unreadable).unwrap_or(error))
    }

    fn read_from(file: &mut Watched, path: &Path, config: ReadConfig) -> Result<Self> {
        let broken = |problem: String| Error::data(path, problem);
        let contents = files::parse(file, config.key.as_deref()).map_err(broken)?;
        let mut truths = vec![None; contents.storages.len()];
        for entry in contents.tensors.iter().filter(|entry| entry.dtype == Dtype::Bool) {
            truths[entry.storage].get_or_insert(entry.name.as_str());
        }
        let storages = contents.storages.iter().zip(truths);
        let storages = storages.map(|(storage, truths)| read_storage(file, storage, truths, &broken));
        let storages: Vec<Tensor> = storages.collect::<Result<_>>()?;
        let Contents { tensors, others, metadata, .. } = contents;
        let mut state = Self { others, metadata, ..Default::default() };
        for Entry { name, dtype, size, stride, offset, storage } in tensors {
            let tensor = storages[storage].f_view_dtype(kind(dtype))?;
            state.push(name, tensor.f_as_strided(&size[..], &stride[..], offset)?);
        }
        Ok(state)
    }

    /// The state of a module: its [`variables`](crate::Part::variables), or its parameters alone; not copies.
    ///
    /// Two of one name are both kept, and then [`write`](StateDict::write) and
    /// [`load_into`](StateDict::load_into) refuse.
    pub fn of<'a>(parameters: impl IntoIterator<Item = &'a Variable>) -> Self {
        parameters.into_iter().map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect()
    }

    /// The tensor of that name; of two the first.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.places.get(name).map(|&place| &self.tensors[place].1)
    }

    /// Adds a tensor, not a copy; the one that had the name before comes back.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) -> Option<Tensor> {
        let (name, tensor) = (name.into(), tensor.shallow_clone());
        match self.places.get(&name) {
            Some(&place) => Some(std::mem::replace(&mut self.tensors[place].1, tensor)),
            None => {
                self.push(name, tensor);
                None
            }
        }
    }

    /// Adds a tensor beside one that has its name already, so that none is lost without a word.
    pub(crate) fn push(&mut self, name: String, tensor: Tensor) {
        self.places.entry(name.clone()).or_insert(self.tensors.len());
        self.tensors.push((name, tensor));
    }

    /// Errors where a name of `what` stands more than once.
    fn expect_names_once(&self, what: &str) -> Result<()> {
        let again = self.names().enumerate().find(|(place, name)| self.places[*name] != *place);
        let Some((_, name)) = again else { return Ok(()) };
        let what = format!("the count of {} in {what}", shown(name));
        let count = self.names().filter(|other| *other == name).count();
        Err(Error::argument(&what, "1; give each tensor a name of its own", count))
    }

    /// Names and tensors, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> + Clone {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The names, in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// What the file holds under further names that is no tensor that can be read, such as a number, a sparse
    /// tensor or one of 16-bit unsigned integers: its name, and what it is.
    pub fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        self.others.iter().map(|(name, what)| (name.as_str(), what.as_str()))
    }

    /// Texts beside the tensors in a safetensors file, which are written there too.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// [`metadata`](StateDict::metadata), to be changed.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }
}

/// Two of one name are both kept, as [`StateDict::of`] does; [`StateDict::insert`] replaces.
impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        let mut state = Self::default();
        tensors.into_iter().for_each(|(name, tensor)| state.push(name, tensor));
        state
    }
}

/// Reads bytes of the file into a new tensor; those of a tensor of truth values, of which there is the name, are to
/// be 0 or 1.
fn read_storage(
    file: &mut Watched,
    storage: &Storage,
    truths: Option<&str>,
    broken: &impl Fn(String) -> Error,
) -> Result<Tensor> {
    let unreadable = |error| broken(format!("cannot be read: {error}"));
    let mut tensor = Tensor::f_empty([storage.len as i64], (Kind::Uint8, Device::Cpu))?;
    file.seek(SeekFrom::Start(storage.begin)).map_err(unreadable)?;
    let (mut checksum, mut bits) = (crc32fast::Hasher::new(), 0);
    // In pieces, so that the checks meet them in the cache.
    for piece in bytes_mut(&mut tensor)?.chunks_mut(1 << 18) {
        file.read_exact(piece).map_err(unreadable)?;
        if storage.crc32.is_some() {
            checksum.update(piece);
        }
        if truths.is_some() {
            bits |= piece.iter().fold(0, |all, byte| all | byte);
        }
    }
    if storage.crc32.is_some_and(|crc32| crc32 != checksum.finalize()) {
        return Err(broken(
            "is damaged: a storage does not have its checksum (or it was saved without: \
             torch.serialization.set_crc32_options(True), and save it again)"
                .into(),
        ));
    }
    if let Some(name) = truths.filter(|_| bits > 1) {
        let name = shown(name);
        return Err(broken(format!(
            "is broken: the storage of {name} holds truth values that are neither 0 nor 1"
        )));
    }
    Ok(tensor)
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bool => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::C64 => Kind::ComplexFloat,
        Dtype::C128 => Kind::ComplexDouble,
    }
}
