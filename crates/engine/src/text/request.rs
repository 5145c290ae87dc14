//! What a client asks of a text model and what it gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::lookup::Lookup;
use crate::sampling::{Sampler, SamplingParams, TokenLogprob};
use crate::{ConstraintHandle, ContextOverflow, TokenId};

/// Whether control tokens show up in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ControlTokens {
    /// They steer the model and are not part of the answer.
    #[default]
    Hide,
    /// Their spelling is part of the text, for a parser that needs it.
    Show,
}

/// What an end-of-generation token means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndOfGeneration {
    /// It ends the answer.
    #[default]
    Stops,
    /// It is never sampled: the answer ends at its limit only.
    Ignored,
}

/// One answer to generate.
#[derive(Debug, Clone, Default)]
pub struct GenerationRequest {
    /// The prompt as tokens of this model.
    pub prompt: Vec<TokenId>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens to generate; `None` is as many as there is room for.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// What an end-of-generation token means.
    pub end_of_generation: EndOfGeneration,
    /// Whether control tokens show up in the text.
    pub control_tokens: ControlTokens,
    /// What happens at the end of the context; `None` is the model's setting.
    pub overflow: Option<ContextOverflow>,
    /// What may be taken from the prefix cache.
    pub prefix_reuse: PrefixReuse,
    /// What the answer must look like.
    pub constraint: Option<ConstraintHandle>,
    /// How long the request may run once it has its slot; then it ends with [`crate::EngineError::TookTooLong`].
    pub time_limit: Option<Duration>,
}

/// What a request may take from the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefixReuse {
    /// All there is; with a seed only whole batches, so that the answer can be made again.
    #[default]
    Allowed,
    /// Nothing: the whole prompt is computed.
    Never,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it, or a stop text occurred.
    Stop,
    /// The limit of tokens or the end of the context was reached.
    Length,
}

/// Tokens counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, taken from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated, the end-of-generation token included.
    pub completion_tokens: usize,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// From submission to a slot.
    pub queued: Duration,
    /// From the slot to the first token.
    pub prompt: Duration,
    /// From the first token to the end.
    pub generation: Duration,
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens counted.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerToken {
    /// Its id.
    pub id: TokenId,
    /// Its bytes, perhaps a part of a character only.
    pub bytes: Vec<u8>,
    /// Log-probabilities, when they were asked for.
    pub logprob: Option<TokenLogprob>,
}

/// A piece of an answer: whole characters, never a part of a stop text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// The text; empty when tokens completed none.
    pub text: String,
    /// The tokens it was made of.
    pub tokens: Vec<AnswerToken>,
}

/// What a [`super::Generation`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// The next piece of text.
    Piece(Piece),
    /// The end; nothing follows.
    Done(Completion),
}

/// A sampled token on its way to the reader.
#[derive(Debug)]
pub(super) struct TokenEvent {
    pub(super) token: TokenId,
    pub(super) logprob: Option<TokenLogprob>,
    /// When it was sampled.
    pub(super) at: Instant,
}

/// The end of an answer as the engine knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) reason: FinishReason,
    /// The end-of-generation token counts although it is not shown.
    pub(super) n_hidden_tokens: usize,
    pub(super) at: Instant,
}

/// A request on its way to the engine thread.
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) request: GenerationRequest,
    /// Made where the request is checked, off the engine thread.
    pub(super) sampler: Sampler,
    pub(super) channel: Arc<Channel>,
    /// Its text so far, if its tokens may be guessed.
    pub(super) lookup: Option<Lookup>,
}
