//! From what an answer must look like to the constraint of its request.

use std::sync::Arc;

use ingle_catalog::{Catalog, ModelConfig};
use ingle_engine::{Constraint, ConstraintHandle};
use ingle_grammar::{Compiled, Environment, GrammarCache, GrammarError, GrammarSource};
use ingle_prompt::{PromptError, ReasoningFormat};

use crate::{Lease, RuntimeError};

/// The form that is asked for. Compiles the grammar, which may take a second: not for an executor's thread.
pub(crate) fn form(lease: &Lease, source: Option<&GrammarSource>) -> Result<Option<Arc<Compiled>>, RuntimeError> {
    let Some(source) = source else { return Ok(None) };
    Ok(Some(grammars(lease)?.get(source)?))
}

/// The grammar of answers to requests that bring none, as the model's configuration has it.
pub(crate) fn of_config(catalog: &Catalog, config: &ModelConfig) -> Result<Option<GrammarSource>, RuntimeError> {
    let defaults = &config.defaults;
    let text = match (&defaults.grammar, &defaults.grammar_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => {
            let path = catalog.models_path().join(file);
            std::fs::read_to_string(&path).map_err(|_| PromptError::Input {
                field: format!("grammar_file of the model's configuration, {},", path.display()),
                expected: "a readable file of text",
            })?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(GrammarSource::Gbnf(text)))
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
