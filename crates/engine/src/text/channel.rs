//! The bounded queue between the engine thread and the reader of one answer.
//!
//! It differs from a general channel in what an answer needs: the sender never blocks, exactly one terminal event
//! always finds its place (the first one wins, whoever sends it), and the reader's going away is seen by the sender.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use super::inbox::Inbox;
use super::request::{Ended, TokenEvent};
use crate::EngineError;

/// Tokens that may lie unread before a sequence rests.
pub(super) const CAPACITY: usize = 64;

/// How an answer ends.
pub(super) type Terminal = Result<Ended, EngineError>;

/// What the reader gets.
#[derive(Debug)]
pub(super) enum Received {
    /// A token.
    Token(TokenEvent),
    /// The end; nothing follows.
    End(Terminal),
}

#[derive(Debug, Default)]
struct State {
    tokens: VecDeque<TokenEvent>,
    /// Prompt tokens taken from the prefix cache, once the request has a slot.
    cached_tokens: Option<usize>,
    /// When the request got its slot.
    started_at: Option<Instant>,
    terminal: Option<Terminal>,
    /// A terminal event was sent, whether or not it was read.
    is_ended: bool,
    reader_gone: bool,
    /// The sequence rests until half of the queue is read.
    sender_rests: bool,
    waker: Option<Waker>,
}

/// One answer's queue; the engine and the reader share it.
#[derive(Debug)]
pub(super) struct Channel {
    /// Both sides touch it for nanoseconds only; never held over a step or an await.
    state: Mutex<State>,
    /// Wakes a blocking reader.
    readable: Condvar,
    /// Wakes the engine when there is room again or the reader has gone.
    inbox: Arc<Inbox>,
}

/// What the sender learns from sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is room for more.
    Ok,
    /// The queue is full now: the sequence must rest.
    Full,
    /// Nobody reads any more.
    ReaderGone,
}

impl Channel {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { state: Mutex::default(), readable: Condvar::new(), inbox }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot happen while it is held; the data is valid all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, token: TokenEvent) -> Sent {
        let mut state = self.lock();
        if state.reader_gone {
            return Sent::ReaderGone;
        }
        state.tokens.push_back(token);
        let full = state.tokens.len() >= CAPACITY;
        state.sender_rests = full;
        self.wake(state);
        if full { Sent::Full } else { Sent::Ok }
    }

    pub(super) fn set_started(&self, cached_tokens: usize) {
        let mut state = self.lock();
        state.cached_tokens = Some(cached_tokens);
        state.started_at = Some(Instant::now());
    }

    /// Ends the answer; later ends are ignored.
    pub(super) fn end(&self, terminal: Terminal) {
        let mut state = self.lock();
        if !state.is_ended {
            state.is_ended = true;
            state.terminal = Some(terminal);
            self.wake(state);
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.readable.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn reader_is_gone(&self) -> bool {
        self.lock().reader_gone
    }

    /// Must the sequence still rest?
    pub(super) fn is_full(&self) -> bool {
        self.lock().sender_rests
    }

    pub(super) fn cached_tokens(&self) -> Option<usize> {
        self.lock().cached_tokens
    }

    pub(super) fn started_at(&self) -> Option<Instant> {
        self.lock().started_at
    }

    fn take(&self, state: &mut State) -> Option<Received> {
        if let Some(token) = state.tokens.pop_front() {
            if state.sender_rests && state.tokens.len() <= CAPACITY / 2 {
                state.sender_rests = false;
                self.inbox.wake();
            }
            return Some(Received::Token(token));
        }
        state.terminal.take().map(Received::End)
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<Received> {
        let mut state = self.lock();
        match self.take(&mut state) {
            Some(received) => Poll::Ready(received),
            None => {
                state.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn wait(&self) -> Received {
        let mut state = self.lock();
        loop {
            if let Some(received) = self.take(&mut state) {
                return received;
            }
            state = self.readable.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The reader goes away: the engine frees the slot at its next step.
    pub(super) fn leave(&self) {
        self.lock().reader_gone = true;
        self.inbox.wake();
    }
}
