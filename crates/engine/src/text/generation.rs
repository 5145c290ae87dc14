//! The receiving end of one answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::channel::{Channel, Received, Terminal};
use super::request::{
    AnswerToken, Completion, ControlTokens, Ended, FinishReason, GenerationEvent, Piece, Timings, TokenEvent, Usage,
};
use super::text_filter::{Filtered, TextFilter};
use crate::{EngineError, TokenKind, Tokenizer};

/// One answer as it is made: a stream (or, by [`IntoIterator`], a blocking iterator) of pieces that end with exactly one
/// [`GenerationEvent::Done`] or one error. Dropping it cancels the request.
pub struct Generation {
    channel: Arc<Channel>,
    tokenizer: Arc<dyn Tokenizer>,
    filter: TextFilter,
    control_tokens: ControlTokens,
    /// Tokens whose text is held back.
    held: Vec<AnswerToken>,
    /// Events made but not yet yielded.
    ready: VecDeque<Result<GenerationEvent, EngineError>>,
    is_over: bool,
    seed: u64,
    submitted: Instant,
    first_token: Option<Instant>,
    usage: Usage,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("usage", &self.usage).field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

/// What a new [`Generation`] is made of.
pub(super) struct Parts {
    pub(super) channel: Arc<Channel>,
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    pub(super) stop: Vec<String>,
    pub(super) control_tokens: ControlTokens,
    pub(super) prompt_tokens: usize,
    pub(super) seed: u64,
}

impl Generation {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            channel: parts.channel,
            tokenizer: parts.tokenizer,
            filter: TextFilter::new(parts.stop),
            control_tokens: parts.control_tokens,
            held: Vec::new(),
            ready: VecDeque::new(),
            is_over: false,
            seed: parts.seed,
            submitted: Instant::now(),
            first_token: None,
            usage: Usage { prompt_tokens: parts.prompt_tokens, ..Usage::default() },
        }
    }

    /// The seed in use, so that an answer can be made again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Tokens counted so far.
    pub fn usage(&self) -> Usage {
        let cached_tokens = self.channel.cached_tokens().unwrap_or(0);
        Usage { cached_tokens, ..self.usage }
    }

    fn receive(&mut self, received: Received) {
        match received {
            Received::Token(event) => self.receive_token(event),
            Received::End(terminal) => self.receive_end(terminal),
        }
    }

    fn receive_token(&mut self, event: TokenEvent) {
        self.first_token.get_or_insert(event.at);
        self.usage.completion_tokens += 1;
        let bytes = self.tokenizer.token_bytes(event.token);
        let hidden = self.control_tokens == ControlTokens::Hide
            && matches!(self.tokenizer.token_kind(event.token), TokenKind::Control | TokenKind::Unused);
        let shown = if hidden { &[][..] } else { bytes };
        let filtered = self.filter.push(shown);
        self.held.push(AnswerToken { id: event.token, bytes: bytes.to_vec(), logprob: event.logprob });
        match filtered {
            Filtered::Text(text) if text.is_empty() => {}
            Filtered::Text(text) => self.emit(text),
            Filtered::Stopped(text) => {
                self.drop_tokens_beyond(text.len());
                self.emit(text);
                self.finish(FinishReason::Stop, event.at);
                self.channel.leave();
            }
        }
    }

    fn receive_end(&mut self, terminal: Terminal) {
        match terminal {
            Ok(Ended { reason, n_hidden_tokens, at }) => {
                self.usage.completion_tokens += n_hidden_tokens;
                let rest = self.filter.finish();
                self.emit(rest);
                self.finish(reason, at);
            }
            Err(error) => {
                self.is_over = true;
                self.ready.push_back(Err(error));
            }
        }
    }

    /// Tokens that are part of a stop text are not part of the answer.
    fn drop_tokens_beyond(&mut self, n_bytes: usize) {
        let mut end = 0;
        self.held.retain(|token| {
            end += token.bytes.len();
            end <= n_bytes
        });
    }

    fn emit(&mut self, text: String) {
        let tokens = std::mem::take(&mut self.held);
        if !text.is_empty() || !tokens.is_empty() {
            self.ready.push_back(Ok(GenerationEvent::Piece(Piece { text, tokens })));
        }
    }

    fn finish(&mut self, reason: FinishReason, at: Instant) {
        self.is_over = true;
        let completion = Completion { reason, usage: self.usage(), timings: self.timings(at) };
        self.ready.push_back(Ok(GenerationEvent::Done(completion)));
    }

    fn timings(&self, at: Instant) -> Timings {
        let started = self.channel.started_at().unwrap_or(at);
        let first_token = self.first_token.unwrap_or(at);
        Timings {
            queued: started.saturating_duration_since(self.submitted),
            prompt: first_token.saturating_duration_since(started),
            generation: at.saturating_duration_since(first_token),
        }
    }

    /// From submission to the first token; `None` before there is one.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        self.first_token.map(|at| at.saturating_duration_since(self.submitted))
    }

    /// The next event; blocks the thread until there is one. `None` after the end.
    pub fn wait_next(&mut self) -> Option<Result<GenerationEvent, EngineError>> {
        loop {
            if let Some(next) = self.next_ready() {
                return next;
            }
            let received = self.channel.wait();
            self.receive(received);
        }
    }

    /// The next event if it is already there.
    fn next_ready(&mut self) -> Option<Option<Result<GenerationEvent, EngineError>>> {
        match self.ready.pop_front() {
            Some(event) => Some(Some(event)),
            None if self.is_over => Some(None),
            None => None,
        }
    }
}

/// A [`Generation`] read by blocking the thread.
#[derive(Debug)]
pub struct BlockingGeneration(Generation);

impl Iterator for BlockingGeneration {
    type Item = Result<GenerationEvent, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.wait_next()
    }
}

impl IntoIterator for Generation {
    type Item = Result<GenerationEvent, EngineError>;
    type IntoIter = BlockingGeneration;

    fn into_iter(self) -> BlockingGeneration {
        BlockingGeneration(self)
    }
}

impl Stream for Generation {
    type Item = Result<GenerationEvent, EngineError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(next) = this.next_ready() {
                return Poll::Ready(next);
            }
            match this.channel.poll(context.waker()) {
                Poll::Ready(received) => this.receive(received),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.channel.leave();
    }
}
