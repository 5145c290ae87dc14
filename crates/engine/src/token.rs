//! Tokens and the trait that turns text into them.

use crate::{EngineError, Segment};

/// Index into a model's vocabulary, `0..n_vocab`.
pub type TokenId = u32;

/// What a vocabulary entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Steers the model (`<|im_start|>`); shown to a client only when a parser asks for it.
    Control,
    /// Text added to the vocabulary by the model's author (`<think>`); always matched whole, always shown.
    UserDefined,
    /// One byte of a character the vocabulary has no entry for.
    Byte,
    /// Stands for text that cannot be represented.
    Unknown,
    /// A hole in the vocabulary.
    Unused,
}

/// Whether the tokens that a model wants around a text (usually a beginning-of-sequence token) are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surround {
    /// As the model's metadata asks, and never doubled when the text spells it already.
    AsModelWants,
    /// The text alone.
    Nothing,
}

/// A model's vocabulary, shared by every thread that needs it.
pub trait Tokenizer: Send + Sync {
    /// Number of vocabulary entries.
    fn n_vocab(&self) -> usize;

    /// Bytes that `token` stands for; a control token gives its spelling. Ids outside the vocabulary give no bytes.
    fn token_bytes(&self, token: TokenId) -> &[u8];

    /// What `token` is for; ids outside the vocabulary are [`TokenKind::Unused`].
    fn token_kind(&self, token: TokenId) -> TokenKind;

    /// Tokens after which a generation is over, ascending.
    fn end_of_generation(&self) -> &[TokenId];

    /// The beginning-of-sequence token.
    fn beginning_of_sequence(&self) -> Option<TokenId>;

    /// The end-of-sequence token.
    fn end_of_sequence(&self) -> Option<TokenId>;

    /// Turns text into tokens; only [`crate::SpecialTokens::Parse`] segments may become control tokens.
    ///
    /// # Errors
    /// [`EngineError::Tokenize`] when the text cannot be represented in this vocabulary.
    fn tokenize(&self, segments: &[Segment], surround: Surround) -> Result<Vec<TokenId>, EngineError>;
}
