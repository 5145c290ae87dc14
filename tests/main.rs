//! The real program and the library with a small real model: one binary, a module an area.
//!
//! Parts that need a model say so and are passed over where the test models are not installed (`make test` does that).
#![forbid(unsafe_code)]

mod bench;
mod cached;
mod cli;
mod constrained;
mod damaged;
mod dropin;
mod encoders;
mod gpu;
mod grammar;
mod http;
mod library;
mod openai;
mod packages;
mod serve;
mod speech;
mod support;
#[cfg(feature = "candle")]
mod token_types;
mod tools;
mod voices;
