//! What counts as well served.

use anyhow::{Context, bail};

use super::target::Outcome;

/// Limits in milliseconds; an absent one is not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Slo {
    first_ms: Option<f64>,
    gap_ms: Option<f64>,
    total_ms: Option<f64>,
}

impl Slo {
    /// From `ttft=500,gap=100,total=5000`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut slo = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').with_context(|| format!("{part:?} is not NAME=MILLISECONDS"))?;
            let value: f64 = value.trim().parse().with_context(|| format!("{value:?} is no number"))?;
            if !value.is_finite() || value <= 0.0 {
                bail!("the limit {part:?} must be above 0");
            }
            match name.trim() {
                "ttft" => slo.first_ms = Some(value),
                "gap" => slo.gap_ms = Some(value),
                "total" => slo.total_ms = Some(value),
                other => bail!("there is no limit {other:?}; use ttft, gap and total"),
            }
        }
        Ok(slo)
    }

    /// Was it answered within all limits?
    pub(super) fn is_met(&self, outcome: &Outcome) -> bool {
        let within =
            |value: Option<f64>, limit: Option<f64>| limit.is_none_or(|limit| value.is_none_or(|value| value <= limit));
        outcome.failure.is_none()
            && within(outcome.first_ms(), self.first_ms)
            && within(outcome.mean_gap_ms(), self.gap_ms)
            && within(Some(outcome.total_ms()), self.total_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Slo;
    use crate::bench::serve::target::{Failure, Outcome};

    #[test]
    fn limits_are_read_and_kept() {
        let slo = Slo::parse("ttft=500, gap=100").unwrap();
        assert_eq!(slo, Slo { first_ms: Some(500.0), gap_ms: Some(100.0), total_ms: None });
        for bad in ["", "ttft", "ttft=x", "speed=3", "gap=-1", "total=NaN"] {
            assert!(Slo::parse(bad).is_err(), "{bad}");
        }
        let sent = Instant::now();
        let at = |ms| sent + Duration::from_millis(ms);
        let outcome = |first, last| Outcome {
            sent,
            arrivals: vec![at(first), at(last)],
            ended: at(last),
            usage: None,
            failure: None,
        };
        assert!(slo.is_met(&outcome(400, 480)));
        assert!(!slo.is_met(&outcome(600, 680)), "late");
        assert!(!slo.is_met(&outcome(400, 580)), "slow");
        assert!(!slo.is_met(&Outcome { failure: Some(Failure::of("x")), ..outcome(1, 2) }));
    }
}
