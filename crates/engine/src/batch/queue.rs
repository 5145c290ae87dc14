//! The bounded queue of calls in front of one engine thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pending::Reply;
use super::{BatchConfig, BatchStats, Cost, Pending};
use crate::EngineError;
use crate::text::Mortal;

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is valid after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call and those of its requests that no step has taken yet.
struct Call<Q, R> {
    /// Index of the request within the call, and the request.
    requests: VecDeque<(usize, Q)>,
    cost: usize,
    reply: Arc<Reply<R>>,
}

/// One request on its way through a step.
pub(super) struct Taken<R> {
    pub(super) reply: Arc<Reply<R>>,
    pub(super) request_idx: usize,
}

/// What one step does.
pub(super) struct Step<Q, R> {
    pub(super) requests: Vec<Q>,
    /// Who asked, by request.
    pub(super) taken: Vec<Taken<R>>,
    pub(super) cost: usize,
}

struct State<Q, R> {
    calls: VecDeque<Call<Q, R>>,
    waiting_cost: usize,
    /// Replies of the running step, so that they can be ended from elsewhere.
    running: Vec<Arc<Reply<R>>>,
    is_closed: bool,
    died: Option<String>,
    stats: BatchStats,
}

/// What the handles, the thread and a fault handler share.
pub(super) struct Shared<Q, R> {
    pub(super) config: BatchConfig,
    /// Touched when a call comes and when a step begins or ends.
    state: Mutex<State<Q, R>>,
    bell: Condvar,
}

impl<Q, R> Shared<Q, R> {
    pub(super) fn new(config: BatchConfig) -> Self {
        let state = State {
            calls: VecDeque::new(),
            waiting_cost: 0,
            running: Vec::new(),
            is_closed: false,
            died: None,
            stats: BatchStats::default(),
        };
        Self { config, state: Mutex::new(state), bell: Condvar::new() }
    }

    pub(super) fn died_error(&self, reason: String) -> EngineError {
        EngineError::Died { model: self.config.name.clone(), reason }
    }

    pub(super) fn reason_of_death(&self) -> Option<String> {
        lock(&self.state).died.clone()
    }

    pub(super) fn stats(&self) -> BatchStats {
        let state = lock(&self.state);
        BatchStats { waiting: state.calls.len(), ..state.stats }
    }

    /// Takes no more, and ends every call.
    pub(super) fn close(&self) {
        self.end_all(EngineError::Unloaded { model: self.config.name.clone() }, |_| {});
    }

    fn end_all(&self, error: EngineError, note: impl FnOnce(&mut State<Q, R>)) {
        let replies: Vec<Arc<Reply<R>>> = {
            let mut state = lock(&self.state);
            note(&mut state);
            state.is_closed = true;
            state.waiting_cost = 0;
            let running = std::mem::take(&mut state.running);
            running.into_iter().chain(state.calls.drain(..).map(|call| call.reply)).collect()
        };
        self.bell.notify_all();
        for reply in replies {
            reply.end(Err(error.clone()));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    /// Books a step that has ended.
    pub(super) fn finish(&self, n_requests: usize, cost: usize, took: Duration) {
        let mut state = lock(&self.state);
        state.running.clear();
        let stats = &mut state.stats;
        stats.running = 0;
        stats.steps += 1;
        stats.requests_done += n_requests as u64;
        stats.cost_done += cost as u64;
        stats.busy_micros += took.as_micros() as u64;
    }
}

impl<Q: Cost, R> Shared<Q, R> {
    pub(super) fn submit(&self, requests: Vec<Q>, time_limit: Option<Duration>) -> Result<Pending<R>, EngineError> {
        let cost: usize = requests.iter().map(|request| request.cost().max(1)).sum();
        let reply = Arc::new(Reply::new(requests.len(), time_limit));
        let mut state = lock(&self.state);
        self.check(&mut state, cost)?;
        if !requests.is_empty() {
            state.waiting_cost += cost;
            let requests = requests.into_iter().enumerate().collect();
            state.calls.push_back(Call { requests, cost, reply: Arc::clone(&reply) });
            self.bell.notify_one();
        }
        Ok(Pending(reply))
    }

    fn check(&self, state: &mut State<Q, R>, cost: usize) -> Result<(), EngineError> {
        if let Some(reason) = &state.died {
            return Err(self.died_error(reason.clone()));
        }
        if state.is_closed {
            return Err(EngineError::Unloaded { model: self.config.name.clone() });
        }
        let (limit, limit_cost) = (self.config.max_waiting, self.config.max_waiting_cost);
        if cost > limit_cost {
            return Err(EngineError::TooMuchAtOnce { cost, limit: limit_cost, unit: self.config.unit });
        }
        let is_full = |state: &State<Q, R>| state.calls.len() >= limit || state.waiting_cost + cost > limit_cost;
        if is_full(state) {
            state.drop_over();
        }
        if is_full(state) {
            let retry_after_secs = state.retry_after_secs();
            return Err(EngineError::Overloaded { waiting: state.calls.len(), limit, retry_after_secs });
        }
        Ok(())
    }

    /// Waits for requests and takes a step's worth of them; `None` when the engine is to end.
    pub(super) fn next_step(&self) -> Option<Step<Q, R>> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return None;
            }
            let step = state.gather(self.config.step_budget);
            if !step.requests.is_empty() {
                state.stats.running = step.requests.len();
                state.running = step.taken.iter().map(|taken| Arc::clone(&taken.reply)).collect();
                return Some(step);
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<Q: Cost, R> State<Q, R> {
    /// Takes calls out that nobody waits for.
    fn drop_over(&mut self) {
        self.calls.retain(|call| !call.reply.is_over());
        self.waiting_cost = self.calls.iter().map(|call| call.cost).sum();
    }

    /// One request of each call in turn, until the budget is used up.
    fn gather(&mut self, budget: usize) -> Step<Q, R> {
        let mut step = Step { requests: Vec::new(), taken: Vec::new(), cost: 0 };
        while let Some(mut call) = self.calls.pop_front() {
            call.reply.end_if_late();
            if call.reply.is_over() {
                self.waiting_cost -= call.cost;
                continue;
            }
            let cost = call.requests.front().map_or(1, |(_, request)| request.cost().max(1));
            if !step.requests.is_empty() && step.cost + cost > budget {
                self.calls.push_front(call);
                break;
            }
            let Some((request_idx, request)) = call.requests.pop_front() else { continue };
            call.reply.start();
            call.cost -= cost;
            self.waiting_cost -= cost;
            step.cost += cost;
            step.requests.push(request);
            step.taken.push(Taken { reply: Arc::clone(&call.reply), request_idx });
            if !call.requests.is_empty() {
                self.calls.push_back(call);
            }
        }
        step
    }

    /// Seconds until what waits now is likely to be done.
    fn retry_after_secs(&self) -> u64 {
        let micros_per_cost = self.stats.busy_micros as f64 / self.stats.cost_done.max(1) as f64;
        (micros_per_cost * self.waiting_cost as f64 / 1e6).ceil().clamp(1.0, 60.0) as u64
    }
}

impl<Q: Send, R: Send> Mortal for Shared<Q, R> {
    fn die(&self, reason: &str) {
        let note = |state: &mut State<Q, R>| {
            state.died.get_or_insert_with(|| reason.to_owned());
        };
        self.end_all(self.died_error(reason.to_owned()), note);
    }
}
