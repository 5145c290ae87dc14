//! Whether it pays to save finished prefixes outside the cache, as measured on this machine.
//!
//! On a processor a state is saved in a fraction of the time its tokens took to compute, and every step gets quicker by
//! the cells that are freed. From a GPU the same state travels in many small copies, and computing it again may be the
//! quicker way.

use std::time::{Duration, Instant};

/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// A state has to be saved and brought back in less than the time that its tokens take to compute, with a reserve.
const RESERVE: f64 = 4.0;
/// While answers wait, saving takes at most this part (1 / n) of the time.
const SHARE: u32 = 20;

/// Learns what saving costs.
#[derive(Debug, Default)]
pub(super) struct ParkMeter {
    /// Seconds for each token of a state, smoothed; none before the first one.
    secs_per_token: Option<f64>,
    /// When the last one was saved, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl ParkMeter {
    /// A state of `n_tokens` was saved.
    pub(super) fn record(&mut self, n_tokens: usize, took: Duration, now: Instant) {
        let secs = took.as_secs_f64() / n_tokens.max(1) as f64;
        self.secs_per_token = Some(self.secs_per_token.map_or(secs, |old| old + NEW * (secs - old)));
        self.last = Some((now, took));
    }

    /// Is a state cheaper to save than to compute again, at `token_secs` a token? Yes until both are known.
    pub(super) fn pays(&self, token_secs: Option<f64>) -> bool {
        match (self.secs_per_token, token_secs) {
            (Some(save), Some(compute)) => RESERVE * save <= compute,
            _ => true,
        }
    }

    /// May answers be kept waiting for one more?
    pub(super) fn may_interrupt(&self, now: Instant) -> bool {
        self.last.is_none_or(|(at, took)| now.saturating_duration_since(at) >= took * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_pays_where_it_is_cheap_and_interrupts_seldom() {
        let mut meter = ParkMeter::default();
        let start = Instant::now();
        assert!(meter.pays(Some(1e-6)) && meter.may_interrupt(start));
        meter.record(1000, Duration::from_millis(10), start);
        assert!(meter.pays(Some(1e-3)) && meter.pays(None));
        assert!(!meter.pays(Some(2e-5)), "10 µs to save, 20 µs to compute");
        assert!(!meter.may_interrupt(start + Duration::from_millis(150)));
        assert!(meter.may_interrupt(start + Duration::from_millis(200)));
    }
}
