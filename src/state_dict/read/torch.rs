//! A file of torch.save: an archive of a pickle and of storages.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::HashMap;
use std::io::{Read, Seek};

use super::archive::Archive;
use super::objects::{Id, Object, Objects};
use super::pickle;
use crate::state_dict::contents::{Contents, Entry, MAX_TENSORS};
use crate::state_dict::names::shown;

/// Under which keys a checkpoint keeps its state dict, if it is not told.
const USUAL_KEYS: [&str; 4] = ["state_dict", "model", "net", "model_state_dict"];

pub(super) fn parse(file: &mut (impl Read + Seek), len: u64, key: Option<&str>) -> Result<Contents, String> {
    let archive = Archive::open(file, len)?;
    if archive.get("constants.pkl").is_some() {
        return Err(
            "is a TorchScript program, which tch::CModule::load runs; for its weights alone, in Python: \
                    torch.save(torch.jit.load(path).state_dict(), \"weights.pt\")"
                .into(),
        );
    }
    if let Some(entry) = &archive.compressed {
        return Err(format!(
            "is a zip archive whose {} is compressed, and torch.save stores plainly; save it anew in Python: \
             torch.save(torch.load(path), path)",
            shown(entry)
        ));
    }
    if archive.read(file, "byteorder")?.is_some_and(|order| order != b"little") {
        return Err(
            "was written on a machine of the other byte order; load and save it in Python here".into()
        );
    }
    let pickle = archive.read(file, "data.pkl")?;
    let pickle = pickle.ok_or("is a zip archive, but not one of torch.save: it has no data.pkl")?;
    let (objects, root) = pickle::run(&pickle)?;
    let mut contents = Contents::default();
    // Storages by their keys, sizes and strides: each once, however many tensors name it.
    let (mut storages, mut ints) = (HashMap::new(), HashMap::new());
    for (name, value) in entries(&objects, root, key)? {
        let view = match objects.get(value) {
            Object::Tensor(view) => view,
            other => {
                contents.others.push((name.to_owned(), in_words(other).to_owned()));
                continue;
            }
        };
        let storage = match storages.get(&view.storage.key) {
            Some(&storage) => storage,
            None => {
                let place =
                    objects.text(view.storage.key).and_then(|key| archive.get(&format!("data/{key}")));
                let place =
                    place.ok_or_else(|| format!("is broken: the storage of {} is missing", shown(name)))?;
                contents.storages.push(place);
                storages.insert(view.storage.key, contents.storages.len() - 1);
                contents.storages.len() - 1
            }
        };
        let (has, claims) = (contents.storages[storage].len, view.storage.bytes);
        if has != claims {
            let name = shown(name);
            return Err(format!("is broken: the storage of {name} has {has} bytes and claims {claims}"));
        }
        let mut ints = |id| match ints.entry(id) {
            Vacant(place) => Ok::<_, String>(place.insert(objects.ints(id)?).clone()),
            Occupied(place) => Ok(place.get().clone()),
        };
        let (size, stride) = (ints(view.size)?, ints(view.stride)?);
        let (name, dtype, offset) = (name.to_owned(), view.dtype, view.offset);
        contents.tensors.push(Entry { name, dtype, size, stride, offset, storage });
    }
    Ok(contents)
}

/// The names and values of the state dict.
fn entries<'a>(objects: &Objects<'a>, root: Id, key: Option<&str>) -> Result<Vec<(&'a str, Id)>, String> {
    let mut dict = named(objects, root).ok_or_else(|| {
        format!(
            "holds {}, expected a state dict: torch.save(model.state_dict(), path)",
            in_words(objects.get(root))
        )
    })?;
    if let Some(key) = key {
        dict = dict
            .iter()
            .find(|(name, _)| *name == key)
            .and_then(|&(_, value)| named(objects, value))
            .ok_or_else(|| format!("has no dict under the key {key:?}; its keys are {}", keys(&dict)))?;
    } else if let Some(inner) = USUAL_KEYS.iter().find_map(|usual| {
        let (_, value) = dict.iter().find(|(name, _)| name == usual)?;
        named(objects, *value)
    }) {
        dict = inner;
    }
    if dict.len() > MAX_TENSORS {
        return Err(format!("holds {} names, more than {MAX_TENSORS}", dict.len()));
    }
    let is_tensor = |(_, value): &(&str, Id)| matches!(objects.get(*value), Object::Tensor(_));
    if !dict.is_empty() && !dict.iter().any(is_tensor) {
        let hint = "name the one that holds the state dict: ReadConfig { key: Some(..) }";
        return Err(format!("holds no tensors at its top; its keys are {}; {hint}", keys(&dict)));
    }
    Ok(dict)
}

/// A dict's values by those of its keys that are texts; the last of a name counts.
fn named<'a>(objects: &Objects<'a>, id: Id) -> Option<Vec<(&'a str, Id)>> {
    let Object::Dict(items) = objects.get(id) else { return None };
    let mut places = HashMap::new();
    let mut dict: Vec<(&str, Id)> = Vec::new();
    for &(key, value) in items {
        let Some(name) = objects.text(key) else { continue };
        match places.get(&key) {
            Some(&place) => dict[place] = (name, value),
            None => {
                places.insert(key, dict.len());
                dict.push((name, value));
            }
        }
    }
    Some(dict)
}

fn keys(dict: &[(&str, Id)]) -> String {
    let first = dict.iter().take(12).map(|(name, _)| format!("{:?}", shown(name)));
    let more = if dict.len() > 12 { " ..." } else { "" };
    first.collect::<Vec<_>>().join(", ") + more
}

fn in_words(object: &Object<'_>) -> &'static str {
    match object {
        Object::None => "None",
        Object::Int(_) => "a number",
        Object::Text(_) => "a text",
        Object::Global(_) => "a name of Python",
        Object::Tuple(_) => "a tuple",
        Object::Dict(_) => "a dict",
        Object::Storage(_) => "a storage",
        Object::Tensor(_) => "a tensor",
        Object::Other(what) => what,
    }
}
