//! `POST /v1/edits`, OpenAI's old form: a text, changed as an instruction says.
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use ingle_api::openai::{Completion, CompletionChoice, EditRequest, Prompt};
use ingle_runtime::catalog::Usecase;
use ingle_runtime::{ChatEvent, ChatStream, EditCall};

use super::params::{MAX_ANSWERS, answer_options};
use super::usage::{Bill, SharesPrompt, finished};
use super::{Identity, Timing, finish_reason};
use crate::aside::{aside, named};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::ServerState;

/// `POST /v1/edits`
pub(crate) async fn edits(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<EditRequest>,
) -> Result<Json<Completion>, ApiError> {
    let Some(instruction) = request.instruction.clone().filter(|text| !text.trim().is_empty()) else {
        return Err(ApiError::invalid_value("instruction", "`instruction` is missing; say what to change"));
    };
    let inputs = match request.input.clone() {
        None => vec![String::new()],
        Some(Prompt::Text(text)) => vec![text],
        Some(Prompt::Texts(texts)) => texts,
        Some(Prompt::Tokens(_) | Prompt::TokenLists(_)) => {
            return Err(ApiError::invalid_value("input", "`input` must be a text or a list of texts"));
        }
    };
    let options = answer_options(request.sampling(), None, None, None)?;
    let n = options.n;
    if inputs.is_empty() || inputs.len().saturating_mul(n) > MAX_ANSWERS {
        let message = format!("`input` has {} texts with {n} answers each; send 1 to {MAX_ANSWERS}", inputs.len());
        return Err(ApiError::invalid_value("input", message));
    }
    let runtime = state.runtime().clone();
    let model = named(request.model.clone());
    let started = async {
        let lease = runtime.lease(model.as_deref(), Usecase::Edit).await?;
        let (runtime, model) = (runtime.clone(), Some(lease.model().to_owned()));
        aside(async move {
            let mut answers = Vec::new();
            for input in inputs {
                let (model, instruction) = (model.clone(), instruction.clone());
                answers.extend(runtime.edit(EditCall { model, input, instruction, options: options.clone() }).await?);
            }
            Ok(answers)
        })
        .await
    };
    let answers: Vec<ChatStream> = state.lifecycle().unless_cancelled(started).await?;
    let model = model.unwrap_or_else(|| answers[0].model().to_owned());
    let ended = state.lifecycle().unless_cancelled(try_join_all(answers.into_iter().map(whole))).await?;
    let mut bill = Bill::default();
    let mut choices = Vec::with_capacity(ended.len());
    for (idx, (name, text, completion)) in ended.into_iter().enumerate() {
        state.metrics().record_answer(&finished(&name, &completion));
        bill.add(&completion, 0, SharesPrompt::of(idx, n));
        let finish_reason = Some(finish_reason(completion.reason));
        choices.push(CompletionChoice { index: idx as u32, text, logprobs: None, finish_reason });
    }
    let Identity { id, created, model } = Identity::new("edit", &model);
    let usage = Some(bill.usage(Timing::from(&headers)));
    let object = "edit".into();
    Ok(Json(Completion { id, object, created, model, choices, usage, system_fingerprint: None, ingle: None }))
}

/// Name of the model, text and end of one answer.
async fn whole(mut stream: ChatStream) -> Result<(String, String, ingle_runtime::Completion), ApiError> {
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        match event? {
            ChatEvent::Content(piece) => text.push_str(&piece),
            ChatEvent::Done(done) => return Ok((stream.model().to_owned(), text, done.completion)),
            ChatEvent::Reasoning(_)
            | ChatEvent::CallStart { .. }
            | ChatEvent::CallArguments(_)
            | ChatEvent::CallEnd
            | ChatEvent::Tokens(_) => {}
        }
    }
    Err(ApiError::internal("the answer ended without an end; this is a bug"))
}
