//! Streams of answers. Each holds its lease, so a model is never evicted under a reader.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use ingle_engine::{AnswerToken, Completion, Generation, GenerationEvent};
use ingle_grammar::Compiled;
use ingle_prompt::{ReasoningDelta, ReasoningSplitter};

use crate::{Lease, RuntimeError};

/// The text of one completion as it is made.
#[derive(Debug)]
pub struct TextStream {
    generation: Generation,
    lease: Lease,
    form: Option<Arc<Compiled>>,
}

impl TextStream {
    pub(crate) fn new(generation: Generation, lease: Lease, form: Option<Arc<Compiled>>) -> Self {
        Self { generation, lease, form }
    }

    /// The form that the answer is held to.
    pub fn form(&self) -> Option<&Arc<Compiled>> {
        self.form.as_ref()
    }

    /// Name of the model that answers.
    pub fn model(&self) -> &str {
        self.lease.model()
    }

    /// The model, for its vocabulary.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// From submission to the first token.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        self.generation.time_to_first_token()
    }

    /// The next event; blocks the thread. `None` after the end.
    pub fn wait_next(&mut self) -> Option<Result<GenerationEvent, RuntimeError>> {
        self.generation.wait_next().map(|event| event.map_err(RuntimeError::from))
    }
}

impl Stream for TextStream {
    type Item = Result<GenerationEvent, RuntimeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.generation)
            .poll_next(context)
            .map(|next| next.map(|event| event.map_err(RuntimeError::from)))
    }
}

/// A part of a chat answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// Text of the answer.
    Content(String),
    /// Text of the reasoning before it.
    Reasoning(String),
    /// Tokens with their log-probabilities, when these were asked for; the text they make up comes in the same order.
    Tokens(Vec<AnswerToken>),
    /// The end; nothing follows.
    Done(ChatCompletion),
}

/// The end of a chat answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChatCompletion {
    /// Reason, usage and timings.
    pub completion: Completion,
    /// Tokens spent on reasoning.
    pub reasoning_tokens: usize,
}

/// One chat answer as it is made.
#[derive(Debug)]
pub struct ChatStream {
    text: TextStream,
    splitter: ReasoningSplitter,
    wants_tokens: bool,
    reasoning_tokens: usize,
    /// Events made but not yet yielded.
    ready: std::collections::VecDeque<ChatEvent>,
}

impl ChatStream {
    pub(crate) fn new(text: TextStream, splitter: ReasoningSplitter, wants_tokens: bool) -> Self {
        Self { text, splitter, wants_tokens, reasoning_tokens: 0, ready: std::collections::VecDeque::new() }
    }

    /// Name of the model that answers.
    pub fn model(&self) -> &str {
        self.text.model()
    }

    /// The model, for its vocabulary.
    pub fn lease(&self) -> &Lease {
        self.text.lease()
    }

    /// The form that the answer is held to.
    pub fn form(&self) -> Option<&Arc<Compiled>> {
        self.text.form()
    }

    /// From submission to the first token.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        self.text.time_to_first_token()
    }

    fn receive(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Piece(piece) => {
                let deltas = self.splitter.push(&piece.text);
                let reasons = match deltas.last() {
                    Some(delta) => matches!(delta, ReasoningDelta::Reasoning(_)),
                    None => self.splitter.is_reasoning(),
                };
                self.reasoning_tokens += if reasons { piece.tokens.len() } else { 0 };
                if self.wants_tokens && !reasons && !piece.tokens.is_empty() {
                    self.ready.push_back(ChatEvent::Tokens(piece.tokens));
                }
                self.ready.extend(deltas.into_iter().map(ChatEvent::from));
            }
            GenerationEvent::Done(completion) => {
                let rest = self.splitter.finish();
                self.ready.extend(rest.into_iter().map(ChatEvent::from));
                let done = ChatCompletion { completion, reasoning_tokens: self.reasoning_tokens };
                self.ready.push_back(ChatEvent::Done(done));
            }
        }
    }

    /// The next event; blocks the thread. `None` after the end.
    pub fn wait_next(&mut self) -> Option<Result<ChatEvent, RuntimeError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.text.wait_next()? {
                Ok(event) => self.receive(event),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl From<ReasoningDelta> for ChatEvent {
    fn from(delta: ReasoningDelta) -> Self {
        match delta {
            ReasoningDelta::Text(text) => Self::Content(text),
            ReasoningDelta::Reasoning(text) => Self::Reasoning(text),
        }
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatEvent, RuntimeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match Pin::new(&mut this.text).poll_next(context) {
                Poll::Ready(Some(Ok(event))) => this.receive(event),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
