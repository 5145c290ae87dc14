//! Mirostat: truncates so that the surprise of the chosen tokens stays near a target.

use super::params::{Mirostat, MirostatVersion};
use super::pool::Pool;

/// Version 1 estimates Zipf's exponent from this many tokens, as llama.cpp does.
const N_ESTIMATE: usize = 100;

/// Controller of one sequence.
#[derive(Debug, Clone)]
pub(super) struct MirostatState {
    settings: Mirostat,
    /// Largest surprise that is let through, in bits.
    mu: f32,
    /// Token drawn last and its surprise in bits, until the token is accepted.
    drawn: Option<(u32, f32)>,
}

impl MirostatState {
    pub(super) fn new(settings: Mirostat) -> Self {
        Self { settings, mu: 2.0 * settings.tau, drawn: None }
    }

    /// Drops the tokens that are too surprising.
    pub(super) fn truncate(&self, pool: &mut Pool) {
        match self.settings.version {
            MirostatVersion::V1 => self.truncate_by_rank(pool),
            MirostatVersion::V2 => self.truncate_by_surprise(pool),
        }
    }

    fn truncate_by_surprise(&self, pool: &mut Pool) {
        let softmax = pool.softmax();
        let threshold = softmax.logit_of(f64::from(-self.mu).exp2()) as f32;
        let peak = pool.peak();
        if pool.is_row() {
            pool.gather_at_least(threshold.min(softmax.max));
        } else {
            pool.retain(|candidate| candidate.value >= threshold.min(softmax.max));
        }
        if let (true, Some(peak)) = (threshold > softmax.max, peak) {
            pool.retain(|candidate| candidate.index == peak.index);
        }
        pool.become_list(1);
    }

    fn truncate_by_rank(&self, pool: &mut Pool) {
        let n_vocab = pool.row_len();
        if pool.is_row() {
            pool.gather_top(N_ESTIMATE);
        }
        pool.sort();
        let k = self.rank_limit(pool, n_vocab);
        if pool.is_row() && k > pool.list().len() {
            pool.gather_top(k);
        } else {
            pool.keep_top(k);
        }
        pool.become_list(1);
    }

    /// How many tokens keep the surprise below `mu`, if the sorted list follows Zipf's law.
    fn rank_limit(&self, pool: &Pool, n_vocab: usize) -> usize {
        let (mut products, mut squares) = (0.0f32, 0.0f32);
        for (i, pair) in pool.list().windows(2).take(N_ESTIMATE - 1).enumerate() {
            let step = ((i + 2) as f32 / (i + 1) as f32).ln();
            products += step * (pair[0].value - pair[1].value);
            squares += step * step;
        }
        let exponent = products / squares;
        let epsilon = exponent - 1.0;
        let k = (epsilon * self.mu.exp2() / (1.0 - (n_vocab as f32).powf(-epsilon))).powf(1.0 / exponent);
        // NaN (a single candidate, an exponent of exactly 1) keeps one token.
        (k as usize).max(1)
    }

    /// Remembers what was drawn and how likely it was.
    pub(super) fn note(&mut self, token: u32, probability: f64) {
        self.drawn = Some((token, -probability.log2() as f32));
    }

    /// Learns from the drawn token when it became part of the sequence.
    pub(super) fn accept(&mut self, token: u32) {
        if let Some((drawn, surprise)) = self.drawn.take()
            && drawn == token
        {
            self.mu -= self.settings.eta * (surprise - self.settings.tau);
        }
    }
}
