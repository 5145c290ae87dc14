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

/// The body of the endpoints that load and unload a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ModelRequest {
    /// Which model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The answer of `POST /backend/load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelsLoaded {
    /// Names of the models that are in memory now.
    pub loaded: Vec<String>,
    /// For people.
    pub message: String,
}

/// An answer that is a text for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// The text.
    pub message: String,
}

/// The answer of `GET /backend/monitor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackendStatus {
    /// 0 is loading, 1 answers requests, 2 is ready, −1 has failed.
    pub state: i32,
    /// What the model takes.
    pub memory: BackendMemory,
}

/// Memory of a model, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackendMemory {
    /// All of it.
    pub total: u64,
    /// By purpose: `weights`, `cache`, `compute`.
    pub breakdown: std::collections::BTreeMap<String, u64>,
}

/// One model and what it can do, in the answer of `GET /v1/models/capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelCapabilities {
    /// Its name.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// LocalAI's words: `chat`, `completion`, `embeddings` and so on.
    pub capabilities: Vec<String>,
    /// Kinds of media that requests may bring.
    pub input_modalities: Vec<String>,
    /// Kinds of media that answers may hold.
    pub output_modalities: Vec<String>,
}

/// The answer of `GET /v1/models/capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapabilitiesList {
    /// Always `list`.
    pub object: String,
    /// The models by name.
    pub data: Vec<ModelCapabilities>,
}

/// Another name of a model, in the answer of `GET /api/aliases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alias {
    /// The other name.
    pub name: String,
    /// The model it stands for.
    pub target: String,
}

/// The answer of endpoints that begin a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobStarted {
    /// The job.
    pub uuid: String,
    /// Address of its state.
    pub status: String,
}

/// The body of `POST /models/import-uri`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ImportRequest {
    /// Address of a model file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// `name` and `description` of the model.
    pub preferences: serde_json::Map<String, Value>,
}

/// A gallery, in the answer of `GET /models/galleries`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GalleryInfo {
    /// Its name, for `gallery@model`.
    pub name: String,
    /// Where its index is.
    pub url: String,
}

/// A file of a model that can be installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredFile {
    /// Inside the models folder.
    pub filename: String,
    /// 64 hex digits, or empty.
    pub sha256: String,
    /// Where it comes from.
    pub uri: String,
}

/// A model that can be installed, in the answer of `GET /models/available`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OfferedModel {
    /// What `id` of `POST /models/apply` says.
    pub name: String,
    /// For people.
    pub description: String,
    /// For people.
    pub license: String,
    /// Home pages.
    pub urls: Vec<String>,
    /// Words to search by.
    pub tags: Vec<String>,
    /// Bytes of all files, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What runs it.
    pub backend: String,
    /// Its files.
    pub files: Vec<StoredFile>,
    /// Is it there already?
    pub installed: bool,
    /// The gallery that offers it.
    pub gallery: GalleryInfo,
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
    /// The devices it is on, such as `CUDA0 (25/25 layers)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// What it does besides text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskStatus>,
}

/// A task of a model in memory that works off batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskStatus {
    /// Such as `embed`.
    pub task: String,
    /// Calls in the queue.
    pub waiting: usize,
    /// Inputs that are being computed.
    pub running: usize,
    /// Inputs done since the model was loaded.
    pub done: u64,
    /// What they came to, in `unit`.
    pub cost: u64,
    /// What `cost` counts, such as `tokens`.
    pub unit: String,
}

/// The body of `POST /v1/vad`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct VadRequest {
    /// Which model listens; absent, the server's first one that does.
    pub model: Option<String>,
    /// Samples from -1 to 1, one channel, 16,000 a second.
    pub audio: Option<Vec<f32>>,
}

/// The answer of `POST /v1/vad`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VadResponse {
    /// Where somebody speaks.
    pub segments: Vec<VadSegment>,
}

/// Speech from one second to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VadSegment {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
}
