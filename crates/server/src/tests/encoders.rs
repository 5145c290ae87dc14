//! Embeddings and reranking over HTTP.
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answered, Server, Setup};

async fn embed(server: &Server, body: Value) -> Answered {
    server.post("/v1/embeddings", &body.to_string()).await
}

fn numbers(vector: &Value) -> Vec<f32> {
    vector.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

#[tokio::test]
async fn every_form_of_input_is_taken() {
    let server = Setup::default().build();
    let one = numbers(&embed(&server, json!({"model": "e", "input": "ab"})).await.json()["data"][0]["embedding"]);
    for input in [json!(["ab"]), json!([97, 98]), json!([[97, 98]])] {
        let answered = embed(&server, json!({"model": "e", "input": input.clone(), "user": "u"})).await;
        let body = answered.json();
        assert_eq!(answered.status, StatusCode::OK, "{input}: {body}");
        assert_eq!(numbers(&body["data"][0]["embedding"]), one, "{input}");
        assert_eq!(body["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
        assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("e")));
    }
    let many: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    let body = embed(&server, json!({"model": "e", "input": many})).await.json();
    let indexes: Vec<u64> =
        body["data"].as_array().expect("a list").iter().filter_map(|entry| entry["index"].as_u64()).collect();
    assert_eq!(indexes, (0..300).collect::<Vec<u64>>());
}

#[tokio::test]
async fn base64_holds_the_same_numbers() {
    let server = Setup::default().build();
    let floats = embed(&server, json!({"input": "text", "model": "e"})).await.json();
    let encoded = embed(&server, json!({"input": "text", "model": "e", "encoding_format": "base64"})).await.json();
    let bytes = STANDARD.decode(encoded["data"][0]["embedding"].as_str().expect("a string")).expect("base64");
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let decoded: Vec<f32> = chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    assert_eq!(decoded, numbers(&floats["data"][0]["embedding"]));
}

#[tokio::test]
async fn the_path_or_the_query_may_name_the_model() {
    let server = Setup::default().build();
    for path in ["/v1/engines/e/embeddings", "/embeddings?model=e", "/v1/embeddings"] {
        let answered = server.post(path, r#"{"input": "x"}"#).await;
        assert_eq!(answered.json()["model"], "e", "{path}");
    }
}

#[tokio::test]
async fn what_was_cut_is_told() {
    let server = Setup::default().build();
    let answered = embed(&server, json!({"input": ["x".repeat(1000), "short"], "model": "e"})).await;
    assert_eq!(answered.header("x-ingle-truncated-inputs"), "1");
    assert_eq!(answered.json()["usage"]["prompt_tokens"], 64 + 7);
    let whole = embed(&server, json!({"input": "x".repeat(1000), "model": "e", "pooling": "mean"})).await;
    assert_eq!(whole.header("x-ingle-truncated-inputs"), "");
    assert!(whole.json()["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 1000));
}

#[tokio::test]
async fn inputs_that_make_no_sense_are_refused_and_named() {
    let server = Setup::default().build();
    for (body, status, param) in [
        (json!({"model": "e"}), 400, "input"),
        (json!({"model": "e", "input": null}), 400, "input"),
        (json!({"model": "e", "input": ""}), 400, "input"),
        (json!({"model": "e", "input": []}), 400, "input"),
        (json!({"model": "e", "input": ["a", ""]}), 400, "input"),
        (json!({"model": "e", "input": [[]]}), 400, "input"),
        (json!({"model": "e", "input": ["a", 1]}), 400, "input"),
        (json!({"model": "e", "input": [-1]}), 400, "input[0]"),
        (json!({"model": "e", "input": [99_999]}), 400, "input"),
        (json!({"model": "e", "input": {"text": "a"}}), 400, "input"),
        (json!({"model": "e", "input": "a", "encoding_format": "hex"}), 400, "encoding_format"),
        (json!({"model": "e", "input": "a", "dimensions": 3}), 400, "dimensions"),
        (json!({"model": "e", "input": "a", "dimensions": 0}), 400, "dimensions"),
        (json!({"model": "e", "input": "a", "pooling": "most"}), 400, "pooling"),
        (json!({"model": "e", "input": "a", "input_type": "poem"}), 400, "input_type"),
        (json!({"model": "e", "input": "a", "prompt_name": "poem"}), 400, "prompt_name"),
        (json!({"model": "e", "input": "a", "messages": []}), 400, "messages"),
        (json!({"model": "m", "input": "a"}), 400, "model"),
        (json!({"model": "nobody", "input": "a"}), 404, "model"),
        (json!({"model": "e", "input": vec!["x".repeat(60); 2000]}), 400, "input"),
    ] {
        let answered = embed(&server, body.clone()).await;
        let error = answered.json()["error"].clone();
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!((answered.status.as_u16(), error["param"].as_str()), (status, Some(param)), "{shown}: {error}");
    }
    let lone = server.post("/v1/embeddings", r#"{"model": "e", "input": "\ud800"}"#).await;
    assert_eq!(lone.status, StatusCode::BAD_REQUEST, "{}", lone.text());
}

#[tokio::test]
async fn documents_are_ordered() {
    let server = Setup::default().build();
    let body = json!({"model": "r", "query": "abcd", "documents": ["xyz", {"text": "ab"}, "dcba"], "backend": "b"});
    for path in ["/v1/rerank", "/rerank", "/v2/rerank"] {
        let answered = server.post(path, &body.to_string()).await;
        let answer = answered.json();
        assert_eq!(answered.status, StatusCode::OK, "{answer}");
        let results = json!([
            {"index": 2, "document": {"text": "dcba"}, "relevance_score": 1.0},
            {"index": 1, "document": {"text": "ab"}, "relevance_score": 0.5},
            {"index": 0, "document": {"text": "xyz"}, "relevance_score": 0.0},
        ]);
        assert_eq!(answer["results"], results);
        assert_eq!(answer["usage"], json!({"prompt_tokens": 30, "total_tokens": 30}));
        assert_eq!(answer["model"], "r");
    }
    let with = |key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body.to_string()
    };
    let capped = server.post("/v1/rerank", &with("top_n", json!(2))).await.json();
    assert_eq!(capped["results"].as_array().map(Vec::len), Some(2));
    let bare = server.post("/v1/rerank", &with("return_documents", json!(false))).await.json();
    assert_eq!(bare["results"][0], json!({"index": 2, "relevance_score": 1.0}));
    for (key, value, status) in [
        ("top_n", json!(0), 422),
        ("top_n", json!(-3), 422),
        ("documents", json!([]), 400),
        ("documents", json!(null), 400),
        ("documents", json!(["a", ""]), 400),
        ("documents", json!([1]), 400),
        ("query", json!(""), 400),
        ("query", json!(null), 400),
        ("model", json!("e"), 400),
    ] {
        let answered = server.post("/v1/rerank", &with(key, value)).await;
        assert_eq!(answered.status.as_u16(), status, "{key}: {}", answered.text());
        assert!(answered.json()["error"]["param"].as_str().is_some_and(|param| param.starts_with(key)), "{key}");
    }
}

#[tokio::test]
async fn metrics_and_system_tell_of_it() {
    let server = Setup::default().build();
    embed(&server, json!({"model": "e", "input": ["ab", "abc"]})).await;
    let metrics = server.get("/metrics").await.text();
    for line in [
        "ingle_task_calls_total{model=\"e\",task=\"embed\"} 1",
        "ingle_task_inputs_total{model=\"e\",task=\"embed\"} 2",
        "ingle_task_tokens_total{model=\"e\",task=\"embed\"} 9",
        "ingle_task_calls_waiting{model=\"e\",task=\"embed\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let system = server.get("/system").await.json();
    let expected = json!([{"task": "embed", "waiting": 0, "running": 0, "done": 2, "cost": 9, "unit": "tokens"}]);
    assert_eq!(system["loaded_models"][0]["tasks"], expected, "{system}");
    let loaded = server.post("/backend/load", r#"{"model": "r"}"#).await;
    assert_eq!(loaded.status, StatusCode::OK, "{}", loaded.text());
    let request = Request::get("/backend/monitor?model=r").body(Body::empty()).expect("a request");
    assert_eq!(server.send(request).await.json()["state"], 2);
}
