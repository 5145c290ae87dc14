//! `POST /v1/completions`.
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use ingle_api::openai::{
    Completion, CompletionChoice, CompletionChunk, CompletionChunkChoice, CompletionLogprobs, CompletionRequest,
    FinishReason, FormReport, Prompt,
};
use ingle_runtime::catalog::Usecase;
use ingle_runtime::{
    AnswerOptions, AnswerToken, Compiled, CompletionCall, GenerationEvent, Lease, PromptInput, TextStream,
};

use super::drive::{Encode, frames, select};
use super::form;
use super::logprobs::Vocabulary;
use super::params::{MAX_ANSWERS, answer_options, completion_logprobs};
use super::usage::{Bill, SharesPrompt, finished};
use super::{Identity, StreamUsage, Timing, finish_reason};
use crate::aside::{aside, named};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::sse;
use crate::state::ServerState;

const OBJECT: &str = "text_completion";

/// `POST /v1/completions`
pub(crate) async fn completions(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    answer(&state, &headers, request).await
}

/// `POST /v1/engines/{model}/completions`: the path names the model.
pub(crate) async fn engine_completions(
    State(state): State<ServerState>,
    Path(model): Path<String>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    answer(&state, &headers, CompletionRequest { model: Some(model), ..request }).await
}

/// How to present the answers.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Answers to each prompt.
    n: usize,
    logprobs: bool,
    timing: Timing,
    usage: StreamUsage,
}

async fn answer(state: &ServerState, headers: &HeaderMap, request: CompletionRequest) -> Result<Response, ApiError> {
    let logprobs = completion_logprobs(request.logprobs)?;
    let fields = request.sampling();
    let (asked, ignored) = form::asked_for(&fields)?;
    let options = answer_options(fields, request.max_completion_tokens, logprobs, asked)?;
    refuse(&request, options.n, logprobs)?;
    let shape = Shape {
        n: options.n,
        logprobs: logprobs.is_some(),
        timing: Timing::from(headers),
        usage: request.stream_options.into(),
    };
    let prompts = prompts(request.prompt, options.n)?;
    let model = named(request.model.clone());
    let echo = if request.echo == Some(true) { Echo::Prompt } else { Echo::Nothing };
    let answers = start(state, model.clone(), prompts, options, echo).await?;
    let model = model.unwrap_or_else(|| answers[0].stream.model().to_owned());
    let identity = Identity::new("cmpl", &model);
    let headers = form::headers(&ignored, answers[0].stream.form());
    if request.stream.unwrap_or(false) {
        let encoder = Chunks::new(state.clone(), identity, shape, &answers);
        let events = select(answers.into_iter().map(|answer| answer.stream).collect());
        let answered = sse::respond(frames(events, encoder), state.lifecycle().cancelled(), state.pace());
        return Ok(form::with_headers(answered.await?, headers));
    }
    let whole = state.lifecycle().unless_cancelled(whole(state, identity, shape, answers)).await?;
    Ok(form::with_headers(Json(whole).into_response(), headers))
}

fn refuse(request: &CompletionRequest, n: usize, logprobs: Option<u32>) -> Result<(), ApiError> {
    if request.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        let message = "`suffix` is not supported; put the model's own fill-in-the-middle tokens into the prompt";
        return Err(ApiError::unsupported("suffix", message));
    }
    if request.best_of.is_some_and(|best_of| usize::try_from(best_of) != Ok(n) && best_of != 1) {
        return Err(ApiError::unsupported("best_of", "`best_of` must equal `n`; every answer that is made is given"));
    }
    if request.echo == Some(true) && logprobs.is_some() {
        let message = "log probabilities of an echoed prompt are not available; leave out `echo` or `logprobs`";
        return Err(ApiError::unsupported("echo", message));
    }
    Ok(())
}

fn prompts(prompt: Option<Prompt>, n: usize) -> Result<Vec<PromptInput>, ApiError> {
    let prompts: Vec<PromptInput> = match prompt {
        None => return Err(ApiError::invalid_value("prompt", "`prompt` is missing; send the text to complete")),
        Some(Prompt::Text(text)) => vec![PromptInput::Text(text)],
        Some(Prompt::Texts(texts)) => texts.into_iter().map(PromptInput::Text).collect(),
        Some(Prompt::Tokens(tokens)) => vec![PromptInput::Tokens(tokens)],
        Some(Prompt::TokenLists(lists)) => lists.into_iter().map(PromptInput::Tokens).collect(),
    };
    if prompts.is_empty() {
        return Err(ApiError::invalid_value("prompt", "`prompt` is an empty list; send at least one prompt"));
    }
    if prompts.len().saturating_mul(n) > MAX_ANSWERS {
        let message = format!("{} prompts with {n} answers each are more than {MAX_ANSWERS} answers", prompts.len());
        return Err(ApiError::invalid_value("prompt", message));
    }
    Ok(prompts)
}

/// An answer that runs, and what stands in front of it.
struct Answer {
    stream: TextStream,
    echo: String,
}

/// What stands in front of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Nothing,
    Prompt,
}

async fn start(
    state: &ServerState,
    model: Option<String>,
    prompts: Vec<PromptInput>,
    options: AnswerOptions,
    echo: Echo,
) -> Result<Vec<Answer>, ApiError> {
    let runtime = state.runtime().clone();
    let started = async {
        // Loading is waited for here; what follows is work.
        let lease = runtime.lease(model.as_deref(), Usecase::Completion).await?;
        let (runtime, model) = (runtime.clone(), Some(lease.model().to_owned()));
        aside(async move {
            let mut answers = Vec::with_capacity(prompts.len() * options.n);
            for prompt in prompts {
                let front = match echo {
                    Echo::Nothing => String::new(),
                    Echo::Prompt => text_of(&prompt, &lease)?,
                };
                let call = CompletionCall { model: model.clone(), prompt, options: options.clone() };
                let streams = runtime.complete(call).await?;
                answers.extend(streams.into_iter().map(|stream| Answer { stream, echo: front.clone() }));
            }
            Ok(answers)
        })
        .await
    };
    state.lifecycle().unless_cancelled(started).await
}

/// The prompt as text, in the vocabulary of the model that completes it.
fn text_of(prompt: &PromptInput, lease: &Lease) -> Result<String, ApiError> {
    match prompt {
        PromptInput::Text(text) => Ok(text.clone()),
        PromptInput::Tokens(tokens) => {
            let tokenizer = lease.text()?.tokenizer();
            let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).copied().collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}

/// Reads every answer to its end.
async fn whole(
    state: &ServerState,
    identity: Identity,
    shape: Shape,
    answers: Vec<Answer>,
) -> Result<Completion, ApiError> {
    let ended = try_join_all(answers.into_iter().map(|answer| collect(answer, shape))).await?;
    let mut bill = Bill::default();
    let mut choices = Vec::with_capacity(ended.len());
    let mut report = None;
    for (idx, Ended { model, text, logprobs, completion, report: one }) in ended.into_iter().enumerate() {
        state.metrics().record_answer(&finished(&model, &completion));
        bill.add(&completion, 0, SharesPrompt::of(idx, shape.n));
        report = form::both(report, one);
        choices.push(CompletionChoice {
            index: idx as u32,
            text,
            logprobs,
            finish_reason: Some(finish_reason(completion.reason)),
        });
    }
    let Identity { id, created, model } = identity;
    let usage = Some(bill.usage(shape.timing));
    let object = OBJECT.into();
    Ok(Completion { id, object, created, model, choices, usage, system_fingerprint: None, ingle: report })
}

/// An answer that has ended.
struct Ended {
    model: String,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    completion: ingle_runtime::Completion,
    report: Option<FormReport>,
}

async fn collect(answer: Answer, shape: Shape) -> Result<Ended, ApiError> {
    let Answer { mut stream, echo: mut text } = answer;
    let front = text.len();
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            GenerationEvent::Piece(piece) => {
                text.push_str(&piece.text);
                if shape.logprobs {
                    tokens.extend(piece.tokens);
                }
            }
            GenerationEvent::Done(completion) => {
                let vocabulary = Vocabulary::new(stream.lease());
                let logprobs = shape.logprobs.then(|| vocabulary.completion(&tokens, &mut 0));
                let report = form::report(stream.form(), &text[front..]);
                return Ok(Ended { model: stream.model().to_owned(), text, logprobs, completion, report });
            }
        }
    }
    Err(ApiError::internal("the answer ended without an end; this is a bug"))
}

/// Writes the frames of a streamed completion.
struct Chunks {
    state: ServerState,
    identity: Identity,
    shape: Shape,
    /// Name of the model in the metrics.
    model: String,
    vocabulary: Vocabulary,
    answers: Vec<Progress>,
    bill: Bill,
    form: Option<Arc<Compiled>>,
}

/// What is known of one answer of a stream.
struct Progress {
    /// What is still to be sent in front of the first piece.
    echo: String,
    /// All its text, kept where it is to be checked at the end.
    content: String,
    /// Characters sent, for the offsets of tokens.
    offset: usize,
}

impl Progress {
    fn new(answer: &Answer) -> Self {
        Self { echo: answer.echo.clone(), content: String::new(), offset: 0 }
    }
}

impl Chunks {
    fn new(state: ServerState, identity: Identity, shape: Shape, answers: &[Answer]) -> Self {
        let first = &answers[0].stream;
        Self {
            state,
            identity,
            shape,
            model: first.model().to_owned(),
            vocabulary: Vocabulary::new(first.lease()),
            answers: answers.iter().map(Progress::new).collect(),
            bill: Bill::default(),
            form: first.form().filter(|form| !form.unenforced().is_empty()).cloned(),
        }
    }

    fn write(
        &self,
        choices: Vec<CompletionChunkChoice>,
        usage: Option<Option<ingle_api::openai::Usage>>,
    ) -> CompletionChunk {
        let Identity { id, created, model } = self.identity.clone();
        CompletionChunk { id, object: OBJECT.into(), created, model, choices, usage, ingle: None }
    }

    fn piece(
        &self,
        idx: usize,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        finish_reason: Option<FinishReason>,
    ) -> CompletionChunk {
        let usage = (self.shape.usage == StreamUsage::AtTheEnd).then_some(None);
        self.write(vec![CompletionChunkChoice { index: idx as u32, text, logprobs, finish_reason }], usage)
    }

    fn logprobs(&mut self, idx: usize, tokens: &[AnswerToken]) -> Option<CompletionLogprobs> {
        self.shape.logprobs.then(|| self.vocabulary.completion(tokens, &mut self.answers[idx].offset))
    }
}

impl Encode for Chunks {
    type Event = GenerationEvent;

    fn encode(&mut self, idx: usize, event: GenerationEvent, out: &mut BytesMut) {
        let mut text = std::mem::take(&mut self.answers[idx].echo);
        match event {
            GenerationEvent::Piece(piece) => {
                text.push_str(&piece.text);
                if self.form.is_some() {
                    self.answers[idx].content.push_str(&piece.text);
                }
                let logprobs = self.logprobs(idx, &piece.tokens);
                if !text.is_empty() || logprobs.as_ref().is_some_and(|logprobs| !logprobs.tokens.is_empty()) {
                    sse::write_frame(out, &self.piece(idx, text, logprobs, None));
                }
            }
            GenerationEvent::Done(completion) => {
                self.state.metrics().record_answer(&finished(&self.model, &completion));
                self.bill.add(&completion, 0, SharesPrompt::of(idx, self.shape.n));
                let mut piece = self.piece(idx, text, None, Some(finish_reason(completion.reason)));
                piece.ingle = form::report(self.form.as_ref(), &self.answers[idx].content);
                sse::write_frame(out, &piece);
            }
        }
    }

    fn finish(&mut self, out: &mut BytesMut) {
        if self.shape.usage == StreamUsage::AtTheEnd {
            let usage = self.bill.usage(self.shape.timing);
            sse::write_frame(out, &self.write(Vec::new(), Some(Some(usage))));
        }
    }
}
