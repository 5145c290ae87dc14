//! Streams of answers. Each holds its lease, so a model is never evicted under a reader.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use ingle_catalog::ModelConfig;
use ingle_engine::{AnswerToken, Completion, Generation, GenerationEvent, Piece};
use ingle_grammar::Compiled;
use ingle_prompt::{AnswerDelta, AnswerEdits, AnswerParser};

use crate::{Lease, RuntimeError};

/// The text of one completion as it is made.
#[derive(Debug)]
pub struct TextStream {
    generation: Generation,
    lease: Lease,
    form: Option<Arc<Compiled>>,
    /// Changes to the whole text, and what is kept for them.
    edits: Option<(Arc<AnswerEdits>, String)>,
    /// The end, where edited text goes before it.
    end: Option<GenerationEvent>,
}

impl TextStream {
    pub(crate) fn new(generation: Generation, lease: Lease, form: Option<Arc<Compiled>>) -> Self {
        Self { generation, lease, form, edits: None, end: None }
    }

    /// The same with the edits of `shape`, for answers that no parser reads.
    pub(crate) fn edited(mut self, shape: &AnswerShape) -> Self {
        self.edits = shape.edits.clone().map(|edits| (edits, String::new()));
        self
    }

    /// What goes out for an event of the engine.
    fn edit(&mut self, event: GenerationEvent) -> Option<GenerationEvent> {
        let Some((edits, kept)) = &mut self.edits else { return Some(event) };
        match event {
            GenerationEvent::Piece(piece) => {
                kept.push_str(&piece.text);
                None
            }
            GenerationEvent::Done(_) => {
                let text = edits.apply(kept);
                self.edits = None;
                if text.is_empty() {
                    return Some(event);
                }
                self.end = Some(event);
                Some(GenerationEvent::Piece(Piece { text, tokens: Vec::new() }))
            }
        }
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
        if let Some(end) = self.end.take() {
            return Some(Ok(end));
        }
        loop {
            match self.generation.wait_next()? {
                Ok(event) => match self.edit(event) {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                },
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

impl Stream for TextStream {
    type Item = Result<GenerationEvent, RuntimeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(Ok(end)));
        }
        loop {
            match std::task::ready!(Pin::new(&mut self.generation).poll_next(context)) {
                Some(Ok(event)) => {
                    if let Some(event) = self.edit(event) {
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
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

/// What the configuration makes of every answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerShape {
    /// Changes to the whole text: it is kept until its end.
    edits: Option<Arc<AnswerEdits>>,
    /// Stands in front of the text.
    prefix: Option<String>,
    /// Reasoning is not shown.
    hides_reasoning: bool,
}

impl AnswerShape {
    /// As `config` has it. An answer that is held to a form keeps it: nothing is put in front and nothing is cut.
    pub(crate) fn of(config: &ModelConfig, is_held: bool) -> Result<Self, RuntimeError> {
        let hides_reasoning = config.reasoning.is_hidden;
        if is_held {
            return Ok(Self { hides_reasoning, ..Self::default() });
        }
        let from = &config.output;
        let edits = AnswerEdits::new(&from.cutstrings, &from.extract_regex, &from.trimspace, &from.trimsuffix)?;
        Ok(Self { edits: edits.map(Arc::new), prefix: config.template.reply_prefix.clone(), hides_reasoning })
    }
}

/// One chat answer as it is made.
#[derive(Debug)]
pub struct ChatStream {
    text: TextStream,
    shape: AnswerShape,
    /// Text that is kept for the edits.
    kept: String,
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
    pub(crate) fn new(text: TextStream, parser: AnswerParser, wants_tokens: bool, shape: AnswerShape) -> Self {
        let ready = std::collections::VecDeque::new();
        let kept = String::new();
        Self { text, shape, kept, parser, wants_tokens, reasoning_tokens: 0, n_calls: 0, in_call: false, ready }
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
                self.end_text();
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
                AnswerDelta::Text(text) if self.shape.edits.is_some() => {
                    self.kept.push_str(text);
                    continue;
                }
                AnswerDelta::Text(_) => self.begin_text(),
                AnswerDelta::Reasoning(_) if self.shape.hides_reasoning => continue,
                AnswerDelta::Reasoning(_) | AnswerDelta::CallArguments(_) => {}
            }
            self.ready.push_back(ChatEvent::from(delta));
        }
    }

    /// Puts what the operator wants in front of the text, once.
    fn begin_text(&mut self) {
        if let Some(prefix) = self.shape.prefix.take() {
            self.ready.push_back(ChatEvent::Content(prefix));
        }
    }

    /// Lets the text go that was kept for the edits.
    fn end_text(&mut self) {
        let Some(edits) = self.shape.edits.take() else { return };
        let text = edits.apply(&std::mem::take(&mut self.kept));
        if !text.is_empty() {
            self.begin_text();
            self.ready.push_back(ChatEvent::Content(text));
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
