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
    FinishReason, FormReport, Role, ToolCall, Usage,
};
use ingle_runtime::catalog::Usecase;
use ingle_runtime::{AnswerToken, ChatCall, ChatEvent, ChatStream, Compiled};

use super::conversation::{conversation, template_options};
use super::drive::{Encode, frames, select};
use super::form;
use super::logprobs::Vocabulary;
use super::params::{answer_options, chat_logprobs};
use super::tools::{self, CallStyle, Offer};
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
    style: CallStyle,
}

/// `POST /v1/chat/completions`
pub(crate) async fn chat(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let logprobs = chat_logprobs(request.logprobs, request.top_logprobs)?;
    let model = named(request.model.clone());
    let offer = Offer::of(&request)?;
    let fields = request.sampling();
    let (mut asked, mut ignored) = form::asked_for(&fields)?;
    if offer.is_open() {
        asked = form::beside_tools(asked, &mut ignored, offer.is_forced());
    }
    let options = answer_options(fields, request.max_completion_tokens, logprobs, asked)?;
    let style = offer.style;
    let call = ChatCall {
        model: model.clone(),
        conversation: conversation(&request, offer.tools)?,
        tool_use: offer.tool_use,
        template: template_options(&request),
        options,
    };
    let (timing, usage) = (Timing::from(&headers), request.stream_options.into());
    let shape = Shape { logprobs: logprobs.is_some(), timing, usage, style };
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
        let finish_reason = Some(reason(&end, shape.style));
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
    let mut calls: Vec<ToolCall> = Vec::new();
    while let Some(event) = answer.next().await {
        match event? {
            ChatEvent::Content(text) => content.push_str(&text),
            ChatEvent::Reasoning(text) => reasoning.push_str(&text),
            ChatEvent::Tokens(more) => tokens.extend(more),
            ChatEvent::CallStart { name } => calls.push(tools::call(name)),
            ChatEvent::CallArguments(text) => calls.iter_mut().last().into_iter().for_each(|call| {
                call.function.arguments.push_str(&text);
            }),
            ChatEvent::CallEnd => {}
            ChatEvent::Done(end) => {
                let logprobs = shape.logprobs.then(|| Vocabulary::new(answer.lease()).chat(&tokens));
                let model = answer.model().to_owned();
                let said = calls.iter().map(|call| (call.function.name.as_str(), call.function.arguments.as_str()));
                let report = form::report_with_calls(answer.form(), &content, said);
                let message = message(content, reasoning, calls, shape.style);
                return Ok(Ended { model, message, logprobs, end, report });
            }
        }
    }
    Err(ApiError::internal("the answer ended without an end; this is a bug"))
}

/// Why an answer ended: calls are what its client acts on, unless the last is cut off.
fn reason(end: &ingle_runtime::ChatCompletion, style: CallStyle) -> FinishReason {
    match (end.n_calls, end.is_cut, style) {
        (0, _, _) => finish_reason(end.completion.reason),
        (_, true, _) => FinishReason::Length,
        (_, false, CallStyle::Tools) => FinishReason::ToolCalls,
        (_, false, CallStyle::Function) => FinishReason::FunctionCall,
    }
}

fn message(content: String, reasoning: String, mut calls: Vec<ToolCall>, style: CallStyle) -> AssistantMessage {
    let reasoning = (!reasoning.is_empty()).then_some(reasoning);
    let content = (calls.is_empty() || !content.is_empty()).then_some(content);
    let function_call = match style {
        CallStyle::Function if !calls.is_empty() => Some(calls.swap_remove(0).function),
        CallStyle::Function | CallStyle::Tools => None,
    };
    let tool_calls = if style == CallStyle::Tools { calls } else { Vec::new() };
    AssistantMessage {
        role: Role::Assistant,
        content,
        reasoning_content: reasoning.clone(),
        reasoning,
        refusal: None,
        tool_calls,
        function_call,
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
    /// Names and arguments of its calls; the arguments only where they are to be checked.
    calls: Vec<(String, String)>,
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
            let Progress { content, calls, .. } = &self.answers[idx];
            let said = calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str()));
            chunk.ingle = form::report_with_calls(self.form.as_ref(), content, said);
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

impl Chunks {
    fn call_start(&mut self, idx: usize, name: String, out: &mut BytesMut) {
        let calls = &mut self.answers[idx].calls;
        let delta = tools::start_delta(self.shape.style, calls.len() as u32, name.clone());
        calls.push((name, String::new()));
        self.write(idx, delta, None, None, out);
    }

    fn call_arguments(&mut self, idx: usize, text: String, out: &mut BytesMut) {
        let calls = &mut self.answers[idx].calls;
        let place = calls.len().saturating_sub(1) as u32;
        if let Some((_, arguments)) = calls.last_mut().filter(|_| self.form.is_some()) {
            arguments.push_str(&text);
        }
        self.write(idx, tools::arguments_delta(self.shape.style, place, text), None, None, out);
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
            ChatEvent::CallStart { name } => self.call_start(idx, name, out),
            ChatEvent::CallArguments(text) => self.call_arguments(idx, text, out),
            ChatEvent::CallEnd => {}
            ChatEvent::Reasoning(text) => {
                let delta =
                    ChatDelta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..ChatDelta::default() };
                self.write(idx, delta, None, None, out);
            }
            ChatEvent::Done(end) => {
                self.state.metrics().record_answer(&finished(&self.model, &end.completion));
                self.bill.add(&end.completion, end.reasoning_tokens, SharesPrompt::of(idx, self.answers.len()));
                let logprobs = self.take_logprobs(idx);
                let reason = reason(&end, self.shape.style);
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
