//! Several answers in one stream, and readers that go away.
use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use ingle_engine::fake::Answers;
use serde_json::Value;
use tower::ServiceExt;

use super::{Setup, events};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn answers_of_one_request_interleave_and_keep_their_index() {
    let server = Setup::default().build();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"n":4,"stream":true,
                   "stream_options":{"include_usage":true}}"#;
    let answered = server.post(CHAT, body).await;
    let mut texts: BTreeMap<u64, String> = BTreeMap::new();
    let (mut roles, mut ends, mut usage) = (0, 0, None);
    for event in events(&answered.text()).into_iter().filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).expect("JSON");
        let choices = chunk["choices"].as_array().expect("choices");
        let Some(choice) = choices.first() else {
            usage = Some(chunk["usage"]["completion_tokens"].clone());
            continue;
        };
        assert_eq!(choices.len(), 1, "one choice a chunk");
        assert!(usage.is_none(), "usage comes last");
        assert!(chunk["usage"].is_null());
        let text = texts.entry(choice["index"].as_u64().expect("an index")).or_default();
        roles += usize::from(choice["delta"]["role"] == "assistant");
        ends += usize::from(choice["finish_reason"] == "stop");
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!((roles, ends), (4, 4));
    assert_eq!(texts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3].map(|idx| (idx, "Hello, Wörld!".to_owned())));
    assert_eq!(usage, Some(Value::from(4 * ("Hello, Wörld!".len() + 1))), "every byte and every end is a token");
}

#[tokio::test]
async fn streamed_equals_whole() {
    let server = Setup { answers: Answers::Hash, ..Setup::default() }.build();
    for seed in 0..8 {
        let body = format!(
            r#"{{"model":"m","prompt":"seed {seed}","seed":{seed},"temperature":1.5,"max_tokens":40,"stream":STREAM}}"#
        );
        let whole = server.post("/v1/completions", &body.replace("STREAM", "false")).await.json();
        let streamed = server.post("/v1/completions", &body.replace("STREAM", "true")).await.text();
        let chunks = events(&streamed).into_iter().filter(|event| *event != "[DONE]");
        let text: String = chunks
            .map(|event| serde_json::from_str::<Value>(event).expect("JSON"))
            .map(|chunk| chunk["choices"][0]["text"].as_str().expect("text").to_owned())
            .collect();
        assert_eq!(whole["choices"][0]["text"], text, "seed {seed}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_slot() {
    let server = Setup { answers: Answers::Hash, context_size: 200_000, ..Setup::default() }.build();
    for kind in ["true", "false"] {
        let body = format!(r#"{{"model":"m","prompt":"x","ignore_eos":true,"stream":{kind}}}"#);
        let request = Request::post("/v1/completions").header("content-type", "application/json");
        let request = request.body(Body::from(body)).expect("a request");
        let mut answer = Box::pin(server.router.clone().oneshot(request));
        if kind == "true" {
            let mut body = answer.await.expect("an answer").into_body();
            let frame = body.frame().await.expect("a frame").expect("no failure");
            assert!(frame.data_ref().is_some_and(|data| data.starts_with(b"data: {")));
        } else {
            // Polled until the request runs, then dropped.
            while server.busy() == 0 {
                let poll = tokio::time::timeout(Duration::from_millis(1), &mut answer).await;
                assert!(poll.is_err(), "it runs for long");
            }
            drop(answer);
        }
        let freed = async {
            while server.busy() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), freed).await.expect("the slot is freed");
    }
}

#[tokio::test]
async fn what_finished_shows_in_the_metrics() {
    let server = Setup::default().build();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    server.post(CHAT, body).await;
    server.post("/chat/completions", body).await;
    server.get("/v1/models/nothing").await;
    server.get("/random/path").await;
    let text = server.get("/metrics").await.text();
    let n_tokens = 2 * ("Hello, Wörld!".len() + 1);
    for line in [
        &format!("ingle_completion_tokens_total{{model=\"m\"}} {n_tokens}"),
        "ingle_answers_total{model=\"m\",finish=\"stop\"} 2",
        "ingle_time_to_first_token_seconds_count{model=\"m\"} 2",
        "ingle_http_requests_total{method=\"POST\",path=\"/v1/chat/completions\",status=\"200\"} 1",
        "ingle_http_requests_total{method=\"POST\",path=\"/chat/completions\",status=\"200\"} 1",
        "ingle_http_requests_total{method=\"GET\",path=\"/v1/models/{*id}\",status=\"404\"} 1",
        "ingle_http_requests_total{method=\"GET\",path=\"unmatched\",status=\"404\"} 1",
        "ingle_requests_running{model=\"m\"} 0",
        "ingle_cells{model=\"m\"} 512",
        "ingle_models{model=\"m\",state=\"ready\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let hits = text.lines().find(|line| line.starts_with("ingle_prefix_hit_tokens_total{model=\"m\"}"));
    let hits: u64 = hits.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count");
    assert!(hits > 0, "the second prompt was in the cache");
}
