//! The one error type of this crate.

/// Why a grammar cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or asks for something that cannot be enforced.
    #[error("the {kind} cannot be enforced: {reason}")]
    Refused {
        /// What it is: `GBNF grammar`, `JSON schema`, `regular expression`, `Lark grammar`.
        kind: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// It is larger than what is compiled.
    #[error("the {kind} has {bytes} bytes, at most {limit} are taken; make it smaller")]
    TooLarge {
        /// What it is.
        kind: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The model's vocabulary cannot be used for constraints.
    #[error("this model's vocabulary cannot be used with grammars: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
}
