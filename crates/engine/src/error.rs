//! The one error type of this crate.

use crate::{ConstraintError, TokenId, sampling::SamplingError};

/// Why a request or a model failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The queue in front of the engine is full: try again later.
    #[error("the model has {waiting} requests waiting, the limit is {limit}; try again in {retry_after_secs} s")]
    Overloaded {
        /// Requests waiting now.
        waiting: usize,
        /// Most that may wait.
        limit: usize,
        /// A guess of when there will be room, in seconds.
        retry_after_secs: u64,
    },
    /// The prompt does not fit into the context.
    #[error(
        "the prompt has {prompt_tokens} tokens and the context of this model holds {context_tokens}; shorten the \
         prompt or raise context_size"
    )]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Most tokens one request may use, prompt and answer together.
        context_tokens: usize,
    },
    /// The text cannot fit whatever its tokens are, so they were not counted.
    #[error(
        "the prompt has {prompt_bytes} bytes, which are more than {least_tokens} tokens, and the context of this model \
         holds {context_tokens}; shorten the prompt or raise context_size"
    )]
    PromptTooLarge {
        /// Bytes of text.
        prompt_bytes: usize,
        /// Fewer tokens are impossible.
        least_tokens: usize,
        /// Most tokens one request may use, prompt and answer together.
        context_tokens: usize,
    },
    /// One call asks for more than may ever wait.
    #[error("the call comes to {cost} {unit}, at most {limit} may wait at once; send it in several calls")]
    TooMuchAtOnce {
        /// What the call costs.
        cost: usize,
        /// Most that may wait.
        limit: usize,
        /// What cost is counted in.
        unit: &'static str,
    },
    /// A text is longer than the model can look at.
    #[error(
        "the text has {tokens} tokens and this model takes {limit}; shorten it, or let the server take it apart with \
         `parameters.pooling: mean` in the model's YAML"
    )]
    TextTooLong {
        /// Tokens of the text, with those that the model puts around it.
        tokens: usize,
        /// Most tokens of one text.
        limit: usize,
    },
    /// A prompt without a single token.
    #[error("the prompt is empty; send at least one token")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token {token} does not exist; this vocabulary has ids 0 to {last}", last = n_vocab - 1)]
    TokenOutOfRange {
        /// The id.
        token: TokenId,
        /// Entries in the vocabulary.
        n_vocab: usize,
    },
    /// Sampling parameters that make no sense.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The constraint on an answer cannot go on; the answer ends, so that nothing unconstrained is said.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// Text that the tokenizer cannot represent.
    #[error("the text cannot be tokenized: {reason}")]
    Tokenize {
        /// What the tokenizer said.
        reason: String,
    },
    /// The file cannot be used as a model.
    #[error("model {path} cannot be loaded: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Memory for the model could not be had, also with the smallest sizes its options allow.
    #[error(
        "model {path} finds no memory: {reason}; lower context_size, gpu_layers or parallel, choose a smaller \
         quantization, or take other models out of memory"
    )]
    OutOfMemory {
        /// The file.
        path: String,
        /// What could not be had.
        reason: String,
    },
    /// An option of the model's configuration that cannot be honoured.
    #[error("option {option} of the model cannot be used: {reason}")]
    Option {
        /// Name of the option as the configuration spells it.
        option: String,
        /// What is wrong and what to change.
        reason: String,
    },
    /// A sentence that a voice cannot speak, or not on this machine.
    #[error("{reason}")]
    Speak {
        /// What is wrong and what to change.
        reason: String,
    },
    /// One step of the model failed; other requests may still work.
    #[error("the model failed to decode a batch: {reason}")]
    Decode {
        /// What the backend said.
        reason: String,
    },
    /// The engine is dead; it must be loaded again.
    #[error("the engine of model {model} has died and must be loaded again: {reason}")]
    Died {
        /// Name of the model.
        model: String,
        /// Why it died.
        reason: String,
    },
    /// The request took longer than it may.
    #[error("the answer was ended after {limit_secs} s; ask for less, or raise the limit (--watchdog-busy-timeout)")]
    TookTooLong {
        /// The limit, in seconds.
        limit_secs: u64,
    },
    /// The model was unloaded while the request waited or ran.
    #[error("model {model} was unloaded while the request was running; send it again")]
    Unloaded {
        /// Name of the model.
        model: String,
    },
}
