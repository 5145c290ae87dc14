//! The error envelope.
use serde::{Deserialize, Serialize};

use crate::lenient;

/// `{"error":{...}}`: the body of every failure, and the JSON of an error frame in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorEnvelope {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong, in the words of the OpenAI SDKs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// For people: what is wrong and what to change.
    pub message: String,
    /// The class, such as `invalid_request_error` or `server_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The request parameter at fault, where there is one.
    #[serde(default)]
    pub param: Option<String>,
    /// The exact reason, such as `context_length_exceeded`; other servers send numbers, which are read as text.
    #[serde(default, deserialize_with = "lenient::text")]
    pub code: Option<String>,
}
