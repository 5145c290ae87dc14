//! The vocabulary of inference: what a loaded model is, and how one is driven for many clients at once.
//!
//! The crate holds the traits a backend implements ([`Backend`], [`Decoder`], [`Tokenizer`]), the pure batching
//! [`scheduler`] with its prefix cache, the [`sampling`] chain, and the owning engine thread whose receiving end is a
//! [`Generation`]. It deliberately knows no FFI, no files, no HTTP and no JSON, so everything here is tested against a
//! decoder made of arithmetic (feature `fake`).
#![forbid(unsafe_code)]

pub mod sampling;
mod segment;

pub use segment::{Segment, SpecialTokens};
