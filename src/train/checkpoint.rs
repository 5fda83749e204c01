//! A training at rest: all that a resumed one needs to go on as if it had never stopped.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use super::optimizer::Optimizer;
use crate::atomic_file::remove_leftovers;
use crate::error::{Error, Result};
use crate::ffi::{bytes, copy_like};
use crate::module::OnlineModule;
use crate::setting::{device as named_device, random_state, set_random_state};
use crate::state_dict::{LoadConfig, StateDict};

/// Weights, optimizer, membranes, random generators, position and configuration of a training.
///
/// A training that is stopped, at any moment and by any means, and resumed from its last checkpoint ends with
/// the same weights as one that never was, bit for bit on the CPU with a fixed number of threads, if
///
/// - the network, the optimizer and their options are built as before (that is what `config` is for);
/// - all randomness is libtorch's: dropout, shuffles. Its generators' states are kept themselves, not a seed, and those
///   of devices that a machine does not have are left alone there;
/// - the learning rate follows from `epoch` and `step`; the one of the moment is kept with the optimizer.
///
/// The file is of the format safetensors with a checksum: `model.` and the module's names, `optimizer.`,
/// `memory.` and `random.`; it is written as [`StateDict::write`] does, whole or not at all.
///
/// ```
/// use spiketrace::train::{Checkpoint, Sgd, SgdConfig};
/// use spiketrace::OtttSequential;
/// use tch::{nn, Device};
/// let folder = tempfile::tempdir()?;
/// let vs = nn::VarStore::new(Device::Cpu);
/// let mut net = OtttSequential::new().add(nn::linear(vs.root(), 4, 2, Default::default()));
/// let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig { momentum: 0.9, ..Default::default() })?;
///
/// let first = match Checkpoint::latest(folder.path())? {
///     Some(checkpoint) => {
///         checkpoint.restore(&mut net, &mut sgd)?;
///         checkpoint.epoch + 1
///     }
///     None => 1,
/// };
/// for epoch in first..=3 {
///     // Train, then:
///     let mut checkpoint = Checkpoint::of(&mut net, &sgd)?;
///     checkpoint.epoch = epoch;
///     checkpoint.save_in(folder.path(), 2)?;
/// }
/// assert_eq!(Checkpoint::latest(folder.path())?.unwrap().epoch, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    /// Epochs done; yours to set and to read.
    pub epoch: u64,
    /// Steps done in all, or within the epoch; yours to set and to read.
    pub step: u64,
    /// Your configuration, for instance as JSON.
    pub config: String,
    weights: StateDict,
    optimizer: StateDict,
    /// What modules carry from one time step to the next; none between sequences.
    memories: Vec<Option<Tensor>>,
    /// By the names of devices, of which this machine may not have all.
    random: Vec<(String, Tensor)>,
}

impl Checkpoint {
    /// A copy of where a training stands, at epoch 0 and step 0.
    ///
    /// # Errors
    /// When the optimizer is one of tch's, whose state cannot be read: [`Sgd`](super::Sgd) and
    /// [`Adam`](super::Adam) can.
    pub fn of(net: &mut (impl OnlineModule + ?Sized), optimizer: &(impl Optimizer + ?Sized)) -> Result<Self> {
        let copied = |state: StateDict| -> Result<StateDict> {
            state.iter().map(|(name, tensor)| Ok((name.to_owned(), copy(tensor)?))).collect()
        };
        let weights = copied(StateDict::of(&net.variables()))?;
        let optimizer = copied(optimizer.state()?)?;
        let memories = net.memories().into_iter().map(|memory| memory.get().map(copy).transpose());
        let memories = memories.collect::<Result<_>>()?;
        let mut devices = vec![Device::Cpu];
        for (_, tensor) in weights.iter() {
            if matches!(tensor.device(), Device::Cuda(_)) && !devices.contains(&tensor.device()) {
                devices.push(tensor.device());
            }
        }
        let random = devices.into_iter().map(|device| Ok((device_name(device), random_state(device)?)));
        let random = random.collect::<Result<_>>()?;
        Ok(Self { epoch: 0, step: 0, config: String::new(), weights, optimizer, memories, random })
    }

    /// The weights and buffers, by the module's names.
    pub fn weights(&self) -> &StateDict {
        &self.weights
    }

    /// Puts a training back to where it stood.
    ///
    /// The devices need not be the same: what was kept on a GPU goes to where the network is now. The state of a
    /// generator whose device is not there is left out, so that what is drawn afterwards differs.
    ///
    /// # Errors
    /// When the network or the optimizer is not like the one that was kept; nothing is changed then.
    pub fn restore(
        &self,
        net: &mut (impl OnlineModule + ?Sized),
        optimizer: &mut (impl Optimizer + ?Sized),
    ) -> Result<()> {
        let state = net.variables();
        let plan = self.weights.plan(&state, LoadConfig { strict: true })?;
        let count = net.memories().len();
        if count != self.memories.len() {
            let expected = format!("{count}, as the network has");
            return Err(Error::argument(
                "the checkpoint's count of memories",
                &expected,
                self.memories.len(),
            ));
        }
        let device = state.first().map_or(Device::Cpu, |p| p.tensor.device());
        let memories = self
            .memories
            .iter()
            .map(|memory| Ok(memory.as_ref().map(copy).transpose()?.map(|m| m.to_device(device))));
        let memories = memories.collect::<Result<Vec<_>>>()?;
        let mut before = Vec::new();
        let mut there =
            self.random.iter().filter_map(|(name, state)| Some((named_device(name).ok()?, state)));
        let done = there.try_for_each(|(device, state)| {
            before.push((device, random_state(device)?));
            set_random_state(device, state)
        });
        if let Err(error) = done.and_then(|()| optimizer.load_state(&self.optimizer)) {
            before.iter().try_for_each(|(device, state)| set_random_state(*device, state))?;
            return Err(error);
        }
        plan.apply()?;
        for (place, memory) in net.memories().into_iter().zip(memories) {
            *place = memory.into();
        }
        Ok(())
    }

    /// Writes the file, whole or not at all; its name ends in `.safetensors`.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut all = StateDict::default();
        for (prefix, state) in [(MODEL, &self.weights), (OPTIMIZER, &self.optimizer)] {
            // Two weights of one name are refused by write, not lost here.
            state
                .iter()
                .for_each(|(name, tensor)| all.push(format!("{prefix}{name}"), tensor.shallow_clone()));
        }
        for (i, memory) in self.memories.iter().enumerate() {
            memory.iter().for_each(|memory| drop(all.insert(format!("{MEMORY}{i}"), memory)));
        }
        for (device, state) in &self.random {
            all.insert(format!("{RANDOM}{device}"), state);
        }
        let texts = [
            ("format", FORMAT.to_owned()),
            ("epoch", self.epoch.to_string()),
            ("step", self.step.to_string()),
            ("memories", self.memories.len().to_string()),
            ("config", self.config.clone()),
        ];
        all.metadata_mut().extend(texts.map(|(name, text)| (name.to_owned(), text)));
        let checksum = checksum(&all)?;
        all.metadata_mut().insert(CHECKSUM.to_owned(), checksum);
        all.write(path)
    }

    /// Reads a file that [`write`](Checkpoint::write) wrote.
    ///
    /// # Errors
    /// When it cannot be read, is broken, or does not have its checksum.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let broken = |problem: &str| Error::data(path, problem);
        let mut all = StateDict::read(path)?;
        let told = all.metadata_mut().remove(CHECKSUM);
        let text = |name: &str| all.metadata().get(name).map(String::as_str).unwrap_or_default();
        if text("format") != FORMAT {
            return Err(broken("is no checkpoint; StateDict::read reads files of weights"));
        }
        if told != Some(checksum(&all)?) {
            return Err(broken("is damaged: it does not have its checksum"));
        }
        let number = |name: &str| text(name).parse().map_err(|_| broken("is broken: it has no position"));
        let of = |prefix: &str| {
            let own = all
                .iter()
                .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.shallow_clone())));
            own.collect::<StateDict>()
        };
        let (memories, random) = (of(MEMORY), of(RANDOM));
        Ok(Self {
            epoch: number("epoch")?,
            step: number("step")?,
            config: text("config").to_owned(),
            weights: of(MODEL),
            optimizer: of(OPTIMIZER),
            memories: (0..number("memories")?.min(1 << 20))
                .map(|i| memories.get(&i.to_string()).map(Tensor::shallow_clone))
                .collect(),
            random: random.iter().map(|(name, state)| (name.to_owned(), state.shallow_clone())).collect(),
        })
    }

    /// Writes `checkpoint-EPOCH-STEP.safetensors` in a folder, which is made if need be, and removes older ones
    /// beyond the `keep` newest, and what a killed program left half written. The folder is to be one training's.
    ///
    /// # Errors
    /// When `keep` is 0, or the file cannot be written.
    pub fn save_in(&self, folder: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        let folder = folder.as_ref();
        if keep == 0 {
            return Err(Error::argument("how many checkpoints to keep", "at least 1", keep));
        }
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, "cannot be made", error))?;
        let path = folder.join(format!("{NAME}{:06}-{:09}.safetensors", self.epoch, self.step));
        self.write(&path)?;
        let place = (self.epoch, self.step);
        let older = list(folder)?.into_iter().filter(|(other, _)| *other < place);
        // What cannot be removed does no harm.
        older.skip(keep - 1).for_each(|(_, path)| drop(fs::remove_file(path)));
        remove_leftovers(folder, NAME);
        Ok(path)
    }

    /// The newest sound checkpoint of a folder; none where there is no folder or nothing in it.
    ///
    /// A broken one is passed over.
    ///
    /// # Errors
    /// When there are checkpoints and all are broken: the error of the newest. When the operating system refuses to
    /// read one, which says nothing about the file: to go on from an older one would lose what was learned since.
    pub fn latest(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let mut first = None;
        for (_, path) in list(folder.as_ref())? {
            match Self::read(path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                // Another program's newer checkpoint has just replaced it.
                Err(Error::Data { io: Some(error), .. }) if error.kind() == ErrorKind::NotFound => {}
                Err(error @ Error::Data { io: Some(_), .. }) => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(None), Err)
    }
}

const FORMAT: &str = "spiketrace checkpoint 1";
const CHECKSUM: &str = "crc32";
const NAME: &str = "checkpoint-";
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const MEMORY: &str = "memory.";
const RANDOM: &str = "random.";

fn copy(tensor: &Tensor) -> Result<Tensor> {
    copy_like(tensor, tensor)
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// Checksum of all names, kinds, shapes, values and texts.
fn checksum(state: &StateDict) -> Result<String> {
    let mut rows: Vec<(&str, &Tensor)> = state.iter().collect();
    rows.sort_by_key(|(name, _)| *name);
    let mut sum = crc32fast::Hasher::new();
    for (name, tensor) in rows {
        sum.update(format!("{name}\n{:?}\n{:?}\n", tensor.f_kind()?, tensor.size()).as_bytes());
        sum.update(&bytes(tensor.f_to_device(Device::Cpu)?.f_contiguous()?)?);
    }
    state.metadata().iter().for_each(|row| sum.update(format!("{row:?}\n").as_bytes()));
    Ok(format!("{:08x}", sum.finalize()))
}

/// The checkpoints of a folder by their places, the newest first.
fn list(folder: &Path) -> Result<Vec<((u64, u64), PathBuf)>> {
    let problem = |error| Error::io(folder, "cannot be read", error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(problem)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(problem)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let place = name.strip_prefix(NAME).and_then(|rest| rest.strip_suffix(".safetensors"));
        let place = place.and_then(|place| place.split_once('-'));
        if let Some((Ok(epoch), Ok(step))) = place.map(|(epoch, step)| (epoch.parse(), step.parse())) {
            found.push(((epoch, step), path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tch::nn::{self, VarStore};

    use super::*;
    use crate::train::{Sgd, SgdConfig};
    use crate::OtttSequential;

    #[test]
    fn a_checkpoint_from_devices_that_are_not_here_is_read_restored_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let vs = VarStore::new(Device::Cpu);
        let mut net = OtttSequential::new().add(nn::linear(vs.root(), 4, 2, Default::default()));
        let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default()).unwrap();
        let mut kept = Checkpoint::of(&mut net, &sgd).unwrap();
        // As many GPUs as no machine has.
        kept.random.push(("cuda:4096".to_owned(), Tensor::from_slice(&[1u8, 2, 3])));
        let [first, second] =
            ["first", "second"].map(|name| folder.path().join(format!("{name}.safetensors")));
        kept.write(&first).unwrap();
        let weights = vs.variables()["weight"].copy();
        let _ = tch::no_grad(|| vs.variables()["weight"].shallow_clone().fill_(7.0));

        let read = Checkpoint::read(&first).unwrap();
        read.restore(&mut net, &mut sgd).unwrap();
        assert_eq!(vs.variables()["weight"], weights);
        read.write(&second).unwrap();
        assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
    }
}
