//! Faults whose answers are no fixed bytes.
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use http_body_util::BodyExt;
use ingle_engine::fake::Answers;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use super::{Server, Setup, events};
use crate::ServerOptions;
use crate::layers::panicked;

const CHAT: &str = "/v1/chat/completions";

fn small_limit() -> Setup {
    Setup { options: ServerOptions { body_limit_bytes: 1000, ..ServerOptions::default() }, ..Setup::default() }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
    let server = small_limit().build();
    let big = "x".repeat(3000);
    let announced = server.post(CHAT, &format!(r#"{{"x":"{big}"}}"#)).await;
    assert_eq!(
        (announced.status, &announced.json()["error"]["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"body_too_large".into())
    );
    let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 500])));
    let streamed = Request::post(CHAT).header("content-type", "application/json");
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let streamed = server.send(streamed.body(body).expect("a request")).await;
    assert_eq!(streamed.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(server.post(CHAT, "{}").await.status == StatusCode::BAD_REQUEST, "a small body is read");
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_refused_with_their_place() {
    let server = Setup::default().build();
    let request = Request::post(CHAT).body(Body::from(&b"{\"model\":\"\xff\"}"[..])).expect("a request");
    let answered = server.send(request).await;
    assert_eq!(answered.status, StatusCode::BAD_REQUEST);
    assert!(answered.text().contains("byte 10 is not UTF-8"), "{}", answered.text());
}

#[tokio::test]
async fn a_panic_is_a_500_with_an_envelope() {
    async fn broken() -> StatusCode {
        panic!("a test");
    }
    let router = Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(panicked));
    let response = router.oneshot(Request::get("/").body(Body::empty()).expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["content-type"], "application/json");
}

/// Opens a stream that goes on until it is dropped.
async fn endless(server: &Server) -> Body {
    let body = r#"{"model":"m","prompt":"x","stream":true,"ignore_eos":true}"#;
    let request = Request::post("/v1/completions").body(Body::from(body)).expect("a request");
    let response = server.router.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

#[tokio::test]
async fn a_full_queue_is_a_503_that_says_when_to_come_back() {
    let server = Setup { answers: Answers::Hash, max_waiting: 2, context_size: 200_000, ..Setup::default() }.build();
    let running = endless(&server).await;
    let n_slots = server.state.runtime().loaded()[0].stats.expect("a text model").occupancy.slots;
    let ask = async |n: usize| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":1,"n":{n}}}"#);
        server.post(CHAT, &body).await
    };
    let refused = ask(n_slots + 2).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "overloaded");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|secs| secs >= 1));
    // One more can never be served, so that trying again is no use.
    let impossible = ask(n_slots + 3).await;
    assert_eq!((impossible.status, &impossible.json()["error"]["param"]), (StatusCode::BAD_REQUEST, &"n".into()));
    drop(running);
    while server.busy() > 0 {
        tokio::task::yield_now().await;
    }
    let served = ask(n_slots + 2).await;
    assert_eq!(served.status, StatusCode::OK, "{}", served.text());
}

#[tokio::test]
async fn an_engine_that_dies_fails_its_requests_and_comes_back() {
    let server = Setup::default().build();
    let dead = server.post("/v1/completions", r#"{"model":"m","prompt":"<|panic|>"}"#).await;
    assert_eq!((dead.status, &dead.json()["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"engine_died".into()));
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (StatusCode::SERVICE_UNAVAILABLE, &"failed".into()));
    assert_eq!(server.get("/healthz").await.status, StatusCode::OK);
    let again = server.post("/v1/completions", r#"{"model":"m","prompt":"x","max_tokens":1}"#).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text());
    assert_eq!(server.get("/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_failing_step_is_a_status_before_the_first_token() {
    let server = Setup::default().build();
    let body = r#"{"model":"m","prompt":"<|step|>","stream":true}"#;
    let failed = server.post("/v1/completions", body).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", failed.text());
    let body = r#"{"model":"m","prompt":"<|nan|>"}"#;
    assert_eq!(server.post("/v1/completions", body).await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_model_file_that_has_gone_is_told() {
    let server = Setup::default().build();
    std::fs::remove_file(server._models.path().join("m.gguf")).expect("the file is there");
    let answered = server.post(CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#).await;
    assert_eq!(
        (answered.status, &answered.json()["error"]["code"]),
        (StatusCode::NOT_FOUND, &"model_not_found".into())
    );
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_a_frame() {
    let server = Setup { answers: Answers::Hash, context_size: 200_000, ..Setup::default() }.build();
    let body = endless(&server).await;
    // Another request kills the engine under it.
    server.post("/v1/completions", r#"{"model":"m","prompt":"<|panic|>"}"#).await;
    let body = body.collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    let events = events(&text);
    assert!(events.len() > 2 && events[0].starts_with(r#"{"id":"cmpl-"#), "{text}");
    assert!(events[events.len() - 2].starts_with(r#"{"error":{"message":"the engine of model m has died"#), "{text}");
    assert_eq!(events.last(), Some(&"[DONE]"));
}
