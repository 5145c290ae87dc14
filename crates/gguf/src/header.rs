//! The parsed header and typed access to its keys.

use std::io::{Cursor, Read, Seek};

use indexmap::IndexMap;

use crate::{Array, GgmlType, GgufError, ModelInfo, Value, read};

/// The header of one GGUF file: everything before the tensor data.
#[derive(Debug, Clone)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Keys and values in file order.
    pub metadata: Metadata,
    /// Tensors in file order.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensor data begins, in bytes from the start of the file.
    pub data_offset: u64,
    /// Every tensor begins at a multiple of this many bytes after `data_offset`.
    pub alignment: u64,
    /// The length of the whole file.
    pub file_bytes: u64,
}

/// One entry of the tensor list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// At most 63 bytes.
    pub name: String,
    /// Elements per dimension, the contiguous one first; at most 4, each at least 1. Empty for a scalar.
    pub dims: Vec<u64>,
    /// How the elements are stored.
    pub ggml_type: GgmlType,
    /// First byte, counted from [`Header::data_offset`].
    pub offset: u64,
    /// Bytes of data.
    pub n_bytes: u64,
}

impl TensorInfo {
    /// The product of the dimensions.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

impl Header {
    /// Reads the header from the start of `reader`; `file_bytes` is the length of the whole file. What is read may be
    /// shorter than the file (the first megabytes of a download): tensor data is never touched.
    ///
    /// # Errors
    /// [`GgufError`] for anything that is not a well-formed header of version 2 or 3.
    pub fn read(reader: &mut (impl Read + Seek), file_bytes: u64) -> Result<Self, GgufError> {
        read::read_header(reader, file_bytes)
    }

    /// [`Header::read`] from memory; `file_bytes` may exceed `bytes.len()` when only the beginning is at hand.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn from_bytes(bytes: &[u8], file_bytes: u64) -> Result<Self, GgufError> {
        Self::read(&mut Cursor::new(bytes), file_bytes)
    }

    /// Checks structure and meaning and derives [`ModelInfo`]. For the first shard of a split model use
    /// [`crate::validate_shards`] to get the totals of all shards.
    ///
    /// # Errors
    /// [`GgufError`] for what llama.cpp would refuse early or would not survive.
    pub fn validate(&self) -> Result<ModelInfo, GgufError> {
        ModelInfo::of(self, &[])
    }
}

/// Keys and values in file order.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: IndexMap<String, Value>,
}

impl Metadata {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`GgufError::DuplicateKey`] if the key is there already.
    pub fn insert(&mut self, key: String, value: Value) -> Result<(), GgufError> {
        match self.entries.entry(key) {
            indexmap::map::Entry::Occupied(entry) => Err(GgufError::DuplicateKey { key: entry.key().clone() }),
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text under `key`, `None` if absent.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] if the value is not a string; so for all getters below.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::Str(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A non-negative integer of any width.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// An integer of any width whose value fits into 32 bits without sign.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "a non-negative 32-bit integer", |value| value.as_u64()?.try_into().ok())
    }

    /// A floating point number; 64-bit ones are rounded.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a floating point number", |value| match *value {
            Value::F32(number) => Some(number),
            Value::F64(number) => Some(number as f32),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// An array of any element type.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn get_array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(GgufError::WrongType { key: key.into(), found: value.value_type(), expected }),
        }
    }
}
