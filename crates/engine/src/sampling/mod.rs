//! From a row of logits to a token: biases, penalties, truncation, temperature and the draw.
//!
//! Everything here is pure arithmetic over rows that a backend lends, so every backend samples alike. The samplers and
//! their default order are those of llama.cpp and give its probabilities; where llama.cpp sorts the vocabulary, we
//! select. A row is never sorted whole, and a token in steady state allocates nothing (unless log probabilities are
//! asked for).
//!
//! [`Sampler`] holds what one sequence needs: its parameters, its random numbers, its history. What a scheduler must
//! do: [`Sampler::prime`] with the prompt, then for every row [`Sampler::sample`] and, once the token is really part of
//! the sequence, [`Sampler::accept`].

mod dry;
mod error;
mod history;
mod logprobs;
mod mirostat;
mod params;
mod penalties;
mod pool;
mod sampler;
mod temperature;
mod truncate;

pub use dry::DryBreakers;
pub use error::SamplingError;
pub use logprobs::{LOGPROB_FLOOR, TokenLogprob};
pub use params::{DEFAULT_SAMPLERS, Dry, MAX_WINDOW, Mirostat, MirostatVersion, SamplerKind, SamplingParams, Xtc};
pub use pool::Scratch;
pub use sampler::{Sampled, Sampler};

#[cfg(test)]
mod tests;
