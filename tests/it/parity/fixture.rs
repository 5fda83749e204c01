//! One case of the fixtures: settings, tensors, and how far we are from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use spiketrace::Variable;
use tch::{Kind, Tensor};

/// What a compared tensor is.
#[derive(Debug, Clone, Copy)]
pub enum Sort {
    Value,
    Gradient,
}

pub struct Case {
    pub name: String,
    pub kind: Kind,
    settings: Value,
    tensors: BTreeMap<String, Tensor>,
    unread: BTreeSet<String>,
    /// Name, sort and relative difference of every tensor compared.
    pub differences: Vec<(String, Sort, f64)>,
}

pub fn folder() -> PathBuf {
    // Another place for tests that run away from their sources.
    let own = || [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures"].iter().collect();
    std::env::var_os("SPIKETRACE_FIXTURES").map_or_else(own, PathBuf::from)
}

pub fn manifest(file: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All cases of a manifest's group in one precision.
pub fn read(manifest_file: &str, group: &str, dtype: &str) -> Vec<Case> {
    let manifest = manifest(manifest_file);
    let group = &manifest["groups"][group];
    let file = folder().join(group["files"][dtype].as_str().unwrap());
    let tensors = Tensor::read_safetensors(file).unwrap();
    let kind = if dtype == "f32" { Kind::Float } else { Kind::Double };
    let case = |(name, settings): (&String, &Value)| {
        let own = tensors.iter().filter_map(|(path, tensor)| {
            let short = path.strip_prefix(name.as_str())?.strip_prefix('/')?;
            Some((short.to_owned(), tensor.shallow_clone()))
        });
        let tensors: BTreeMap<_, _> = own.collect();
        assert!(!tensors.is_empty(), "{name} has no tensors");
        Case {
            name: name.clone(),
            kind,
            settings: settings.clone(),
            unread: tensors.keys().cloned().collect(),
            tensors,
            differences: Vec::new(),
        }
    };
    group["cases"].as_object().unwrap().iter().map(case).collect()
}

impl Case {
    /// A tensor of the fixture.
    pub fn get(&mut self, name: &str) -> Tensor {
        self.unread.remove(name);
        let tensor = self.tensors.get(name);
        tensor.unwrap_or_else(|| panic!("{} has no {name}", self.name)).shallow_clone()
    }

    /// A copy that asks for a gradient.
    pub fn leaf(&mut self, name: &str) -> Tensor {
        self.get(name).copy().set_requires_grad(true)
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The setting `name`, `None` where it is null.
    pub fn option(&self, name: &str) -> Option<f64> {
        self.settings[name].as_f64()
    }

    pub fn number(&self, name: &str) -> f64 {
        self.option(name).unwrap_or_else(|| panic!("{}: {name} is no number", self.name))
    }

    pub fn numbers(&self, name: &str) -> Vec<f64> {
        self.settings[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.settings[name].as_bool().unwrap()
    }

    pub fn setting(&self, name: &str) -> &Value {
        &self.settings[name]
    }

    pub fn value(&mut self, name: &str, got: &Tensor) {
        self.compare(name, Sort::Value, got);
    }

    pub fn gradient(&mut self, name: &str, got: &Tensor) {
        self.compare(name, Sort::Gradient, got);
    }

    fn compare(&mut self, name: &str, sort: Sort, got: &Tensor) {
        let expected = self.get(name);
        assert!(got.defined(), "{}: {name} is undefined", self.name);
        assert_eq!(got.size(), expected.size(), "{}: shape of {name}", self.name);
        assert_eq!(got.kind(), expected.kind(), "{}: kind of {name}", self.name);
        self.differences.push((name.to_owned(), sort, relative_difference(got, &expected)));
    }

    /// Gives a module the parameters that the fixture starts from.
    pub fn set(&mut self, parameters: &[Variable]) {
        for Variable { name, tensor, .. } in parameters {
            let value = self.get(&format!("param.{name}"));
            assert_eq!(tensor.kind(), value.kind());
            tch::no_grad(|| tensor.shallow_clone().copy_(&value));
        }
    }

    /// What nobody asked for.
    pub fn unread(&self) -> Vec<&str> {
        self.unread.iter().map(String::as_str).collect()
    }
}

/// max |got - expected| / max |expected|.
pub fn relative_difference(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (got.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (&got - &expected).abs().max().double_value(&[]);
    let scale = expected.abs().max().double_value(&[]);
    difference / if scale == 0.0 { 1.0 } else { scale }
}

/// Backward from `y` with the given upstream gradient.
pub fn backward(y: &Tensor, upstream: &Tensor) {
    (y * upstream).sum(y.kind()).backward();
}
