//! Wire formats of every HTTP dialect as serde types: what a request may look like, and exactly what an answer looks
//! like.
//!
//! Nothing here decides anything: no defaults are chosen, no range is checked, no model is looked up. Requests are
//! lenient in the ways real clients need (unknown keys are ignored, an explicit `null` is an absent key, `16.0` is an
//! integer) and strict otherwise; answers serialise their keys in declaration order, which golden files pin down.
//!
//! No type uses serde's `flatten` or internal tagging on the way in: both buffer the input and lose the path of a
//! faulty value, and a body with base64 images in it is large.
//!
//! Features: `client` adds a typed client, `schema` derives JSON Schemas for the OpenAPI document.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub(crate) mod lenient;
pub mod localai;
pub mod openai;
pub mod rerank;

#[cfg(test)]
mod golden;
