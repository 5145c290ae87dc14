//! `config.json` of a model folder.

use std::path::{Path, PathBuf};

use ingle_engine::EngineError;
use serde_json::Value;

use super::encoder::Activation;
use crate::weights::{load_error, read_json};

/// No size in a real configuration is larger; products of a few of them fit into 64 bits.
const MAX_SIZE: u64 = 1 << 24;

/// `config.json`, whose values are looked up by name.
#[derive(Debug, Clone)]
pub(super) struct Config {
    path: PathBuf,
    values: Value,
}

impl Config {
    /// Reads `config.json`.
    pub(super) fn read(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("config.json");
        let values = read_json(&path)?;
        Ok(Self { path, values })
    }

    /// Where the file is.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// An error that names the file.
    pub(super) fn error(&self, reason: impl Into<String>) -> EngineError {
        load_error(&self.path, reason)
    }

    /// `model_type`.
    pub(super) fn model_type(&self) -> &str {
        self.values["model_type"].as_str().unwrap_or_default()
    }

    /// The first of `architectures`.
    pub(super) fn architecture(&self) -> &str {
        self.values["architectures"][0].as_str().unwrap_or_default()
    }

    /// Any value; null where there is none.
    pub(super) fn value(&self, name: &str) -> &Value {
        &self.values[name]
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values[name].as_str()
    }

    /// A truth value that is false where it is absent.
    pub(super) fn is(&self, name: &str) -> bool {
        self.values[name].as_bool().unwrap_or(false)
    }

    /// A size that must be there, under the first of these names that is.
    pub(super) fn size(&self, names: &[&str]) -> Result<usize, EngineError> {
        match self.optional_size(names)? {
            Some(size) => Ok(size),
            None => Err(self.error(format!("{} is missing", names[0]))),
        }
    }

    /// A size that may be absent.
    pub(super) fn optional_size(&self, names: &[&str]) -> Result<Option<usize>, EngineError> {
        let found = names.iter().map(|name| (name, &self.values[name])).find(|(_, value)| !value.is_null());
        let Some((name, value)) = found else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=MAX_SIZE) => Ok(Some(size as usize)),
            Some(_) | None => Err(self.error(format!("{name} is {value}; it should be between 1 and {MAX_SIZE}"))),
        }
    }

    /// A number, or `otherwise`.
    pub(super) fn number(&self, name: &str, otherwise: f64) -> Result<f64, EngineError> {
        match &self.values[name] {
            Value::Null => Ok(otherwise),
            value => self.number_of(name, value),
        }
    }

    /// A value as a number; `name` names it in the error.
    pub(super) fn number_of(&self, name: &str, value: &Value) -> Result<f64, EngineError> {
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| self.error(format!("{name} is {value}; it should be a number")))
    }

    /// An activation by the name that transformers gives it.
    pub(super) fn activation(&self, name: &str, otherwise: Activation) -> Result<Activation, EngineError> {
        match self.text(name) {
            None => Ok(otherwise),
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            Some("silu" | "swish" | "swiglu") => Ok(Activation::Silu),
            Some(other) => Err(self.error(format!("{name} {other:?} is not known; gelu, relu and silu are"))),
        }
    }

    /// Labels of a classifier.
    pub(super) fn n_labels(&self) -> usize {
        let listed = self.values["id2label"].as_object().map(serde_json::Map::len);
        listed.or(self.values["num_labels"].as_u64().map(|n| n as usize)).unwrap_or(2)
    }
}
