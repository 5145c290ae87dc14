//! How many prompt tokens a step may carry without slowing running answers down too much.

use std::time::Duration;

/// A step with prompt tokens may take this many times the time of a step without.
const SLOWDOWN: f64 = 2.75;
/// Prompt tokens in a step before anything was measured.
const FIRST_GUESS: usize = 16;
/// Weight of a new measurement.
const NEW: f64 = 0.25;

/// Learns what steps cost and derives the budget of prompt tokens.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// Seconds of a step with answers only, smoothed.
    plain_secs: Option<f64>,
    /// Seconds one more prompt token costs, smoothed.
    token_secs: Option<f64>,
}

impl Pacer {
    /// Records a step of `n_answers` answers and `n_prompt_tokens` prompt tokens.
    pub(super) fn record(&mut self, n_answers: usize, n_prompt_tokens: usize, took: Duration) {
        let secs = took.as_secs_f64();
        match (n_answers, n_prompt_tokens) {
            (0, 0) => {}
            (0, n) => smooth(&mut self.token_secs, secs / n as f64),
            (_, 0) => smooth(&mut self.plain_secs, secs),
            (_, n) => {
                let extra = secs - self.plain_secs.unwrap_or(0.0);
                smooth(&mut self.token_secs, extra.max(0.0) / n as f64);
            }
        }
    }

    /// Prompt tokens the next step may carry beside answers; at least 1.
    pub(super) fn budget(&self) -> usize {
        match (self.plain_secs, self.token_secs) {
            (Some(plain), Some(token)) if token > 0.0 => (((SLOWDOWN - 1.0) * plain / token) as usize).max(1),
            _ => FIRST_GUESS,
        }
    }
}

fn smooth(value: &mut Option<f64>, new: f64) {
    *value = Some(value.map_or(new, |old| old + NEW * (new - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_keeps_mixed_steps_under_the_slowdown() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.budget(), FIRST_GUESS);
        // A machine where a plain step takes 40 ms and a prompt token 4 ms.
        for _ in 0..50 {
            pacer.record(4, 0, Duration::from_millis(40));
            let n = pacer.budget();
            pacer.record(4, n, Duration::from_millis(40 + 4 * n as u64));
        }
        let step_ms = 40.0 + 4.0 * pacer.budget() as f64;
        assert!(step_ms <= SLOWDOWN * 40.0, "step of {step_ms} ms");
        assert!(step_ms >= (SLOWDOWN - 0.5) * 40.0, "step of {step_ms} ms wastes the allowance");
    }

    #[test]
    fn an_expensive_prompt_still_makes_progress() {
        let mut pacer = Pacer::default();
        pacer.record(1, 0, Duration::from_millis(1));
        pacer.record(1, 1, Duration::from_secs(1));
        assert_eq!(pacer.budget(), 1);
    }
}
