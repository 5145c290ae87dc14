//! From bytes to a validated GGUF header, tensor list and sizes.
//!
//! [`Header::read`] parses the header with bounded memory: every count and length is checked against what is left of
//! the file before anything is allocated. [`Header::validate`] then refuses whatever would make llama.cpp's C++ end
//! the process (a failed `GGML_ASSERT`, a division by zero, a missing kernel for a tensor type) and returns
//! [`ModelInfo`], the facts about the model that the rest of the program needs before it loads anything.
//!
//! Deliberately absent: opening files (callers pass a reader and the file's length), running a model, and checks
//! that llama.cpp itself answers with an error instead of an abort: a tensor of the wrong shape, say, still reaches it.
//!
//! The rules were read from the loader of llama.cpp b11434, the version that llama-cpp-sys-2 0.1.161 vendors.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "corpus"))]
pub mod corpus;
mod error;
mod file_type;
mod ggml_type;
mod header;
mod hparams;
mod info;
mod layout;
mod memory;
mod projector;
mod read;
mod relaid;
mod rules;
mod split;
mod types;
mod value;
mod vocab;
#[cfg(any(test, feature = "corpus"))]
pub mod writer;

#[cfg(test)]
mod tests;

pub use error::GgufError;
pub use file_type::FileType;
pub use ggml_type::GgmlType;
pub use header::{Header, Metadata, TensorInfo};
pub use info::{FileKind, ModelInfo, Split, Warning, validate_shards};
pub use memory::AttentionShape;
pub use relaid::MatrixForms;
pub use split::{ShardName, sibling_names};
pub use value::{Array, StringArray, Value, ValueType};
pub use vocab::SpecialTokens;
