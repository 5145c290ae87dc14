//! From what an answer must look like to the constraint of its request.

use std::sync::Arc;

use ingle_engine::ConstraintHandle;
use ingle_grammar::{Compiled, Environment, GrammarCache, GrammarError};
use ingle_prompt::ReasoningFormat;

use crate::{AnswerOptions, Lease, RuntimeError};

/// The form that `options` ask for. Compiles the grammar, which may take a second: not for an executor's thread.
pub(crate) fn form(lease: &Lease, options: &AnswerOptions) -> Result<Option<Arc<Compiled>>, RuntimeError> {
    let Some(source) = &options.grammar else { return Ok(None) };
    Ok(Some(grammars(lease)?.get(source)?))
}

/// The constraint of an answer of this form; a model that reasons first is constrained behind its reasoning.
pub(crate) fn constraint(
    lease: &Lease,
    form: Option<&Arc<Compiled>>,
    format: ReasoningFormat,
) -> Result<Option<ConstraintHandle>, RuntimeError> {
    let Some(form) = form else { return Ok(None) };
    let opening = match format.answer_begins_behind() {
        Some(text) => grammars(lease)?.opening(text),
        None => None,
    };
    Ok(Some(ConstraintHandle(match opening {
        Some(opening) => opening.then(form.start()),
        None => form.start(),
    })))
}

/// The grammars of the model; its vocabulary is prepared at first use.
fn grammars(lease: &Lease) -> Result<&GrammarCache, RuntimeError> {
    let tokenizer = lease.text()?.tokenizer();
    let prepare = || -> Result<GrammarCache, GrammarError> {
        Ok(GrammarCache::new(Arc::new(Environment::new(Arc::clone(tokenizer))?)))
    };
    lease.resident().grammars.get_or_init(prepare).as_ref().map_err(|error| error.clone().into())
}
