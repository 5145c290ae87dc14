//! From what an answer must look like to the constraint of its request.

use std::sync::Arc;

use ingle_engine::ConstraintHandle;
use ingle_grammar::{Environment, GrammarCache, GrammarError};

use crate::{AnswerOptions, Lease, RuntimeError};

/// The constraint that `options` ask for. Compiles the grammar, which may take a second: not for an executor's thread.
pub(crate) fn constraint(lease: &Lease, options: &AnswerOptions) -> Result<Option<ConstraintHandle>, RuntimeError> {
    let Some(source) = &options.grammar else { return Ok(None) };
    let compiled = grammars(lease)?.get(source)?;
    Ok(Some(ConstraintHandle(compiled.start())))
}

/// The grammars of the model; its vocabulary is prepared at first use.
fn grammars(lease: &Lease) -> Result<&GrammarCache, RuntimeError> {
    let tokenizer = lease.text()?.tokenizer();
    let prepare = || -> Result<GrammarCache, GrammarError> {
        Ok(GrammarCache::new(Arc::new(Environment::new(Arc::clone(tokenizer))?)))
    };
    lease.resident().grammars.get_or_init(prepare).as_ref().map_err(|error| error.clone().into())
}
