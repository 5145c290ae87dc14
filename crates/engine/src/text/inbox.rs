//! The bounded queue in front of one engine thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::request::Queued;

/// Most requests that are waited for behind the first one.
const MOST_GATHERED: usize = 16;

#[derive(Default)]
struct State {
    queued: VecDeque<Queued>,
    /// Something happened since the engine looked last.
    is_signalled: bool,
    /// Things that happened other than requests.
    n_wakes: usize,
    is_closed: bool,
}

/// Requests on their way to the engine, and the bell that wakes it.
pub(super) struct Inbox {
    /// Held for a push or a swap only.
    state: Mutex<State>,
    bell: Condvar,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), bell: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot happen while it is held; the data is valid all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands requests over; gives them back when the engine takes no more.
    pub(super) fn push(&self, requests: Vec<Queued>) -> Result<(), Vec<Queued>> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(requests);
        }
        state.queued.extend(requests);
        state.is_signalled = true;
        self.bell.notify_one();
        Ok(())
    }

    /// Makes the engine look around.
    pub(super) fn wake(&self) {
        let mut state = self.lock();
        state.is_signalled = true;
        state.n_wakes += 1;
        self.bell.notify_one();
    }

    /// No request is taken from now on; those inside are still handed out.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.is_signalled = true;
        self.bell.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// What has arrived, without waiting.
    pub(super) fn take(&self) -> VecDeque<Queued> {
        let mut state = self.lock();
        state.is_signalled = false;
        std::mem::take(&mut state.queued)
    }

    /// Waits for at most `idle`; says whether nothing happened.
    pub(super) fn is_quiet_for(&self, idle: Duration) -> bool {
        let state = self.lock();
        let waited = self.bell.wait_timeout_while(state, idle, |state| !state.is_signalled);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.is_signalled
    }

    /// Waits until something happens. Requests that come at the same time are on their way on several threads: from the
    /// first one on it waits until there was none for as long as `gather` says for its prompt's tokens.
    pub(super) fn wait(&self, gather: &dyn Fn(usize) -> Duration) {
        let mut state = self.lock();
        while !state.is_signalled {
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(gap) = state.queued.front().map(|first| gather(first.request.prompt.len())) else { return };
        for _ in 0..MOST_GATHERED {
            let (n_queued, n_wakes) = (state.queued.len(), state.n_wakes);
            let is_alone =
                |state: &mut State| state.queued.len() == n_queued && state.n_wakes == n_wakes && !state.is_closed;
            let (next, timeout) =
                self.bell.wait_timeout_while(state, gap, is_alone).unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() || next.is_closed || next.n_wakes != n_wakes {
                return;
            }
            state = next;
        }
    }
}
