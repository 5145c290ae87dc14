//! Repeat, presence and frequency penalties.

use super::history::History;
use super::params::SamplingParams;
use super::pool::Pool;

/// Lowers the logits of the tokens in the window. The repeat penalty divides a positive logit and multiplies a
/// negative one, so that it never makes a token likelier.
pub(super) fn penalise(pool: &mut Pool, params: &SamplingParams, history: &History) {
    pool.penalise(history.counts(), |logit, &count| {
        let scaled = if logit <= 0.0 { logit * params.repeat_penalty } else { logit / params.repeat_penalty };
        scaled - (count as f32 * params.frequency_penalty + params.presence_penalty)
    });
}
