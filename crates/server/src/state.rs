//! What every handler sees.
use std::sync::Arc;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::options::ServerOptions;

/// The runtime, the settings, and what is counted; clones share it.
#[derive(Debug, Clone)]
pub struct ServerState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: ServerOptions,
    metrics: Metrics,
    lifecycle: Lifecycle,
}

impl ServerState {
    /// A server.
    pub fn new(options: ServerOptions) -> Self {
        Self(Arc::new(Inner { options, metrics: Metrics::new(), lifecycle: Lifecycle::new() }))
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
}
