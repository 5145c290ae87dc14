//! How long models stay in memory: the settings.

use std::time::Duration;

/// When models are taken out of memory. [`Default`] keeps them until another one needs their place.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidencyOptions {
    /// Models in memory at once; absent is as many as fit.
    pub max_models: Option<usize>,
    /// Bytes that all models may take together; absent is the machine's memory.
    pub memory_budget_bytes: Option<u64>,
    /// Bytes that all models may take together on GPUs; absent is what these have. Models on the CPU do not count.
    pub gpu_budget_bytes: Option<u64>,
    /// How long a model stays at least once it is loaded. While requests for two models that do not fit together go on,
    /// they take turns of this length.
    pub min_residence: Duration,
    /// How long a load waits for answers that run on a model that has to go.
    pub busy_wait: Duration,
    /// Answers on a model that has to go are ended instead.
    pub ends_busy_models: bool,
    /// The largest model goes first, not the one that was used least recently.
    pub evicts_largest: bool,
    /// Models that were not used for this long are taken out of memory.
    pub idle_timeout: Option<Duration>,
    /// Answers that took this long are ended.
    pub busy_timeout: Option<Duration>,
    /// Idle models are taken out of memory while more than this share of it is used.
    pub reclaim_threshold: Option<f64>,
    /// How often idle times and memory are looked at.
    pub check_interval: Duration,
    /// After a failed load, requests are refused for this long; twice as long after each further one, up to 5 minutes.
    pub failure_cooldown: Duration,
    /// Requests in all models at once.
    pub max_requests: usize,
}

impl Default for ResidencyOptions {
    fn default() -> Self {
        Self {
            max_models: None,
            memory_budget_bytes: None,
            gpu_budget_bytes: None,
            min_residence: Duration::from_secs(5),
            busy_wait: Duration::from_secs(30),
            ends_busy_models: false,
            evicts_largest: false,
            idle_timeout: None,
            busy_timeout: None,
            reclaim_threshold: None,
            check_interval: Duration::from_millis(500),
            failure_cooldown: Duration::from_secs(10),
            max_requests: 1024,
        }
    }
}
