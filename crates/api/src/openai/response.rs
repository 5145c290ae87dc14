//! The answers of the chat endpoint, whole and in pieces.
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::chat::{FunctionCall, Role, ToolCall};
use super::logprobs::ChatLogprobs;
use super::usage::Usage;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// No room for more tokens.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The model calls a function, in the old form.
    FunctionCall,
    /// Something was left out.
    ContentFilter,
}

/// The answer of `POST /v1/chat/completions`.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatCompletion {
    /// `chatcmpl-` and something unique.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// When the request came, in Unix seconds.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The answers, `n` of them.
    pub choices: Vec<ChatChoice>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// Names the model's state on this server.
    pub system_fingerprint: Option<String>,
    /// What this server adds: only where a lenient schema could not be enforced as a whole.
    #[serde(default)]
    pub ingle: Option<FormReport>,
}

/// What became of a form that could not be enforced as a whole; see the header `x-ingle-unenforced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FormReport {
    /// Does the answer satisfy all of the schema?
    pub schema_valid: bool,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatChoice {
    /// Its place among the answers.
    pub index: u32,
    /// The answer itself.
    pub message: AssistantMessage,
    /// Log probabilities, when asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// The message a model answers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AssistantMessage {
    /// Always `assistant`.
    pub role: Role,
    /// The text; `null` when there are only tool calls.
    pub content: Option<String>,
    /// The reasoning that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same by LocalAI's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Always `null`: open models have no refusal of their own.
    #[serde(default)]
    pub refusal: Option<String>,
    /// The calls; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call, in the old form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall>,
}

/// One frame of a streamed chat answer.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatChunk {
    /// The same in every frame.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// The same in every frame.
    pub created: u64,
    /// The same in every frame.
    pub model: String,
    /// One piece of one answer; none in the frame that carries the usage.
    pub choices: Vec<ChatChunkChoice>,
    /// Absent without `include_usage`; with it `null` but in the last frame.
    #[serde(default)]
    pub usage: Option<Option<Usage>>,
    /// In the last piece of an answer: what this server adds where a lenient schema could not be enforced as a whole.
    #[serde(default)]
    pub ingle: Option<FormReport>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatChunkChoice {
    /// Which answer this belongs to.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// Log probabilities of this piece, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChatLogprobs>,
    /// Why the answer ended, in its last piece; `null` before.
    pub finish_reason: Option<FinishReason>,
}

/// What a frame adds to an answer.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ChatDelta {
    /// Who speaks; only in the first frame.
    pub role: Option<Role>,
    /// More text.
    pub content: Option<String>,
    /// More reasoning.
    pub reasoning_content: Option<String>,
    /// The same by LocalAI's name.
    pub reasoning: Option<String>,
    /// More of one tool call; never two in a frame.
    pub tool_calls: Option<Vec<ToolCallDelta>>,
    /// More of the call, in the old form.
    pub function_call: Option<FunctionDelta>,
}

/// What a frame adds to a tool call.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToolCallDelta {
    /// Which call: 0, 1, 2 without gaps.
    pub index: u32,
    /// The call's id; only in its first frame.
    #[serde(default)]
    pub id: Option<String>,
    /// `function`; only in the call's first frame.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// What it adds.
    pub function: FunctionDelta,
}

/// What a frame adds to a function call.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FunctionDelta {
    /// The whole name; only in the call's first frame.
    pub name: Option<String>,
    /// More of the arguments' JSON text.
    pub arguments: Option<String>,
}
