//! From a grammar (JSON Schema, regular expression, Lark) to the set of tokens allowed next.
//!
//! Grammars are compiled by llguidance against the model's own vocabulary ([`Environment`]). A [`Compiled`] grammar is
//! shared by all requests that use it; each gets its own [`ingle_engine::Constraint`]. What cannot be enforced is an
//! error, or, where the caller allows that, known before the first token ([`Compiled::unenforced`]) and checked
//! afterwards ([`Compiled::validate`]). The crate knows no sampling, no models and no HTTP.
#![forbid(unsafe_code)]

mod cache;
mod compile;
mod environment;
mod error;
mod formats;
mod matcher;
#[cfg(test)]
mod tests;

pub use cache::GrammarCache;
pub use compile::{Compiled, GrammarSource, Strictness};
pub use environment::Environment;
pub use error::GrammarError;
