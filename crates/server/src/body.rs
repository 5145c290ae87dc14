//! Reading request bodies: bounds, encoding, and faults that name their place.
use axum::body::Body;
use axum::extract::{FromRequest, Query, Request};
use axum::http::{HeaderMap, Uri, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use ingle_api::localai::{DetokenizeRequest, ModelRequest, TokenizeRequest, VadRequest};
use ingle_api::openai::{ChatRequest, CompletionRequest, EditRequest, EmbeddingRequest, SpeechRequest};
use ingle_api::rerank::RerankRequest;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::state::ServerState;

/// A body that is too large is read on up to so many times the limit, and thrown away, so that the client has sent it
/// all and reads the answer instead of a broken connection.
const DISCARD_FACTOR: u64 = 4;

/// A JSON body as the type `T`. A model that the query names goes before the one in the body, as in LocalAI.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A JSON body as the type `T`, which names no model.
pub(crate) struct JsonAny<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<ServerState> for JsonAny<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        read_json(request, state).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request, state: &ServerState) -> Result<T, ApiError> {
    let options = state.options();
    check_headers(request.headers())?;
    let read = read_bounded(request, options.body_limit_bytes);
    let bytes = timeout(options.body_timeout, read).await.map_err(|_| slow_body())??;
    if bytes.len() > options.text_limit_bytes && bytes.len() - media_bytes(&bytes) > options.text_limit_bytes {
        return Err(ApiError::body_too_large(options.text_limit_bytes));
    }
    parse(&bytes)
}

/// A body that names a model.
pub(crate) trait NamesModel {
    /// The name.
    fn model(&mut self) -> &mut Option<String>;
}

macro_rules! names_model {
    ($($body:ty),*) => { $(impl NamesModel for $body {
        fn model(&mut self) -> &mut Option<String> {
            &mut self.model
        }
    })* };
}

names_model!(
    ChatRequest,
    CompletionRequest,
    EditRequest,
    EmbeddingRequest,
    RerankRequest,
    SpeechRequest,
    VadRequest,
    TokenizeRequest,
    DetokenizeRequest,
    ModelRequest
);

/// The query parameter `model`.
pub(crate) fn model_in_query(uri: &Uri) -> Option<String> {
    // A query that cannot be read names nothing.
    let query = Query::<ModelRequest>::try_from_uri(uri).ok()?;
    query.0.model.filter(|name| !name.trim().is_empty())
}

impl<T: DeserializeOwned + NamesModel> FromRequest<ServerState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let in_query = model_in_query(request.uri());
        let mut body: T = read_json(request, state).await?;
        if in_query.is_some() {
            *body.model() = in_query;
        }
        Ok(Self(body))
    }
}

/// Bytes of media in base64: long runs of its letters. Prose has blanks.
fn media_bytes(body: &[u8]) -> usize {
    const LEAST: usize = 4096;
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    body.split(|byte| !is_letter(byte)).map(<[u8]>::len).filter(|length| *length >= LEAST).sum()
}

/// 400: the client sends too slowly.
pub(crate) fn slow_body() -> ApiError {
    ApiError::bad_request("body_timeout", "the body did not arrive in time; send it faster")
}

/// A body without a content type is taken as JSON; a form's or plain text's is not, since any web page may send those
/// anywhere.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let message = format!("content encoding {encoding:?} is not understood; send the body as it is");
        return Err(ApiError::bad_request("unsupported_encoding", message));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let message = format!(
        "the request body could not be parsed: content type `{}` is not JSON; send `Content-Type: application/json`",
        text.escape_debug()
    );
    Err(ApiError::bad_request("unsupported_content_type", message))
}

/// Bytes of the body as the head announces them.
pub(crate) fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read_bounded(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let headers = request.headers();
    let announced = announced_bytes(headers);
    let waits = headers.contains_key(header::EXPECT);
    let mut body = request.into_body();
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        if !waits {
            discard(&mut body, limit).await;
        }
        return Err(ApiError::body_too_large(limit));
    }
    let mut read = BytesMut::with_capacity(announced.unwrap_or(0) as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad_request("incomplete_body", "the body ended early"))?;
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > limit {
            drop(read);
            discard(&mut body, limit).await;
            return Err(ApiError::body_too_large(limit));
        }
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
}

/// Reads on and throws away, up to [`DISCARD_FACTOR`] times `limit` bytes.
pub(crate) async fn discard(body: &mut Body, limit: usize) {
    let mut left = DISCARD_FACTOR.saturating_mul(limit as u64);
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        if left == 0 {
            return;
        }
    }
}

/// Reads JSON; a fault names the path of the value.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("the request body could not be parsed: byte {} is not UTF-8", error.valid_up_to());
        ApiError::bad_request("invalid_json", message)
    })?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with('{') {
        let message = "the request body could not be parsed: it must be a JSON object";
        return Err(ApiError::bad_request("invalid_json", message));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| fault(&error))?;
    deserializer.end().map_err(|error| {
        ApiError::bad_request("invalid_json", format!("the request body could not be parsed: {error}"))
    })?;
    Ok(value)
}

fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let inner = error.inner().to_string().replace("expected f32", "expected a number");
    if path == "." || !error.inner().is_data() {
        return ApiError::bad_request("invalid_json", format!("the request body could not be parsed: {inner}"));
    }
    let message = format!("the request body could not be parsed at `{path}`: {inner}");
    ApiError { param: Some(path), ..ApiError::bad_request("invalid_type", message) }
}
