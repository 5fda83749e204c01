//! Tensors by name.

use std::collections::{BTreeMap, HashMap};

use tch::Tensor;

use super::names::shown;
use crate::error::{Error, Result};
use crate::module::Variable;

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
    pub(super) tensors: Vec<(String, Tensor)>,
    /// Their places by name.
    places: HashMap<String, usize>,
    pub(super) others: Vec<(String, String)>,
    metadata: BTreeMap<String, String>,
}

impl StateDict {
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
    pub(super) fn expect_names_once(&self, what: &str) -> Result<()> {
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
