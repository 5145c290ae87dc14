//! Event streams: one `data:` line a frame, a late head, comments while nothing comes.
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use ingle_api::openai::STREAM_END;
use serde::Serialize;
use tokio::time::timeout;

use crate::error::ApiError;

/// The frames of one answer, already encoded; a failure ends it.
pub(crate) type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// Keeps a connection from looking dead.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// When to send what in the absence of frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long the head waits for the first frame.
    pub(crate) head_delay: Duration,
    /// How often a comment is sent.
    pub(crate) keep_alive: Duration,
}

/// Appends `value` to `buffer` as one frame.
pub(crate) fn write_frame<T: Serialize>(buffer: &mut BytesMut, value: &T) {
    buffer.put_slice(b"data: ");
    serde_json::to_writer(buffer.writer(), value).expect("wire types serialise");
    buffer.put_slice(b"\n\n");
}

/// The answer to a streaming request.
///
/// Until the first frame or `head_delay`, whichever comes first, a failure is returned and becomes a status; after
/// that it is a frame. `cancelled` ends the stream with the failure it gives.
///
/// # Errors
/// The failure that came before the head was sent.
pub(crate) async fn respond<C>(mut frames: Frames, cancelled: C, pace: Pace) -> Result<Response, ApiError>
where
    C: Future<Output = ApiError> + Send + 'static,
{
    let mut cancelled = Box::pin(cancelled);
    let first = tokio::select! {
        biased;
        first = timeout(pace.head_delay, frames.next()) => first,
        error = &mut cancelled => return Err(error),
    };
    let first = match first {
        Ok(Some(Err(error))) => return Err(error),
        Ok(Some(Ok(frame))) => frame,
        Ok(None) => Bytes::new(),
        Err(_) => Bytes::from_static(COMMENT),
    };
    let rest = Rest { frames, cancelled, keep_alive: pace.keep_alive };
    let head = stream::iter((!first.is_empty()).then_some(first));
    let body = head.chain(stream::unfold(Some(rest), next_bytes)).map(Ok::<_, std::convert::Infallible>);
    Ok(with_headers(Body::from_stream(body)))
}

/// What is left of a stream after its head.
struct Rest<C> {
    frames: Frames,
    cancelled: Pin<Box<C>>,
    keep_alive: Duration,
}

async fn next_bytes<C: Future<Output = ApiError>>(rest: Option<Rest<C>>) -> Option<(Bytes, Option<Rest<C>>)> {
    let mut rest = rest?;
    let next = tokio::select! {
        biased;
        next = timeout(rest.keep_alive, rest.frames.next()) => next,
        error = &mut rest.cancelled => Ok(Some(Err(error))),
    };
    match next {
        Ok(Some(Ok(frame))) => Some((frame, Some(rest))),
        Ok(Some(Err(error))) => Some((error_frame(&error), None)),
        Ok(None) => Some((last_frame(), None)),
        Err(_) => Some((Bytes::from_static(COMMENT), Some(rest))),
    }
}

fn last_frame() -> Bytes {
    Bytes::from(format!("data: {STREAM_END}\n\n"))
}

/// A failure in the middle, and the end.
fn error_frame(error: &ApiError) -> Bytes {
    let mut buffer = BytesMut::new();
    write_frame(&mut buffer, &error.envelope());
    buffer.put_slice(&last_frame());
    buffer.freeze()
}

fn with_headers(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies (nginx) would otherwise hold frames back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use bytes::{Bytes, BytesMut};
    use futures_util::stream::{self, StreamExt};
    use http_body_util::BodyExt;

    use super::{Frames, Pace, respond, write_frame};
    use crate::error::ApiError;

    const PACE: Pace = Pace { head_delay: Duration::from_secs(10), keep_alive: Duration::from_secs(15) };

    fn frame(text: &str) -> Result<Bytes, ApiError> {
        let mut buffer = BytesMut::new();
        write_frame(&mut buffer, &text);
        Ok(buffer.freeze())
    }

    fn after(secs: u64, item: Result<Bytes, ApiError>) -> Frames {
        stream::once(async move {
            tokio::time::sleep(Duration::from_secs(secs)).await;
            item
        })
        .boxed()
    }

    async fn bytes_of(frames: Frames) -> String {
        let response = respond(frames, pending(), PACE).await.expect("no failure before the head");
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert!(response.headers().get("content-length").is_none());
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_single_lines_and_the_end_is_marked() {
        let frames = stream::iter([frame("a\nb"), frame("c")]).boxed();
        assert_eq!(bytes_of(frames).await, "data: \"a\\nb\"\n\ndata: \"c\"\n\ndata: [DONE]\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_before_the_head_is_a_status() {
        let error = ApiError::internal("broken");
        let refused = respond(after(9, Err(error.clone())), pending(), PACE).await;
        assert_eq!(refused.map(|_| ()), Err(error));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_after_the_head_is_a_frame() {
        let expected = "data: {\"error\":{\"message\":\"broken\",\"type\":\"server_error\",\"param\":null,\
                        \"code\":\"internal_error\"}}\n\ndata: [DONE]\n\n";
        let late = bytes_of(after(11, Err(ApiError::internal("broken")))).await;
        assert_eq!(late, format!(": keep-alive\n\n{expected}"));
        let frames = stream::iter([frame("a"), Err(ApiError::internal("broken")), frame("never")]).boxed();
        assert_eq!(bytes_of(frames).await, format!("data: \"a\"\n\n{expected}"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_stream_sends_comments() {
        let waits = bytes_of(after(50, frame("a"))).await;
        assert_eq!(waits.matches(": keep-alive\n\n").count(), 3, "at 10, 25 and 40 seconds");
        assert!(waits.ends_with("data: \"a\"\n\ndata: [DONE]\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_stream_says_why() {
        let cancelled = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            ApiError::unavailable("shutting_down", "stopping", 5)
        };
        let frames = stream::once(ready(frame("a"))).chain(stream::pending()).boxed();
        let response = respond(frames, cancelled, PACE).await.expect("a head");
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("data: {\"error\":{\"message\":\"stopping\""), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"));
    }
}
