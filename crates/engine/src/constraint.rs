//! What a sequence may say next: the border between sampling and grammars.

use std::sync::Arc;

use crate::TokenId;

/// A set of tokens, `[n_vocab / 32 rounded up]` words: bit `i % 32` of word `i / 32` is token `i`.
pub type TokenMask = Arc<[u32]>;

/// The tokens that may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Every token: nothing is constrained at this point.
    All,
    /// These and no others, at least one. End-of-generation tokens are among them exactly where the text so far is
    /// complete.
    These(TokenMask),
    /// Nothing: the text is complete and cannot go on.
    Nothing,
}

/// Restricts one sequence. Fails closed: after an error no token is allowed any more.
///
/// It sees every token of the answer through [`Constraint::accept`], in order, except the end-of-generation token.
pub trait Constraint: Send {
    /// What may come next. May take milliseconds the first time a state is visited; asked again without an
    /// [`Constraint::accept`] in between, it answers the same.
    ///
    /// # Errors
    /// [`ConstraintError`] when a limit of time or memory is reached.
    fn allowed(&mut self) -> Result<Allowed, ConstraintError>;

    /// Takes `token` into the text.
    ///
    /// # Errors
    /// [`ConstraintError`] when the token is not allowed here.
    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError>;

    /// Tokens that must follow whatever is sampled, as the model's own tokenizer would split their text; empty where
    /// there is a choice. They are not accepted by this call.
    fn forced(&mut self) -> Vec<TokenId>;

    /// The same state for another sequence.
    fn fork(&self) -> Box<dyn Constraint>;

    /// Takes back the last `n_tokens` accepted tokens.
    ///
    /// # Errors
    /// [`ConstraintError`] when fewer were accepted.
    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError>;
}

/// A constraint in a request: a clone is a fork, for another sequence.
pub struct ConstraintHandle(pub Box<dyn Constraint>);

impl Clone for ConstraintHandle {
    fn clone(&self) -> Self {
        Self(self.0.fork())
    }
}

impl std::fmt::Debug for ConstraintHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintHandle").finish_non_exhaustive()
    }
}

/// A constraint cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the constraint on the answer failed: {reason}")]
pub struct ConstraintError {
    /// What went wrong.
    pub reason: String,
}
