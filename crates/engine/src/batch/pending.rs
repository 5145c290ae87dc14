//! The receiving end of one call, and its other side.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::queue::lock;
use crate::EngineError;

/// The responses of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<R> {
    /// One for each request, in order.
    pub responses: Vec<R>,
    /// From submission to the beginning of its first step.
    pub waited: Duration,
    /// From submission to its end.
    pub took: Duration,
}

#[derive(Debug)]
struct State<R> {
    /// By request; filled as steps end.
    responses: Vec<Option<R>>,
    n_missing: usize,
    started_at: Option<Instant>,
    /// How it ended; the first end wins, whoever sends it.
    end: Option<Result<Instant, EngineError>>,
    reader_gone: bool,
    waker: Option<Waker>,
}

/// What the engine thread and the reader of one call share.
#[derive(Debug)]
pub(super) struct Reply<R> {
    /// Both sides touch it for nanoseconds only; never held over a step or an await.
    state: Mutex<State<R>>,
    /// Wakes a blocking reader.
    ended: Condvar,
    pub(super) submitted_at: Instant,
    pub(super) time_limit: Option<Duration>,
}

impl<R> Reply<R> {
    pub(super) fn new(n_requests: usize, time_limit: Option<Duration>) -> Self {
        let state = State {
            responses: (0..n_requests).map(|_| None).collect(),
            n_missing: n_requests,
            started_at: None,
            end: None,
            reader_gone: false,
            waker: None,
        };
        let reply = Self { state: Mutex::new(state), ended: Condvar::new(), submitted_at: Instant::now(), time_limit };
        if n_requests == 0 {
            reply.end(Ok(reply.submitted_at));
        }
        reply
    }

    /// Nobody waits for it any more, or it has ended.
    pub(super) fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.reader_gone || state.end.is_some()
    }

    /// Ends the call where its time is up.
    pub(super) fn end_if_late(&self) {
        if let Some(limit) = self.time_limit.filter(|limit| self.submitted_at.elapsed() >= *limit) {
            self.end(Err(EngineError::TookTooLong { limit_secs: limit.as_secs() }));
        }
    }

    pub(super) fn start(&self) {
        lock(&self.state).started_at.get_or_insert_with(Instant::now);
    }

    /// Hands one response over; the last one ends the call.
    pub(super) fn fill(&self, request_idx: usize, response: R) {
        let mut state = lock(&self.state);
        if state.responses[request_idx].replace(response).is_none() {
            state.n_missing -= 1;
        }
        let is_whole = state.n_missing == 0;
        drop(state);
        if is_whole {
            self.end(Ok(Instant::now()));
        }
    }

    /// Ends the call, unless it has ended.
    pub(super) fn end(&self, how: Result<Instant, EngineError>) {
        let mut state = lock(&self.state);
        if state.end.is_some() {
            return;
        }
        state.end = Some(how);
        let waker = state.waker.take();
        drop(state);
        self.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self, state: &mut State<R>) -> Option<Result<Answered<R>, EngineError>> {
        let ended_at = match state.end.as_ref()? {
            Ok(ended_at) => *ended_at,
            Err(error) => return Some(Err(error.clone())),
        };
        let started_at = state.started_at.unwrap_or(ended_at);
        let responses = state.responses.drain(..).map(|response| {
            response.expect("a call ends well only when every response is there and is read once; this is a bug")
        });
        Some(Ok(Answered {
            responses: responses.collect(),
            waited: started_at.saturating_duration_since(self.submitted_at),
            took: ended_at.saturating_duration_since(self.submitted_at),
        }))
    }
}

/// The responses of one call, once they are there: a future, or [`Pending::wait`]. Dropping it cancels the call.
#[derive(Debug)]
pub struct Pending<R>(pub(super) Arc<Reply<R>>);

impl<R> Pending<R> {
    /// Blocks until the call has ended.
    ///
    /// # Errors
    /// What became of the call: a failed step, [`EngineError::Died`], [`EngineError::Unloaded`],
    /// [`EngineError::TookTooLong`].
    pub fn wait(self) -> Result<Answered<R>, EngineError> {
        let mut state = lock(&self.0.state);
        loop {
            if let Some(taken) = self.0.take(&mut state) {
                return taken;
            }
            state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R> Future for Pending<R> {
    type Output = Result<Answered<R>, EngineError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.state);
        match self.0.take(&mut state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        lock(&self.0.state).reader_gone = true;
    }
}
