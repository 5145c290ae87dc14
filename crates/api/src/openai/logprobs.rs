//! Log probabilities in the two forms of the dialect.
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The chat form: one entry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatLogprobs {
    /// The tokens of the content, in order.
    pub content: Vec<TokenLogprob>,
}

/// A token that was chosen, and what it was chosen among.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenLogprob {
    /// The token's text, with replacement characters where it is no whole UTF-8.
    pub token: String,
    /// Natural logarithm of the probability, at least −9999.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens at this place, best first.
    #[serde(default)]
    pub top_logprobs: Vec<TopLogprob>,
}

/// One of the likeliest tokens at a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopLogprob {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of the probability, at least −9999.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Option<Vec<u8>>,
}

/// The completions form: parallel lists, one element a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompletionLogprobs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Natural logarithms of their probabilities; `null` where there is none (an echoed prompt's first token).
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest tokens at each place, best first, by text.
    pub top_logprobs: Vec<Option<IndexMap<String, f32>>>,
    /// Where each token begins in the choice's text, in characters.
    pub text_offset: Vec<usize>,
}
