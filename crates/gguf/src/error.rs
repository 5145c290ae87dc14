//! The one error type of this crate.

use std::io;

use crate::ValueType;

/// Why a file was refused. Messages say what is wrong with the file and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The reader failed for a reason other than the end of the file.
    #[error("reading the GGUF header failed: {0}")]
    Io(#[from] io::Error),
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {found:02x?} instead of \"GGUF\"; check that the download is complete")]
    NotGguf {
        /// The bytes found, fewer than four if the file is shorter.
        found: Vec<u8>,
    },
    /// A version that llama.cpp does not read.
    #[error("GGUF version {version} is not supported ({reason}); use a file of version 2 or 3")]
    Version {
        /// The version field, little endian.
        version: u32,
        /// Which kind of unsupported version it is.
        reason: &'static str,
    },
    /// The header wants more bytes than the file has.
    #[error(
        "the header ends early: {what} at byte {offset} needs {needed_bytes} bytes and the file has {file_bytes}; \
         download it again"
    )]
    HeaderTruncated {
        /// What was being read.
        what: String,
        /// Where it starts.
        offset: u64,
        /// How many bytes it takes at least.
        needed_bytes: u64,
        /// The length of the file.
        file_bytes: u64,
    },
    /// A count or length beyond what this crate reads.
    #[error("{what} is {count}, more than the limit of {limit}; the header is damaged")]
    OverLimit {
        /// What was counted.
        what: String,
        /// The value in the file.
        count: u64,
        /// The largest accepted value.
        limit: u64,
    },
    /// An unknown or nested value type.
    #[error("key \"{key}\" has value type {type_id}, which GGUF does not define here; the header is damaged")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type field.
        type_id: u32,
    },
    /// A key or a tensor name is not UTF-8.
    #[error("{what} at byte {offset} is not valid UTF-8; the header is damaged")]
    InvalidUtf8 {
        /// What was being read.
        what: &'static str,
        /// Where its text starts.
        offset: u64,
    },
    /// An empty key.
    #[error("key number {index} is empty; the header is damaged")]
    EmptyKey {
        /// Position among the keys, from 0.
        index: u64,
    },
    /// A key that occurs twice.
    #[error("key \"{key}\" occurs twice; the header is damaged")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor that occurs twice.
    #[error("tensor \"{name}\" occurs twice; the header is damaged")]
    DuplicateTensor {
        /// The tensor's name.
        name: String,
    },
    /// A tensor entry that ggml cannot represent.
    #[error("tensor \"{name}\" is malformed: {problem}; the header is damaged")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// A tensor's type is not one that llama.cpp can compute with in this place.
    #[error("tensor \"{name}\" has type {ggml_type}, and {expected} is needed there; convert the model again")]
    TensorType {
        /// The tensor's name.
        name: String,
        /// Its type.
        ggml_type: crate::GgmlType,
        /// What is accepted.
        expected: &'static str,
    },
    /// Tensor data ends behind the end of the file.
    #[error(
        "the file is truncated: its tensors need {needed_bytes} bytes and the file has {file_bytes}; download it again"
    )]
    Truncated {
        /// The length that the header promises.
        needed_bytes: u64,
        /// The length of the file.
        file_bytes: u64,
    },
    /// `general.alignment` is not a power of two, or its data could not be mapped.
    #[error("alignment {alignment} is not usable: {reason}; convert the model again with alignment 32")]
    Alignment {
        /// The alignment of the file.
        alignment: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key that must be there is not.
    #[error("key \"{key}\" is missing; the file is damaged or was not converted for llama.cpp")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key holds another type than the engine reads.
    #[error("key \"{key}\" is of type {found}, and {expected} is needed; convert the model again")]
    WrongType {
        /// The key.
        key: String,
        /// Its type in the file.
        found: ValueType,
        /// What is accepted.
        expected: &'static str,
    },
    /// A hyper-parameter outside the range in which llama.cpp works.
    #[error("\"{key}\" is {found}, and it must be {expected}; the file is damaged or was converted wrongly")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value in the file.
        found: String,
        /// The accepted values, in words.
        expected: String,
    },
    /// The vocabulary does not hold together.
    #[error("the vocabulary is unusable: {problem}; convert the model again")]
    Vocabulary {
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// The shards of a split model do not belong together.
    #[error("the shards do not fit together: {problem}; get all shards of one release")]
    Shards {
        /// What is wrong.
        problem: String,
    },
}

impl GgufError {
    /// An [`GgufError::OutOfRange`] from displayable parts.
    pub(crate) fn range(key: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::OutOfRange { key: key.into(), found: found.to_string(), expected: expected.into() }
    }
}
