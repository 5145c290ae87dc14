//! Temperature, fixed or following the entropy.

use super::params::SamplingParams;
use super::pool::Pool;

/// Divides the logits by the temperature of `params`.
pub(super) fn apply(pool: &mut Pool, params: &SamplingParams) {
    if params.dynatemp_range > 0.0 {
        apply_dynamic(pool, params);
    } else {
        apply_fixed(pool, params.temperature);
    }
}

/// Divides the logits by `temperature`; 0, or one so small that the quotients overflow, keeps the most likely token
/// alone.
pub(super) fn apply_fixed(pool: &mut Pool, temperature: f32) {
    if temperature > 0.0 && (pool.max() / temperature).is_finite() {
        return pool.divide(temperature);
    }
    let n_counted = pool.n_counted();
    if pool.is_row() {
        pool.gather_top(1);
    } else {
        pool.keep_top(1);
    }
    pool.become_list(n_counted);
}

/// Entropy, as a share of what the number of candidates allows, picks the temperature within the range.
fn apply_dynamic(pool: &mut Pool, params: &SamplingParams) {
    if pool.n_counted() <= 1 {
        return;
    }
    let low = (params.temperature - params.dynatemp_range).max(0.0);
    let high = params.temperature + params.dynatemp_range;
    let max_entropy = (pool.n_counted() as f32).ln();
    let share = pool.moments().1.entropy().max(0.0) as f32 / max_entropy;
    apply_fixed(pool, low + (high - low) * share.powf(params.dynatemp_exponent));
}
