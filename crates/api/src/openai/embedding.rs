//! Embeddings.
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::completion::Prompt;
use crate::lenient::integer;

/// The body of `POST /v1/embeddings`.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct EmbeddingRequest {
    /// Which model answers; absent, the server's first one that makes embeddings.
    pub model: Option<String>,
    /// What to embed: a text, a list of texts, the model's own token ids, or a list of such lists.
    pub input: Option<Prompt>,
    /// `float` (a list of numbers) or `base64` (32-bit floats, low byte first).
    pub encoding_format: Option<String>,
    /// Numbers of each vector, for models that were trained for shorter ones.
    #[serde(deserialize_with = "integer")]
    pub dimensions: Option<i64>,
    /// What becomes of texts that are longer than the model takes: `backend` (the model's own way), or `mean`, `last` or
    /// `decayed_mean` of their pieces.
    pub pooling: Option<String>,
    /// Tokens over which a piece's weight halves in `decayed_mean`.
    #[serde(deserialize_with = "integer")]
    pub pooling_half_life_tokens: Option<i64>,
    /// Name of a prompt of the model that goes in front of each text.
    pub prompt_name: Option<String>,
    /// `query` or `document`: takes the model's prompt for it, if it has one.
    pub input_type: Option<String>,
    /// A conversation in place of `input`; not supported.
    pub messages: Option<serde_json::Value>,
}

/// A vector as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Vector {
    /// Its numbers.
    Floats(Vec<f32>),
    /// Its numbers as 32-bit floats, low byte first, in base64.
    Base64(String),
}

/// One vector of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Embedding {
    /// Always `embedding`.
    pub object: String,
    /// Its place among the inputs.
    pub index: u32,
    /// The vector.
    pub embedding: Vector,
}

/// The answer of `POST /v1/embeddings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: String,
    /// One vector for each input, in order.
    pub data: Vec<Embedding>,
    /// The model's name, as the request gave it.
    pub model: String,
    /// What it cost.
    pub usage: InputUsage,
    /// `embd-` and something unique.
    #[serde(default)]
    pub id: String,
    /// When the request came, in Unix seconds.
    #[serde(default)]
    pub created: u64,
}

/// Tokens of a request that generates none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct InputUsage {
    /// Tokens computed, special ones included.
    pub prompt_tokens: u64,
    /// The same.
    pub total_tokens: u64,
}

impl InputUsage {
    /// So many tokens.
    pub fn new(prompt_tokens: usize) -> Self {
        Self { prompt_tokens: prompt_tokens as u64, total_tokens: prompt_tokens as u64 }
    }
}
