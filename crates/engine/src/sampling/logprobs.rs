//! Log probabilities as OpenAI defines them: of the model's own distribution, before any sampler acts.

use ingle_kernels::{by_rank, sum_exp, top_k};

use super::error::SamplingError;
use super::pool::{Scratch, scan};

/// Log probabilities are never below this, so that they are always finite numbers.
pub const LOGPROB_FLOOR: f32 = -9999.0;

/// Log probability of a chosen token and of its alternatives, natural logarithm, over the whole raw row.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Of the chosen token.
    pub logprob: f32,
    /// The most likely tokens, likeliest first; the chosen one is among them only if it is that likely.
    pub top: Vec<(u32, f32)>,
}

/// The log softmax of a raw row, and its head.
pub(super) struct RawLogprobs {
    max: f32,
    log_sum: f64,
    top: Vec<(u32, f32)>,
}

impl RawLogprobs {
    /// Looks at a raw row, `[n_vocab]`.
    ///
    /// # Errors
    /// A NaN or +∞, or nothing above −∞.
    pub(super) fn of(row: &[f32], n_top: usize, scratch: &mut Scratch) -> Result<Self, SamplingError> {
        let Scratch { maxima, list, pivots, .. } = scratch;
        scan(maxima, row)?;
        let max = maxima.max();
        if max == f32::NEG_INFINITY {
            return Err(SamplingError::NoCandidate);
        }
        let mut raw = Self { max, log_sum: sum_exp(row, max).ln(), top: Vec::new() };
        top_k(row, maxima, n_top, pivots, list);
        list.sort_unstable_by(by_rank);
        raw.top = list.iter().map(|c| (c.index, raw.logprob(c.value))).collect();
        Ok(raw)
    }

    fn logprob(&self, logit: f32) -> f32 {
        ((f64::from(logit) - f64::from(self.max) - self.log_sum) as f32).clamp(LOGPROB_FLOOR, 0.0)
    }

    /// What is said about the token with this raw logit.
    pub(super) fn about(self, logit: f32) -> TokenLogprob {
        TokenLogprob { logprob: self.logprob(logit), top: self.top }
    }
}
