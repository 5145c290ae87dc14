//! What every handler sees.
use std::sync::Arc;

use ingle_runtime::Runtime;

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
}

impl ServerState {
    /// A server of what `runtime` offers.
    pub fn new(runtime: Runtime, options: ServerOptions) -> Self {
        Self(Arc::new(Inner { runtime, options, metrics: Metrics::new(), lifecycle: Lifecycle::new() }))
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
