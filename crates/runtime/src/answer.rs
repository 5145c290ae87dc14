//! Streams of answers. Each holds its lease, so a model is never evicted under a reader.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use ingle_engine::{AnswerToken, Completion, Generation, GenerationEvent};
use ingle_grammar::Compiled;
use ingle_prompt::{AnswerDelta, AnswerParser};

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
    /// A tool call begins; the calls of an answer come one after the other.
    CallStart {
        /// Name of the function.
        name: String,
    },
    /// More of the JSON text of the arguments of the call that has begun.
    CallArguments(String),
    /// The call is whole.
    CallEnd,
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
    /// Tool calls that have begun.
    pub n_calls: usize,
    /// The last of them is not whole.
    pub is_cut: bool,
}

/// One chat answer as it is made.
#[derive(Debug)]
pub struct ChatStream {
    text: TextStream,
    parser: AnswerParser,
    wants_tokens: bool,
    reasoning_tokens: usize,
    n_calls: usize,
    /// In a call that is not whole.
    in_call: bool,
    /// Events made but not yet yielded.
    ready: std::collections::VecDeque<ChatEvent>,
}

impl ChatStream {
    pub(crate) fn new(text: TextStream, parser: AnswerParser, wants_tokens: bool) -> Self {
        let ready = std::collections::VecDeque::new();
        Self { text, parser, wants_tokens, reasoning_tokens: 0, n_calls: 0, in_call: false, ready }
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
                let deltas = self.parser.push(&piece.text);
                let reasons = match deltas.last() {
                    Some(delta) => matches!(delta, AnswerDelta::Reasoning(_)),
                    None => self.parser.is_reasoning(),
                };
                self.reasoning_tokens += if reasons { piece.tokens.len() } else { 0 };
                let calls = self.in_call || matches!(deltas.last(), Some(AnswerDelta::CallStart { .. }));
                if self.wants_tokens && !reasons && !calls && !piece.tokens.is_empty() {
                    self.ready.push_back(ChatEvent::Tokens(piece.tokens));
                }
                self.take(deltas);
            }
            GenerationEvent::Done(completion) => {
                let rest = self.parser.finish();
                self.take(rest);
                self.ready.push_back(ChatEvent::Done(ChatCompletion {
                    completion,
                    reasoning_tokens: self.reasoning_tokens,
                    n_calls: self.n_calls,
                    is_cut: self.in_call,
                }));
            }
        }
    }

    fn take(&mut self, deltas: Vec<AnswerDelta>) {
        for delta in deltas {
            match &delta {
                AnswerDelta::CallStart { .. } => {
                    self.n_calls += 1;
                    self.in_call = true;
                }
                AnswerDelta::CallEnd => self.in_call = false,
                AnswerDelta::Text(_) | AnswerDelta::Reasoning(_) | AnswerDelta::CallArguments(_) => {}
            }
            self.ready.push_back(ChatEvent::from(delta));
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

impl From<AnswerDelta> for ChatEvent {
    fn from(delta: AnswerDelta) -> Self {
        match delta {
            AnswerDelta::Text(text) => Self::Content(text),
            AnswerDelta::Reasoning(text) => Self::Reasoning(text),
            AnswerDelta::CallStart { name } => Self::CallStart { name },
            AnswerDelta::CallArguments(text) => Self::CallArguments(text),
            AnswerDelta::CallEnd => Self::CallEnd,
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
