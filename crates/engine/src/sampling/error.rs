//! What can be wrong with parameters or with a row.

use thiserror::Error;

/// Why sampling was refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SamplingError {
    /// A parameter is outside its range.
    #[error("`{field}` is {value}, it must be {permitted}")]
    OutOfRange {
        /// The parameter.
        field: &'static str,
        /// What was given.
        value: f64,
        /// What may be given, in words.
        permitted: &'static str,
    },
    /// A parameter names a token that the model does not have.
    #[error("`{field}` names token {token}, the vocabulary has {n_vocab} tokens")]
    UnknownToken {
        /// The parameter.
        field: &'static str,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// The row is not a row of this vocabulary.
    #[error("a row of {row_len} logits does not fit a vocabulary of {n_vocab} tokens")]
    RowLength {
        /// Length of the row.
        row_len: usize,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// The mask does not cover the vocabulary.
    #[error("a mask of {words} words does not cover a vocabulary that needs {needed_words}")]
    MaskLength {
        /// Words of the mask.
        words: usize,
        /// Words the vocabulary needs.
        needed_words: usize,
    },
    /// The model computed something that is not a logit.
    #[error("logit {index} is NaN or +∞: the model's computation failed")]
    BadLogit {
        /// Where the first such logit stands.
        index: usize,
    },
    /// Every token is excluded.
    #[error("no token is left: the mask, the logit biases or the model exclude all of them")]
    NoCandidate,
}
