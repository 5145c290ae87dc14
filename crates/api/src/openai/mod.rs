//! The OpenAI dialect, with the extensions that LocalAI and llama.cpp clients send.
mod audio;
mod chat;
mod choice;
mod completion;
mod content;
mod embedding;
mod error;
mod logprobs;
mod models;
mod request;
mod response;
mod usage;

pub use audio::{
    SpeechEvent, SpeechRequest, SpeechUsage, TextToSpeechRequest, Transcript, TranscriptEvent, TranscriptSegment,
    TranscriptWord, Voice,
};
pub use chat::{ChatMessage, FunctionCall, FunctionDefinition, Role, Tool, ToolCall};
pub use choice::{FunctionCallChoice, ResponseFormat, ToolChoice};
pub use completion::{Completion, CompletionChoice, CompletionChunk, CompletionChunkChoice, Prompt};
pub use content::{AudioData, Content, ContentPart, MediaUrl};
pub use embedding::{Embedding, EmbeddingList, EmbeddingRequest, InputUsage, Vector};
pub use error::{ErrorBody, ErrorEnvelope};
pub use logprobs::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
pub use models::{Model, ModelList};
pub use request::{
    ChatRequest, CompletionRequest, EditRequest, LogitBias, LogprobsRequest, SamplingFields, StopSequences,
    StreamOptions,
};
pub use response::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, FinishReason, FormReport,
    FunctionDelta, ToolCallDelta,
};
pub use usage::{CompletionTokensDetails, PromptTokensDetails, Usage};

/// The last frame of every stream, after `data: `.
pub const STREAM_END: &str = "[DONE]";
