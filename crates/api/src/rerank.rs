//! Reranking, in the form that Jina began and LocalAI and others share.
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::lenient::integer;
use crate::openai::InputUsage;

/// The body of `POST /v1/rerank`.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RerankRequest {
    /// Which model answers; absent, the server's first one that reranks.
    pub model: Option<String>,
    /// What is looked for.
    pub query: Option<String>,
    /// Where it is looked for.
    pub documents: Option<Vec<RerankDocument>>,
    /// Best documents to give back; absent, all of them.
    #[serde(deserialize_with = "integer")]
    pub top_n: Option<i64>,
    /// Do the results hold the documents' texts? Absent: yes.
    pub return_documents: Option<bool>,
}

/// A document: a text, or an object that holds one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a string, or an object with the string `text`")]
pub enum RerankDocument {
    /// The text.
    Text(String),
    /// The text in an object.
    Object(DocumentText),
}

impl RerankDocument {
    /// The text.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object(DocumentText { text }) => text,
        }
    }
}

/// An object that holds a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DocumentText {
    /// The text.
    pub text: String,
}

/// The answer of `POST /v1/rerank`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RerankResponse {
    /// The model's name, as the request gave it.
    pub model: String,
    /// Best first.
    pub results: Vec<RerankResult>,
    /// What it cost.
    pub usage: InputUsage,
    /// `rerank-` and something unique.
    #[serde(default)]
    pub id: String,
}

/// One document's place.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RerankResult {
    /// Its index among the request's documents.
    pub index: u32,
    /// Its text, unless the request did not want it.
    #[serde(default)]
    pub document: Option<DocumentText>,
    /// Higher is more relevant.
    pub relevance_score: f32,
}
