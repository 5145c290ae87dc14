//! Words of models that look at a whole text at once: embeddings and reranking.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{BatchThread, Cost, EngineError, TokenId};

/// The tokens of one text, or of a pair of texts, with everything that the model puts around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Index of the first token that belongs to the second text of a pair; the number of tokens where there is one text.
    pub second_from: usize,
}

impl Sequence {
    /// A sequence of one text.
    pub fn single(tokens: Vec<TokenId>) -> Self {
        Self { second_from: tokens.len(), tokens }
    }
}

impl Cost for Sequence {
    fn cost(&self) -> usize {
        self.tokens.len()
    }
}

/// A text as the model takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its tokens.
    pub sequence: Sequence,
    /// Tokens it had before it was cut to what the model takes; the sequence's own number where nothing was cut.
    pub full_len: usize,
}

impl Encoded {
    /// Was it cut?
    pub fn is_cut(&self) -> bool {
        self.full_len > self.sequence.tokens.len()
    }
}

/// From text to the tokens of an encoder, on the caller's side.
pub trait TextEncoder: Send + Sync {
    /// Entries in the vocabulary.
    fn n_vocab(&self) -> usize;

    /// Most tokens of a sequence, special ones included.
    fn max_tokens(&self) -> usize;

    /// One text. A model whose library cuts long texts cuts them here.
    ///
    /// # Errors
    /// [`EngineError::Tokenize`]; [`EngineError::TextTooLong`] where texts are not cut.
    fn encode(&self, text: &str) -> Result<Encoded, EngineError>;

    /// Tokens that the caller made: special ones are put around them unless they are there.
    ///
    /// # Errors
    /// [`EngineError::TokenOutOfRange`]; [`EngineError::TextTooLong`] where texts are not cut.
    fn encode_tokens(&self, tokens: &[TokenId]) -> Result<Encoded, EngineError>;

    /// A query and a document, for a reranker.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`].
    fn encode_pair(&self, query: &str, document: &str) -> Result<Encoded, EngineError>;

    /// The text as pieces of at most [`max_tokens`](Self::max_tokens), in order and without overlap, for a model whose
    /// long texts are embedded piece by piece.
    ///
    /// # Errors
    /// [`EngineError::Tokenize`].
    fn encode_windows(&self, text: &str) -> Result<Vec<Sequence>, EngineError>;
}

/// Shorter vectors that a model may be asked for: its first numbers, scaled to length 1 again
/// (Matryoshka representation learning, arXiv:2205.13147).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Dimensions {
    /// None but its own.
    #[default]
    Whole,
    /// These.
    Listed(Vec<usize>),
    /// Any up to its own.
    Any,
}

/// What callers need to know of an embedding model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbedInfo {
    /// Numbers of a vector.
    pub n_embd: usize,
    /// Shorter vectors that may be asked for.
    pub dimensions: Dimensions,
    /// Are vectors of length 1?
    pub is_normalized: bool,
    /// Texts that go in front of the input, by name such as `query`.
    pub prompts: BTreeMap<String, String>,
    /// The prompt of calls that name none.
    pub default_prompt: Option<String>,
    /// Architecture, such as `bert`.
    pub architecture: String,
}

/// A running embedding model; clones are cheap.
#[derive(Clone)]
pub struct EmbedModel {
    /// Turns sequences into vectors, `[n_embd]` each.
    pub thread: BatchThread<Sequence, Vec<f32>>,
    /// Makes sequences.
    pub encoder: Arc<dyn TextEncoder>,
    /// What it is.
    pub info: Arc<EmbedInfo>,
}

/// A running reranker; clones are cheap.
#[derive(Clone)]
pub struct RerankModel {
    /// Turns pairs into scores; higher is more relevant.
    pub thread: BatchThread<Sequence, f32>,
    /// Makes pairs.
    pub encoder: Arc<dyn TextEncoder>,
    /// Architecture, such as `bert`.
    pub architecture: String,
}
