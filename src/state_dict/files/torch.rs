//! A file of torch.save: an archive of a pickle and of storages.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::archive::Archive;
use super::pickle::{self, Id, Machine, Object};
use super::{Contents, Entry, MAX_TENSORS};

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
            "is a zip archive whose {entry} is compressed, and torch.save stores plainly; save it anew in Python: \
             torch.save(torch.load(path), path)"
        ));
    }
    if archive.read(file, "byteorder")?.is_some_and(|order| order != b"little") {
        return Err(
            "was written on a machine of the other byte order; load and save it in Python here".into()
        );
    }
    let pickle = archive.read(file, "data.pkl")?;
    let pickle = pickle.ok_or("is a zip archive, but not one of torch.save: it has no data.pkl")?;
    let (machine, root) = pickle::run(&pickle)?;
    let mut contents = Contents::default();
    let mut known = HashMap::new();
    for (name, value) in entries(&machine, root, key)? {
        let view = match machine.object(value) {
            Object::Tensor(view) => view,
            other => {
                contents.others.push((name.to_owned(), in_words(other).to_owned()));
                continue;
            }
        };
        let place = archive.get(&format!("data/{}", view.storage.key));
        let place = place.ok_or_else(|| format!("is broken: the storage of {name} is missing"))?;
        if place.len != view.storage.bytes {
            let (has, claims) = (place.len, view.storage.bytes);
            return Err(format!("is broken: the storage of {name} has {has} bytes and claims {claims}"));
        }
        let storage = *known.entry(&*view.storage.key).or_insert_with(|| {
            contents.storages.push(place);
            contents.storages.len() - 1
        });
        let (size, stride) = (view.size.clone(), view.stride.clone());
        contents.tensors.push(Entry {
            name: name.to_owned(),
            dtype: view.dtype,
            size,
            stride,
            offset: view.offset,
            storage,
        });
    }
    Ok(contents)
}

/// The names and values of the state dict.
fn entries<'a>(machine: &'a Machine<'_>, root: Id, key: Option<&str>) -> Result<Vec<(&'a str, Id)>, String> {
    let mut dict = named(machine, root).ok_or_else(|| {
        format!(
            "holds {}, expected a state dict: torch.save(model.state_dict(), path)",
            in_words(machine.object(root))
        )
    })?;
    if let Some(key) = key {
        dict = dict
            .iter()
            .find(|(name, _)| *name == key)
            .and_then(|&(_, value)| named(machine, value))
            .ok_or_else(|| format!("has no dict under the key {key:?}; its keys are {}", keys(&dict)))?;
    } else if let Some(inner) = USUAL_KEYS.iter().find_map(|usual| {
        let (_, value) = dict.iter().find(|(name, _)| name == usual)?;
        named(machine, *value)
    }) {
        dict = inner;
    }
    if dict.len() > MAX_TENSORS {
        return Err(format!("holds {} names, more than {MAX_TENSORS}", dict.len()));
    }
    let is_tensor = |(_, value): &(&str, Id)| matches!(machine.object(*value), Object::Tensor(_));
    if !dict.is_empty() && !dict.iter().any(is_tensor) {
        let hint = "name the one that holds the state dict: ReadConfig { key: Some(..) }";
        return Err(format!("holds no tensors at its top; its keys are {}; {hint}", keys(&dict)));
    }
    Ok(dict)
}

/// A dict's values by those of its keys that are texts; the last of a name counts.
fn named<'a>(machine: &'a Machine<'_>, id: Id) -> Option<Vec<(&'a str, Id)>> {
    let Object::Dict(items) = machine.object(id) else { return None };
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut dict: Vec<(&str, Id)> = Vec::new();
    for &(key, value) in items {
        let Object::Text(name) = machine.object(key) else { continue };
        match places.get(&**name) {
            Some(&place) => dict[place] = (&**name, value),
            None => {
                places.insert(&**name, dict.len());
                dict.push((name, value));
            }
        }
    }
    Some(dict)
}

fn keys(dict: &[(&str, Id)]) -> String {
    let shown =
        dict.iter().take(12).map(|(name, _)| format!("{:?}", name.chars().take(60).collect::<String>()));
    let more = if dict.len() > 12 { " ..." } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

fn in_words(object: &Object) -> &'static str {
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
