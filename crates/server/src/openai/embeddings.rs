//! `POST /v1/embeddings`.
use std::future::Future;
use std::num::NonZeroU32;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ingle_api::openai::{Embedding, EmbeddingList, EmbeddingRequest, InputUsage, Prompt, Vector};
use ingle_runtime::catalog::{Usecase, VectorEncoding, WindowPooling};
use ingle_runtime::{EmbedCall, EmbedInput, EmbedPrompt, Embeddings, LongTexts};

use super::Identity;
use crate::aside::{aside, named};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::metrics::FinishedCall;
use crate::state::ServerState;

/// Says how many inputs were cut to what the model takes.
pub(crate) const TRUNCATED: header::HeaderName = header::HeaderName::from_static("x-ingle-truncated-inputs");

/// More text is tokenized away from the threads that serve connections.
const QUICK_BYTES: usize = 16 << 10;

/// `POST /v1/embeddings`
pub(crate) async fn embeddings(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    answer(&state, request).await
}

/// `POST /v1/engines/{model}/embeddings`: the path names the model.
pub(crate) async fn engine_embeddings(
    State(state): State<ServerState>,
    Path(model): Path<String>,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    answer(&state, EmbeddingRequest { model: Some(model), ..request }).await
}

async fn answer(state: &ServerState, request: EmbeddingRequest) -> Result<Response, ApiError> {
    let model = named(request.model.clone());
    let asked = encoding(request.encoding_format.as_deref())?;
    let call = call(model.clone(), request)?;
    let n_bytes = call.inputs.iter().map(EmbedInput::n_bytes).sum();
    let runtime = state.runtime().clone();
    let embedded = async {
        // Loading and computing are waited for here; what goes aside is work.
        let _lease = runtime.lease(call.model.as_deref(), Usecase::Embeddings).await?;
        let runtime = runtime.clone();
        let pending = beside(n_bytes, async move { Ok(runtime.begin_embed(call).await?) }).await?;
        Ok(pending.finish().await?)
    };
    let embedded = state.lifecycle().unless_cancelled(embedded).await;
    let embedded = embedded.map_err(|error: ApiError| error.renamed("prompt", "input"))?;
    record(state, &embedded);
    let configured = || state.runtime().catalog().get(&embedded.model).ok()?.config.embed.encoding;
    let encoding = asked.or_else(configured).unwrap_or(VectorEncoding::Float);
    let n_cut = embedded.n_cut;
    let name = model.unwrap_or_else(|| embedded.model.clone());
    let mut response = Json(list(&name, embedded, encoding)).into_response();
    if n_cut > 0 {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from(n_cut));
    }
    Ok(response)
}

/// Runs `work` on so much text where it holds nobody up.
pub(crate) async fn beside<T: Send + 'static>(
    n_bytes: usize,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    if n_bytes <= QUICK_BYTES { work.await } else { aside(work).await }
}

fn record(state: &ServerState, embedded: &Embeddings) {
    state.metrics().record_call(&FinishedCall {
        model: embedded.model.clone(),
        task: "embed",
        inputs: embedded.vectors.len(),
        tokens: embedded.prompt_tokens,
        waited: embedded.waited,
        took: embedded.took,
    });
}

fn list(model: &str, embedded: Embeddings, encoding: VectorEncoding) -> EmbeddingList {
    let Identity { id, created, model } = Identity::new("embd", model);
    let embedding = |(idx, vector): (usize, Vec<f32>)| Embedding {
        object: "embedding".into(),
        index: idx as u32,
        embedding: match encoding {
            VectorEncoding::Float => Vector::Floats(vector),
            VectorEncoding::Base64 => Vector::Base64(base64_of(&vector)),
        },
    };
    EmbeddingList {
        object: "list".into(),
        data: embedded.vectors.into_iter().enumerate().map(embedding).collect(),
        model,
        usage: InputUsage::new(embedded.prompt_tokens),
        id,
        created,
    }
}

fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

fn encoding(asked: Option<&str>) -> Result<Option<VectorEncoding>, ApiError> {
    match asked.filter(|asked| !asked.is_empty()) {
        None => Ok(None),
        Some("float") => Ok(Some(VectorEncoding::Float)),
        Some("base64") => Ok(Some(VectorEncoding::Base64)),
        Some(other) => {
            let message = format!("`encoding_format` is {other:?}; use float or base64");
            Err(ApiError::invalid_value("encoding_format", message))
        }
    }
}

fn call(model: Option<String>, request: EmbeddingRequest) -> Result<EmbedCall, ApiError> {
    if request.messages.as_ref().is_some_and(|messages| !messages.is_null()) {
        return Err(ApiError::unsupported("messages", "`messages` cannot be embedded; send the text as `input`"));
    }
    let dimensions = request.dimensions.map(|dimensions| {
        let wrong = || ApiError::invalid_value("dimensions", format!("`dimensions` is {dimensions}; use 1 or more"));
        usize::try_from(dimensions).ok().filter(|dimensions| *dimensions > 0).ok_or_else(wrong)
    });
    Ok(EmbedCall {
        model,
        inputs: inputs(request.input)?,
        dimensions: dimensions.transpose()?,
        prompt: prompt(request.prompt_name, request.input_type)?,
        long_texts: long_texts(request.pooling.as_deref(), request.pooling_half_life_tokens)?,
    })
}

fn inputs(input: Option<Prompt>) -> Result<Vec<EmbedInput>, ApiError> {
    let inputs: Vec<EmbedInput> = match input {
        None => return Err(ApiError::invalid_value("input", "`input` is missing; send the text to embed")),
        Some(Prompt::Text(text)) => vec![EmbedInput::Text(text)],
        Some(Prompt::Texts(texts)) => texts.into_iter().map(EmbedInput::Text).collect(),
        Some(Prompt::Tokens(tokens)) => vec![EmbedInput::Tokens(tokens)],
        Some(Prompt::TokenLists(lists)) => lists.into_iter().map(EmbedInput::Tokens).collect(),
    };
    match inputs.is_empty() {
        true => Err(ApiError::invalid_value("input", "`input` is an empty list; send at least one text")),
        false => Ok(inputs),
    }
}

fn prompt(name: Option<String>, input_type: Option<String>) -> Result<EmbedPrompt, ApiError> {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        return Ok(EmbedPrompt::Named(name));
    }
    match input_type.as_deref().unwrap_or_default() {
        "" => Ok(EmbedPrompt::Default),
        "query" | "search_query" => Ok(EmbedPrompt::Query),
        "document" | "passage" | "search_document" => Ok(EmbedPrompt::Document),
        other => {
            let message = format!("`input_type` is {other:?}; use query or document, or name a prompt: `prompt_name`");
            Err(ApiError::invalid_value("input_type", message))
        }
    }
}

fn long_texts(pooling: Option<&str>, half_life: Option<i64>) -> Result<LongTexts, ApiError> {
    let half_life_tokens = half_life.filter(|tokens| *tokens != 0).map(|tokens| {
        let wrong = || {
            let message = format!("`pooling_half_life_tokens` is {tokens}; use 1 or more");
            ApiError::invalid_value("pooling_half_life_tokens", message)
        };
        u32::try_from(tokens).ok().and_then(NonZeroU32::new).ok_or_else(wrong)
    });
    let half_life_tokens = half_life_tokens.transpose()?;
    let pieces = |pooling| Ok(LongTexts::Pieces { pooling, half_life_tokens });
    match pooling.unwrap_or_default() {
        "" => Ok(LongTexts::AsConfigured),
        "backend" => Ok(LongTexts::AsModel),
        "mean" => pieces(WindowPooling::Mean),
        "last" => pieces(WindowPooling::Last),
        "decayed_mean" => pieces(WindowPooling::DecayedMean),
        other => {
            let message = format!("`pooling` is {other:?}; use backend, mean, last or decayed_mean");
            Err(ApiError::invalid_value("pooling", message))
        }
    }
}
