//! What LocalAI has and OpenAI has not: tokenising, health and the state of the system.
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `POST /v1/tokenize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TokenizeRequest {
    /// Whose tokens; absent, the server's first model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The text to take apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Add what the model puts around a text, such as its beginning token? Absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_special: Option<bool>,
    /// Read spellings of control tokens in the text as those tokens? Absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parse_special: Option<bool>,
}

/// The answer of `POST /v1/tokenize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenizeResponse {
    /// The token ids, in order.
    pub tokens: Vec<u32>,
}

/// The body of `POST /v1/detokenize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DetokenizeRequest {
    /// Whose tokens; absent, the server's first model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The token ids, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
}

/// The answer of `POST /v1/detokenize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DetokenizeResponse {
    /// Their text.
    pub content: String,
}

/// The answer of `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// The program's version.
    pub version: String,
}

/// The body of `GET /readyz` while the server cannot answer (status 503); a ready server answers 200 with no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotReady {
    /// `starting` while models load, `failed` when an engine died, `stopping` while the server drains.
    pub status: String,
    /// Which model, and why.
    pub reason: String,
}

/// The answer of `GET /system`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct System {
    /// Names of the backends in this program.
    pub backends: Vec<String>,
    /// The models in memory.
    pub loaded_models: Vec<LoadedModel>,
    /// What the machine has: processors, memory, devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Value>,
}

/// A model in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoadedModel {
    /// Its name.
    pub id: String,
    /// Which backend runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// `loading`, `ready` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Bytes of memory it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}
