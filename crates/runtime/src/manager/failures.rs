//! Loads that failed: the next request does not try again at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::resident::Origin;
use crate::RuntimeError;

/// A model is tried again after this long at the latest.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Failures(BTreeMap<String, Failure>);

struct Failure {
    origin: Origin,
    reason: String,
    cooldown: Duration,
    until: Instant,
}

impl Failures {
    /// Refuses a model that failed just now. One whose configuration or file has changed since is tried at once.
    pub(super) fn check(&mut self, model: &str, origin: &Origin) -> Result<(), RuntimeError> {
        let Some(failure) = self.0.get(model) else { return Ok(()) };
        if failure.origin != *origin {
            self.0.remove(model);
            return Ok(());
        }
        let left = failure.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        Err(RuntimeError::CoolingDown {
            model: model.to_owned(),
            reason: failure.reason.clone(),
            retry_after_secs: left.as_secs() + 1,
        })
    }

    /// Remembers a failure, unless it is one of the moment: other models were in use.
    pub(super) fn note(&mut self, model: &str, origin: Origin, error: &RuntimeError, first: Duration) {
        if matches!(error, RuntimeError::OutOfMemory { n_busy: 1.., .. }) || first.is_zero() {
            return;
        }
        let before = self.0.get(model).filter(|failure| failure.origin == origin).map(|failure| failure.cooldown);
        let cooldown = before.map_or(first, |before| before.saturating_mul(2)).min(LONGEST.max(first));
        let until = Instant::now() + cooldown;
        self.0.insert(model.to_owned(), Failure { origin, reason: error.to_string(), cooldown, until });
    }

    pub(super) fn forget(&mut self, model: &str) {
        self.0.remove(model);
    }
}
