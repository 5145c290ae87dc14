//! Real models, loaded and driven through the public surface of the crate.

#[path = "../common/mod.rs"]
mod common;

mod decoding;
mod encoders;
mod generation;
mod loading;
mod options;
mod tokenizing;
