//! Headers that every answer carries.
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use crate::state::ServerState;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const MACHINE_TAG: HeaderName = HeaderName::from_static("machine-tag");

/// Pages of this server use nothing but their own scripts and styles.
const CONTENT_POLICY: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; \
                              img-src 'self' data:; frame-ancestors 'self'";

/// Longest id of a caller that is echoed.
const MAX_ID_BYTES: usize = 128;

/// Adds the request's id (the caller's when it is sane) and what the options ask for.
pub(crate) async fn add_headers(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let request_id = sane(request.headers(), &REQUEST_ID).unwrap_or_else(new_id);
    let correlation_id = sane(request.headers(), &CORRELATION_ID);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), id = ?request_id, "answered");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    if let Some(id) = correlation_id {
        headers.insert(CORRELATION_ID, id);
    }
    if let Some(tag) = state.options().machine_tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok()) {
        headers.insert(MACHINE_TAG, tag);
    }
    response
}

/// Empties the body of a failure, when the options ask for it.
pub(crate) async fn hide_errors(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let status = response.status();
    if state.options().opaque_errors && (status.is_client_error() || status.is_server_error()) {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

fn sane(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let value = headers.get(name)?;
    let bytes = value.as_bytes();
    let is_sane = !bytes.is_empty() && bytes.len() <= MAX_ID_BYTES && bytes.iter().all(u8::is_ascii_graphic);
    is_sane.then(|| value.clone())
}

fn new_id() -> HeaderValue {
    HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is ASCII")
}
