//! Keeps the right models in memory and offers every capability as a plain async call.
//!
//! The crate knows no HTTP and no concrete backend: backends are handed in as [`ingle_engine::Backend`]s. It uses
//! `tokio::sync` only (no spawn, no timer), so a program without a tokio runtime can drive it with any executor.
//! It re-exports the words of `engine`, `prompt` and `catalog` that its callers need.
#![forbid(unsafe_code)]

mod answer;
mod chat;
mod complete;
mod edit;
mod embed;
mod error;
mod grammar;
pub mod hardware;
mod manager;
pub mod media;
mod options;
mod prompter;
mod rerank;
mod residency;
mod runtime;
mod speak;
mod status;
mod subtitles;
#[cfg(test)]
mod tests;
mod tools;
mod transcribe;
mod voice;

pub use answer::{ChatCompletion, ChatEvent, ChatStream, TextStream};
pub use chat::ChatCall;
pub use complete::{CompletionCall, PromptInput};
pub use edit::EditCall;
pub use embed::{EmbedCall, EmbedInput, EmbedPrompt, Embeddings, LongTexts, PendingEmbeddings};
pub use error::RuntimeError;
pub use manager::{Lease, LoadPlan};
pub use options::{AnswerOptions, LoadDefaults, SamplingOverrides, TokenWindow};
pub use rerank::{PendingRanking, Ranked, Ranking, RerankCall};
pub use residency::ResidencyOptions;
pub use runtime::{Runtime, RuntimeConfig};
pub use speak::{SpeakCall, Speech};
pub use status::{BatchedTask, LoadedModel, ModelState, Readiness};
pub use subtitles::TranscriptForm;
pub use tools::{ToolCallCount, ToolChoice, ToolUse};
pub use transcribe::{TranscribeCall, Transcription, VoiceFilter, VoiceFilterOptions};
pub use voice::{VoiceCall, VoiceSegment};

pub use ingle_catalog as catalog;
pub use ingle_engine::{
    Allowed, AnswerToken, Backend, BatchStats, BatchThread, BatchToken, CacheType, Completion, ContextOverflow, Cost,
    Decoder, EndOfGeneration, Engine, EngineError, FinishReason, FlashAttention, Generation, GenerationEvent,
    GenerationRequest, GpuLayers, HEARING_RATE, Hardware, Health, HeardSegment, HeardWord, HearingOptions, HearingTask,
    HearingWindow, LoadOptions, Piece, PrefixReuse, Segment, Sequence, Speculation, SpokenText, Surround, Task,
    TextEncoder, TextModel, TextStats, Timings, TokenId, TokenKind, Tokenizer, Usage, sampling,
};
pub use ingle_grammar::{
    Compiled, Environment as GrammarEnvironment, GrammarCache, GrammarError, GrammarSource, Strictness, TextMatch,
};
pub use ingle_prompt as prompt;
