//! Compiled grammars, kept by content.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Compiled, Environment, GrammarError, GrammarSource, Opening, Strictness, Trigger};

/// Grammars that are kept; the one used least recently goes. Each may grow to some tens of megabytes as it is used.
const MOST_KEPT: usize = 32;

type Slot = Arc<Mutex<Option<Arc<Compiled>>>>;

type OpeningKey = (String, Option<String>);

struct Kept {
    source: GrammarSource,
    /// Filled by whoever comes first; others with the same grammar wait for it.
    slot: Slot,
    last_used: u64,
}

#[derive(Default)]
struct State {
    kept: HashMap<u64, Kept>,
    use_counter: u64,
}

/// Compiles grammars of one model, each once.
pub struct GrammarCache {
    environment: Arc<Environment>,
    /// Held for a look only, never while something is compiled.
    state: Mutex<State>,
    /// By the text that they wait for and what opens it; a model has one or two.
    openings: Mutex<HashMap<OpeningKey, Arc<Opening>>>,
    /// By the text at which calls begin; a model has one.
    triggers: Mutex<HashMap<(String, bool), Arc<Trigger>>>,
}

impl std::fmt::Debug for GrammarCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCache").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl GrammarCache {
    /// An empty cache.
    pub fn new(environment: Arc<Environment>) -> Self {
        Self { environment, state: Mutex::default(), openings: Mutex::default(), triggers: Mutex::default() }
    }

    /// The compiled grammar; from the cache when it was asked for before. Blocks while it is compiled.
    ///
    /// # Errors
    /// As [`Compiled::new`]; failures are not kept.
    pub fn get(&self, source: &GrammarSource) -> Result<Arc<Compiled>, GrammarError> {
        let slot = self.slot(source);
        // A panic while it is held leaves it empty, which is valid.
        let mut compiled = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = &*compiled {
            return Ok(Arc::clone(compiled));
        }
        let fresh = Arc::new(Compiled::new(&self.environment, source)?);
        *compiled = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// What it takes to begin a constraint behind `text`; none for the vocabulary of bytes. Blocks while the vocabulary
    /// is looked at for the first time. `opening` is what opens a reasoning that ends with `text`.
    pub fn opening(&self, text: &str, opening: Option<&str>) -> Option<Arc<Opening>> {
        let tokenizer = self.environment.tokenizer()?;
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Opening::new(Arc::clone(tokenizer), text, opening));
        Some(Arc::clone(openings.entry((text.to_owned(), opening.map(str::to_owned))).or_insert_with(make)))
    }

    /// What it takes to constrain an answer from `text` on; none for the vocabulary of bytes. Blocks while the vocabulary
    /// is looked at for the first time.
    pub fn trigger(&self, text: &str, at_start: bool) -> Option<Arc<Trigger>> {
        let tokenizer = self.environment.tokenizer()?;
        let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Trigger::new(Arc::clone(tokenizer), text, at_start));
        Some(Arc::clone(triggers.entry((text.to_owned(), at_start)).or_insert_with(make)))
    }

    fn slot(&self, source: &GrammarSource) -> Slot {
        let key = key_of(source);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.use_counter += 1;
        let last_used = state.use_counter;
        if let Some(kept) = state.kept.get_mut(&key).filter(|kept| kept.source == *source) {
            kept.last_used = last_used;
            return Arc::clone(&kept.slot);
        }
        if state.kept.len() >= MOST_KEPT {
            let oldest = state.kept.iter().min_by_key(|(_, kept)| kept.last_used).map(|(&key, _)| key);
            oldest.map(|key| state.kept.remove(&key));
        }
        let slot = Slot::default();
        state.kept.insert(key, Kept { source: source.clone(), slot: Arc::clone(&slot), last_used });
        slot
    }
}

fn key_of(source: &GrammarSource) -> u64 {
    let mut hasher = DefaultHasher::new();
    match source {
        GrammarSource::JsonSchema { schema, strictness } => {
            (0, schema.to_string(), *strictness == Strictness::Strict).hash(&mut hasher);
        }
        GrammarSource::JsonObject => 1.hash(&mut hasher),
        GrammarSource::Regex(text) => (2, text).hash(&mut hasher),
        GrammarSource::Lark(text) => (3, text).hash(&mut hasher),
        GrammarSource::Gbnf(text) => (4, text).hash(&mut hasher),
        GrammarSource::Calls { form, .. } => (5, format!("{form:?}")).hash(&mut hasher),
    }
    hasher.finish()
}
