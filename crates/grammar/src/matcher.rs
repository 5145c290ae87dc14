//! One answer on its way through a grammar.

use std::sync::Arc;

use ingle_engine::{Allowed, Constraint, ConstraintError, TokenId};
use llguidance::Matcher;
use llguidance::api::StopReason;

use crate::Environment;

/// An llguidance matcher as the engine's constraint.
pub(crate) struct GrammarMatcher {
    matcher: Matcher,
    environment: Arc<Environment>,
}

impl GrammarMatcher {
    pub(crate) fn new(matcher: Matcher, environment: Arc<Environment>) -> Self {
        Self { matcher, environment }
    }
}

fn failed(reason: impl ToString) -> ConstraintError {
    ConstraintError { reason: reason.to_string() }
}

fn is_set(words: &[u32], token: TokenId) -> bool {
    words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

impl Constraint for GrammarMatcher {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        if self.matcher.is_stopped() {
            return match self.matcher.stop_reason() {
                StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence => {
                    Ok(Allowed::Nothing)
                }
                reason => Err(failed(self.matcher.get_error().unwrap_or_else(|| format!("{reason:?}")))),
            };
        }
        let set = self.matcher.compute_mask().map_err(failed)?;
        let mut words = set.as_slice().to_vec();
        words.resize(self.environment.n_vocab.div_ceil(32), 0);
        let ends = &self.environment.ends;
        let may_end = ends.iter().any(|&end| is_set(&words, end));
        ends.iter().for_each(|&end| words[end as usize / 32] &= !(1 << (end % 32)));
        match (words.iter().all(|&word| word == 0), may_end) {
            (true, true) => return Ok(Allowed::Nothing),
            (true, false) => return Err(failed("no token of the vocabulary continues the text")),
            (false, true) => ends.iter().for_each(|&end| words[end as usize / 32] |= 1 << (end % 32)),
            (false, false) => {}
        }
        Ok(Allowed::These(words.into()))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        self.matcher.consume_token(token).map_err(failed)
    }

    fn forced(&mut self) -> Vec<TokenId> {
        self.matcher.compute_ff_tokens()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self { matcher: self.matcher.deep_clone(), environment: Arc::clone(&self.environment) })
    }

    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError> {
        self.matcher.rollback(n_tokens).map_err(failed)
    }
}
