//! From what an answer must look like to the constraint of its request.

use std::sync::Arc;

use ingle_engine::{Constraint, ConstraintHandle};
use ingle_grammar::{Compiled, Environment, GrammarCache, GrammarError};
use ingle_prompt::ReasoningFormat;

use crate::{AnswerOptions, Lease, RuntimeError};

/// The form that `options` ask for. Compiles the grammar, which may take a second: not for an executor's thread.
pub(crate) fn form(lease: &Lease, options: &AnswerOptions) -> Result<Option<Arc<Compiled>>, RuntimeError> {
    let Some(source) = &options.grammar else { return Ok(None) };
    Ok(Some(grammars(lease)?.get(source)?))
}

/// `constraint` for a model that reasons first: it begins behind the reasoning.
pub(crate) fn behind_reasoning(
    lease: &Lease,
    constraint: Box<dyn Constraint>,
    format: ReasoningFormat,
) -> Result<ConstraintHandle, RuntimeError> {
    let grammars = grammars(lease)?;
    let constraint = match (format, format.answer_begins_behind()) {
        (_, Some(text)) => match grammars.opening(text, None) {
            Some(opening) => opening.then(constraint),
            None => constraint,
        },
        // The model decides whether it opens its reasoning.
        (ReasoningFormat::Tags { open, close, .. }, None) => match grammars.opening(close, Some(open)) {
            Some(opening) => opening.then_or_at_once(constraint),
            None => constraint,
        },
        (ReasoningFormat::None | ReasoningFormat::Harmony, None) => constraint,
    };
    Ok(ConstraintHandle(constraint))
}

/// The grammars of the model; its vocabulary is prepared at first use.
pub(crate) fn grammars(lease: &Lease) -> Result<&GrammarCache, RuntimeError> {
    let tokenizer = lease.text()?.tokenizer();
    let prepare = || -> Result<GrammarCache, GrammarError> {
        Ok(GrammarCache::new(Arc::new(Environment::new(Arc::clone(tokenizer))?)))
    };
    lease.resident().grammars.get_or_init(prepare).as_ref().map_err(|error| error.clone().into())
}
