//! What the runtime reports about itself.

use ingle_engine::{BatchHandle, BatchStats, MemoryEstimate, TextStats};

/// How a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// Its weights are being read.
    Loading,
    /// It answers.
    Ready,
    /// Its engine has died; the next request loads it again.
    Dead {
        /// Why.
        reason: String,
    },
}

/// A model in memory, or on its way there.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedModel {
    /// Its name.
    pub name: String,
    /// The backend that runs it.
    pub backend: String,
    /// How it is.
    pub state: ModelState,
    /// The devices it runs on.
    pub placement: String,
    /// What it takes.
    pub memory: MemoryEstimate,
    /// Calls that use it now.
    pub leases: usize,
    /// Totals and occupancy of its text, once it is loaded.
    pub stats: Option<TextStats>,
    /// What its other tasks have done.
    pub batched: Vec<BatchedTask>,
}

/// What a model has done of a task that works off batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchedTask {
    /// Such as `embed`.
    pub task: &'static str,
    /// What cost is counted in.
    pub unit: &'static str,
    /// Totals and what is there now.
    pub stats: BatchStats,
}

impl BatchedTask {
    pub(crate) fn of((task, handle): (&'static str, &dyn BatchHandle)) -> Self {
        Self { task, unit: handle.unit(), stats: handle.stats() }
    }
}

/// Whether requests can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet.
    Starting {
        /// What is going on.
        reason: String,
    },
    /// An engine has died, or none of a backend can live any more in this process.
    Degraded {
        /// Which one and why.
        reason: String,
    },
}
