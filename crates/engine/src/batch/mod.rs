//! A model that works off whole batches, behind its own thread: embeddings, reranking, speech, images.
//!
//! [`BatchThread::start`] builds a [`BatchModel`] on a new thread that owns it for life. Clones of the handle submit
//! calls of one or many requests and get a [`Pending`] each. The thread gathers requests of all waiting calls up to a
//! budget of cost (tokens, frames), one request of each call in turn, so that a call of ten thousand requests does not
//! hold up a call of one. A step that fails is repeated request by request, so that only the culprit's call fails.
//!
//! There is one generic trait instead of one for each modality: what tells them apart is the request and the response.

mod pending;
mod queue;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

pub use pending::{Answered, Pending};
use queue::Shared;

use crate::{EngineError, FaultReporter, Health};

/// Something that has a cost in the unit of its engine, such as tokens or frames.
pub trait Cost {
    /// How much of a step's budget it takes; 0 counts as 1.
    fn cost(&self) -> usize;
}

/// A model that answers a batch of requests at once. It lives on one thread and need not be `Send`.
pub trait BatchModel {
    /// One request.
    type Request: Cost + Send + 'static;
    /// Its answer.
    type Response: Send + 'static;

    /// Answers the requests, in their order: as many responses as requests. Blocks. A model that computes for long
    /// looks at `interrupt` now and then and may return any error once it is raised.
    ///
    /// # Errors
    /// When the step failed. Of several requests each is then tried alone, and only those that fail again fail.
    fn run(&mut self, batch: &[Self::Request], interrupt: &Interrupt<'_>) -> Result<Vec<Self::Response>, EngineError>;
}

/// Tells a running step whether anybody still waits for it.
pub struct Interrupt<'a>(&'a dyn Fn() -> bool);

impl<'a> Interrupt<'a> {
    /// An interrupt that is raised when `is_raised` says so.
    pub fn new(is_raised: &'a dyn Fn() -> bool) -> Self {
        Self(is_raised)
    }

    /// Is the step in vain? True when all its callers have gone or are out of time, or the model is being unloaded.
    pub fn is_raised(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for Interrupt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupt").field(&self.is_raised()).finish()
    }
}

/// Settings of an engine thread for batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchConfig {
    /// Name of the model, for messages.
    pub name: String,
    /// What cost is counted in, plural: `tokens`.
    pub unit: &'static str,
    /// Most cost of one step; a request that costs more runs alone.
    pub step_budget: usize,
    /// Calls that may wait.
    pub max_waiting: usize,
    /// Cost that may wait, all calls together; bounds the memory of the queue.
    pub max_waiting_cost: usize,
}

/// Totals since the model was loaded, and what is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchStats {
    /// Calls that have requests in the queue.
    pub waiting: usize,
    /// Requests in the step that runs now.
    pub running: usize,
    /// Requests answered.
    pub requests_done: u64,
    /// Their cost.
    pub cost_done: u64,
    /// Steps run.
    pub steps: u64,
    /// Microseconds spent in the model.
    pub busy_micros: u64,
}

/// What every engine thread for batches tells, whatever its requests are.
pub trait BatchHandle: Send + Sync {
    /// Is it alive?
    fn health(&self) -> Health;
    /// Totals and what is there now.
    fn stats(&self) -> BatchStats;
    /// What cost is counted in.
    fn unit(&self) -> &'static str;
    /// Ends the model whoever still has a handle: its calls end with [`EngineError::Unloaded`].
    fn close(&self);
}

struct Inner<Q, R> {
    shared: Arc<Shared<Q, R>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Handle of a running model; clones are cheap. When the last one is dropped the model ends.
pub struct BatchThread<Q, R>(Arc<Inner<Q, R>>);

impl<Q, R> Clone for BatchThread<Q, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, R> std::fmt::Debug for BatchThread<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchThread").field("config", &self.0.shared.config).finish_non_exhaustive()
    }
}

impl<Q: Cost + Send + 'static, R: Send + 'static> BatchThread<Q, R> {
    /// Starts the thread, builds the model on it and returns once that has ended.
    ///
    /// # Errors
    /// What `build` says; [`EngineError::Died`] when it panics.
    pub fn start<M, B>(config: BatchConfig, build: B) -> Result<Self, EngineError>
    where
        M: BatchModel<Request = Q, Response = R>,
        B: FnOnce(FaultReporter) -> Result<M, EngineError> + Send + 'static,
    {
        let name = format!("engine {}", config.name);
        let shared = Arc::new(Shared::new(config));
        let (built_sender, built) = mpsc::sync_channel(1);
        let owner = Arc::clone(&shared);
        let body = move || {
            steps::guard(&owner, || match build(FaultReporter::new(owner.clone())) {
                Ok(model) => {
                    let _ = built_sender.send(Ok(()));
                    steps::run(model, &owner);
                }
                Err(error) => {
                    let _ = built_sender.send(Err(error));
                }
            });
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        let thread = spawned.map_err(|error| shared.died_error(format!("its thread could not be started: {error}")))?;
        let lost = || shared.died_error(shared.reason_of_death().unwrap_or_else(|| "it never came up".into()));
        built.recv().map_err(|_| lost())??;
        Ok(Self(Arc::new(Inner { shared, thread: Mutex::new(Some(thread)) })))
    }

    /// Queues one call, all of its requests or none. Returns at once. The call ends with
    /// [`EngineError::TookTooLong`] when it takes longer than `time_limit`.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when there is no room, [`EngineError::TooMuchAtOnce`] when there never will be,
    /// [`EngineError::Died`] and [`EngineError::Unloaded`] when the engine is gone.
    pub fn submit(&self, requests: Vec<Q>, time_limit: Option<Duration>) -> Result<Pending<R>, EngineError> {
        self.0.shared.submit(requests, time_limit)
    }

    /// The settings it was started with.
    pub fn config(&self) -> &BatchConfig {
        &self.0.shared.config
    }
}

impl<Q: Cost + Send + 'static, R: Send + 'static> BatchHandle for BatchThread<Q, R> {
    fn health(&self) -> Health {
        self.0.shared.reason_of_death().map_or(Health::Alive, |reason| Health::Dead { reason })
    }

    fn stats(&self) -> BatchStats {
        self.0.shared.stats()
    }

    fn unit(&self) -> &'static str {
        self.0.shared.config.unit
    }

    fn close(&self) {
        self.0.shared.close();
    }
}

impl<Q, R> Drop for Inner<Q, R> {
    fn drop(&mut self) {
        self.shared.close();
        let is_dead = self.shared.reason_of_death().is_some();
        let thread = queue::lock(&self.thread).take();
        // The thread of a dead engine may be parked for ever; a live one ends after its current step.
        if let Some(thread) = thread.filter(|_| !is_dead) {
            let _ = thread.join();
        }
    }
}
