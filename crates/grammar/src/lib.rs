//! From a grammar (GBNF, JSON Schema, regular expression, Lark) to the set of tokens allowed next.
//!
//! GBNF is matched by this crate, the others by llguidance, both against the model's own vocabulary ([`Environment`]). A
//! [`Compiled`] grammar is
//! shared by all requests that use it; each gets its own [`ingle_engine::Constraint`]. What cannot be enforced is an
//! error, or, where the caller allows that, known before the first token ([`Compiled::unenforced`]) and checked
//! afterwards ([`Compiled::validate`]). The crate knows no sampling, no models and no HTTP.
#![forbid(unsafe_code)]

mod after;
mod cache;
mod compile;
mod composed;
mod environment;
mod error;
mod expressions;
mod formats;
mod gbnf;
mod instance;
mod matcher;
mod places;
#[cfg(test)]
mod tests;
mod trigger;

pub use after::Opening;
pub use cache::GrammarCache;
pub use compile::{Compiled, GrammarSource, Strictness};
pub use composed::Piece;
pub use environment::Environment;
pub use error::GrammarError;
pub use gbnf::TextMatch;
pub use trigger::Trigger;
