//! Token counts.
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// What a request cost, in tokens.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens that were generated, over all choices.
    pub completion_tokens: u64,
    /// The sum of both.
    pub total_tokens: u64,
    /// Where the prompt tokens came from.
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// What the generated tokens were.
    pub completion_tokens_details: Option<CompletionTokensDetails>,
    /// Milliseconds spent on the prompt (LocalAI; on request by the header `Extra-Usage`).
    pub timing_prompt_processing: Option<f64>,
    /// Milliseconds spent on generating (LocalAI; on request by the header `Extra-Usage`).
    pub timing_token_generation: Option<f64>,
}

/// Where the prompt tokens came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PromptTokensDetails {
    /// Tokens that were found in the prefix cache and not computed again.
    pub cached_tokens: u64,
}

/// What the generated tokens were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CompletionTokensDetails {
    /// Tokens of the reasoning text.
    pub reasoning_tokens: u64,
}
