//! What every handler sees.
use std::sync::Arc;

use ingle_runtime::Runtime;
use ingle_runtime::catalog::JobBoard;

use crate::layers::KeyRing;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::sse::Pace;

/// The runtime, the settings, and what is counted; clones share it.
#[derive(Debug, Clone)]
pub struct ServerState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    options: ServerOptions,
    metrics: Metrics,
    lifecycle: Lifecycle,
    keys: KeyRing,
    rate_limiter: Option<RateLimiter>,
    jobs: Option<JobBoard>,
}

/// Counts requests by caller.
pub(crate) type RateLimiter = governor::DefaultKeyedRateLimiter<Vec<u8>>;

impl ServerState {
    /// A server of what `runtime` offers.
    pub fn new(runtime: Runtime, options: ServerOptions) -> Self {
        let keys = KeyRing::new(options.api_keys.clone(), options.keys_file.clone());
        let quota = options.rate_limit.map(governor::Quota::per_minute);
        Self(Arc::new(Inner {
            runtime,
            keys,
            rate_limiter: quota.map(RateLimiter::keyed),
            options,
            metrics: Metrics::new(),
            lifecycle: Lifecycle::new(),
            jobs: None,
        }))
    }

    /// The same with endpoints that install and delete models.
    ///
    /// # Panics
    /// When the state is shared already.
    #[must_use]
    pub fn with_jobs(mut self, jobs: JobBoard) -> Self {
        Arc::get_mut(&mut self.0).expect("a state gets its jobs before it is shared").jobs = Some(jobs);
        self
    }

    pub(crate) fn jobs(&self) -> Option<&JobBoard> {
        self.0.jobs.as_ref()
    }

    /// Does a request need no key?
    pub fn is_open(&self) -> bool {
        self.0.keys.is_open()
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    pub(crate) fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.0.rate_limiter.as_ref()
    }

    /// What answers.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// The settings.
    pub fn options(&self) -> &ServerOptions {
        &self.0.options
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { head_delay: self.0.options.head_delay, keep_alive: self.0.options.keep_alive }
    }
}
