//! `POST /v1/chat/completions`.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use ingle_api::openai::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, ChatLogprobs, ChatRequest,
    FinishReason, FormReport, Role, Usage,
};
use ingle_runtime::catalog::Usecase;
use ingle_runtime::{AnswerToken, ChatCall, ChatEvent, ChatStream, Compiled};

use super::conversation::{conversation, template_options};
use super::drive::{Encode, frames, select};
use super::form;
use super::logprobs::Vocabulary;
use super::params::{answer_options, chat_logprobs};
use super::usage::{Bill, SharesPrompt, finished};
use super::{Identity, StreamUsage, Timing, finish_reason};
use crate::aside::{aside, named};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::sse;
use crate::state::ServerState;

const OBJECT: &str = "chat.completion";
const CHUNK_OBJECT: &str = "chat.completion.chunk";

/// How to present the answers.
#[derive(Debug, Clone, Copy)]
struct Shape {
    logprobs: bool,
    timing: Timing,
    usage: StreamUsage,
}

/// `POST /v1/chat/completions`
pub(crate) async fn chat(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let logprobs = chat_logprobs(request.logprobs, request.top_logprobs)?;
    let model = named(request.model.clone());
    let (options, ignored) = answer_options(request.sampling(), request.max_completion_tokens, logprobs)?;
    let call = ChatCall {
        model: model.clone(),
        conversation: conversation(&request)?,
        template: template_options(&request),
        options,
    };
    let shape =
        Shape { logprobs: logprobs.is_some(), timing: Timing::from(&headers), usage: request.stream_options.into() };
    let runtime = state.runtime().clone();
    let started = async {
        // Loading is waited for here; what follows is work.
        let _lease = runtime.lease(model.as_deref(), Usecase::Chat).await?;
        let runtime = runtime.clone();
        aside(async move { Ok(runtime.chat(call).await?) }).await
    };
    let answers =
        state.lifecycle().unless_cancelled(started).await.map_err(|error| error.renamed("prompt", "messages"))?;
    let model = model.unwrap_or_else(|| answers[0].model().to_owned());
    let identity = Identity::new("chatcmpl", &model);
    let headers = form::headers(&ignored, answers[0].form());
    if request.stream.unwrap_or(false) {
        let encoder = Chunks::new(state.clone(), identity, shape, &answers);
        let answered = sse::respond(frames(select(answers), encoder), state.lifecycle().cancelled(), state.pace());
        return Ok(form::with_headers(answered.await?, headers));
    }
    let whole = state.lifecycle().unless_cancelled(whole(&state, identity, shape, answers)).await?;
    Ok(form::with_headers(Json(whole).into_response(), headers))
}

/// Reads every answer to its end.
async fn whole(
    state: &ServerState,
    identity: Identity,
    shape: Shape,
    answers: Vec<ChatStream>,
) -> Result<ChatCompletion, ApiError> {
    let n = answers.len();
    let ended = try_join_all(answers.into_iter().map(|answer| collect(answer, shape))).await?;
    let mut bill = Bill::default();
    let mut choices = Vec::with_capacity(n);
    let mut report = None;
    for (idx, Ended { model, message, logprobs, end, report: one }) in ended.into_iter().enumerate() {
        state.metrics().record_answer(&finished(&model, &end.completion));
        bill.add(&end.completion, end.reasoning_tokens, SharesPrompt::of(idx, n));
        let finish_reason = Some(finish_reason(end.completion.reason));
        report = form::both(report, one);
        choices.push(ChatChoice { index: idx as u32, message, logprobs, finish_reason });
    }
    let Identity { id, created, model } = identity;
    let usage = Some(bill.usage(shape.timing));
    let object = OBJECT.into();
    Ok(ChatCompletion { id, object, created, model, choices, usage, system_fingerprint: None, ingle: report })
}

/// An answer that has ended.
struct Ended {
    model: String,
    message: AssistantMessage,
    logprobs: Option<ChatLogprobs>,
    end: ingle_runtime::ChatCompletion,
    report: Option<FormReport>,
}

async fn collect(mut answer: ChatStream, shape: Shape) -> Result<Ended, ApiError> {
    let (mut content, mut reasoning, mut tokens) = (String::new(), String::new(), Vec::new());
    while let Some(event) = answer.next().await {
        match event? {
            ChatEvent::Content(text) => content.push_str(&text),
            ChatEvent::Reasoning(text) => reasoning.push_str(&text),
            ChatEvent::Tokens(more) => tokens.extend(more),
            ChatEvent::Done(end) => {
                let logprobs = shape.logprobs.then(|| Vocabulary::new(answer.lease()).chat(&tokens));
                let model = answer.model().to_owned();
                let report = form::report(answer.form(), &content);
                return Ok(Ended { model, message: message(content, reasoning), logprobs, end, report });
            }
        }
    }
    Err(ApiError::internal("the answer ended without an end; this is a bug"))
}

fn message(content: String, reasoning: String) -> AssistantMessage {
    let reasoning = (!reasoning.is_empty()).then_some(reasoning);
    AssistantMessage {
        role: Role::Assistant,
        content: Some(content),
        reasoning_content: reasoning.clone(),
        reasoning,
        refusal: None,
        tool_calls: Vec::new(),
        function_call: None,
    }
}

/// Writes the frames of a streamed chat.
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
#[derive(Default)]
struct Progress {
    /// All its text, kept where it is to be checked at the end.
    content: String,
    /// Its first frame is out.
    has_begun: bool,
    /// Tokens whose text has not come yet.
    tokens: Vec<AnswerToken>,
}

impl Chunks {
    fn new(state: ServerState, identity: Identity, shape: Shape, answers: &[ChatStream]) -> Self {
        let first = &answers[0];
        Self {
            state,
            identity,
            shape,
            model: first.model().to_owned(),
            vocabulary: Vocabulary::new(first.lease()),
            answers: answers.iter().map(|_| Progress::default()).collect(),
            bill: Bill::default(),
            form: first.form().filter(|form| !form.unenforced().is_empty()).cloned(),
        }
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Option<Usage>>) -> ChatChunk {
        let Identity { id, created, model } = self.identity.clone();
        ChatChunk { id, object: CHUNK_OBJECT.into(), created, model, choices, usage, ingle: None }
    }

    fn write(
        &self,
        idx: usize,
        delta: ChatDelta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<FinishReason>,
        out: &mut BytesMut,
    ) {
        let usage = (self.shape.usage == StreamUsage::AtTheEnd).then_some(None);
        let is_last = finish_reason.is_some();
        let choice = ChatChunkChoice { index: idx as u32, delta, logprobs, finish_reason };
        let mut chunk = self.chunk(vec![choice], usage);
        if is_last {
            chunk.ingle = form::report(self.form.as_ref(), &self.answers[idx].content);
        }
        sse::write_frame(out, &chunk);
    }

    /// The first frame of an answer says who speaks.
    fn begin(&mut self, idx: usize, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.answers[idx].has_begun, true) {
            let delta = ChatDelta { role: Some(Role::Assistant), content: Some(String::new()), ..ChatDelta::default() };
            self.write(idx, delta, None, None, out);
        }
    }

    /// The log probabilities that are still to be sent.
    fn take_logprobs(&mut self, idx: usize) -> Option<ChatLogprobs> {
        let tokens = std::mem::take(&mut self.answers[idx].tokens);
        (self.shape.logprobs && !tokens.is_empty()).then(|| self.vocabulary.chat(&tokens))
    }

    fn content(&mut self, idx: usize, text: String, out: &mut BytesMut) {
        let logprobs = self.take_logprobs(idx);
        if self.form.is_some() {
            self.answers[idx].content.push_str(&text);
        }
        let delta = ChatDelta { content: Some(text), ..ChatDelta::default() };
        self.write(idx, delta, logprobs, None, out);
    }
}

impl Encode for Chunks {
    type Event = ChatEvent;

    fn encode(&mut self, idx: usize, event: ChatEvent, out: &mut BytesMut) {
        self.begin(idx, out);
        match event {
            ChatEvent::Tokens(tokens) => self.answers[idx].tokens.extend(tokens),
            ChatEvent::Content(text) if text.is_empty() => {}
            ChatEvent::Content(text) => self.content(idx, text, out),
            ChatEvent::Reasoning(text) => {
                let delta =
                    ChatDelta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..ChatDelta::default() };
                self.write(idx, delta, None, None, out);
            }
            ChatEvent::Done(end) => {
                self.state.metrics().record_answer(&finished(&self.model, &end.completion));
                self.bill.add(&end.completion, end.reasoning_tokens, SharesPrompt::of(idx, self.answers.len()));
                let logprobs = self.take_logprobs(idx);
                let reason = finish_reason(end.completion.reason);
                self.write(idx, ChatDelta::default(), logprobs, Some(reason), out);
            }
        }
    }

    fn finish(&mut self, out: &mut BytesMut) {
        if self.shape.usage == StreamUsage::AtTheEnd {
            let usage = self.bill.usage(self.shape.timing);
            sse::write_frame(out, &self.chunk(Vec::new(), Some(Some(usage))));
        }
    }
}
