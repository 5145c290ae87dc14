//! Routing, keys, headers, documentation.
use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use ingle_engine::fake::Answers;
use serde_json::Value;

use super::{Server, Setup};
use crate::{Cors, ServerOptions, docs};

fn with_options(options: ServerOptions) -> Server {
    Setup { options, ..Setup::default() }.build()
}

#[tokio::test]
async fn every_documented_endpoint_is_routed() {
    let server = Setup::default().build();
    let document = docs::document();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 14, "{}", paths.len());
    for (path, entries) in paths {
        for verb in entries.as_object().expect("verbs").keys() {
            let method = Method::from_bytes(verb.to_uppercase().as_bytes()).expect("a method");
            let path = path.replace("{id}", "m").replace("{model}", "m");
            let request = Request::builder().method(method).uri(&path).body(Body::empty()).expect("a request");
            let answered = server.send(request).await;
            let (code, text) = (answered.status, answered.text());
            // An endpoint may find nothing; the router may not.
            let is_routed = code != StatusCode::METHOD_NOT_ALLOWED && !text.contains("nothing is at");
            assert!(is_routed, "{verb} {path}: {code} {text}");
        }
    }
}

#[tokio::test]
async fn the_document_refers_only_to_what_it_has() {
    let server = Setup::default().build();
    let document = server.get("/swagger/doc.json").await.json();
    let known: BTreeSet<String> =
        document["components"]["schemas"].as_object().expect("schemas").keys().cloned().collect();
    let mut wanted = BTreeSet::new();
    collect_refs(&document, &mut wanted);
    assert!(wanted.len() > 10, "{wanted:?}");
    assert!(wanted.is_subset(&known), "{:?}", wanted.difference(&known).collect::<Vec<_>>());
    let temperature = &document["components"]["schemas"]["ChatRequest"]["properties"]["temperature"];
    assert!(temperature["description"].as_str().is_some_and(|text| text.contains("logits")), "{temperature}");
}

fn collect_refs(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                found.insert(name.trim_start_matches("#/components/schemas/").to_owned());
            }
            object.values().for_each(|value| collect_refs(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_refs(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let page = Setup::default().build().get("/swagger/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(!page.text().contains("https://") && !page.text().contains("http://"));
}

#[tokio::test]
async fn keys_guard_all_but_health_and_documentation() {
    let options = ServerOptions { api_keys: vec!["k".into()], ..ServerOptions::default() };
    let server = with_options(options);
    for path in ["/healthz", "/readyz", "/swagger", "/swagger/doc.json"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    for path in ["/v1/models", "/models/", "//v1/models", "/metrics", "/system", "/version", "/nothing"] {
        let answered = server.get(path).await;
        assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(answered.header("www-authenticate"), "Bearer");
        assert_eq!(answered.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(server.post("/v1/chat/completions", "broken").await.status, StatusCode::UNAUTHORIZED);
    let request = Request::get("/v1/models").header("authorization", "Bearer k");
    assert_eq!(server.send(request.body(Body::empty()).expect("a request")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_open_server_takes_any_key() {
    let server = Setup::default().build();
    let request = Request::get("/v1/models").header("authorization", "Bearer whatever");
    assert_eq!(server.send(request.body(Body::empty()).expect("a request")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let server = Setup::default().build();
    let mut seen = BTreeSet::new();
    for path in ["/v1/models", "/nothing", "/healthz"] {
        let id = server.get(path).await.header("x-request-id").to_owned();
        assert_eq!(id.len(), 36, "{path}: {id}");
        assert!(seen.insert(id), "a new one each time");
    }
    let long = "x".repeat(200);
    for (sent, is_echoed) in [("abc-1", true), ("a b", false), (long.as_str(), false)] {
        let request = Request::get("/nothing").header("x-request-id", sent);
        let answered = server.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answered.header("x-request-id") == sent, is_echoed, "{sent}");
    }
}

#[tokio::test]
async fn browsers_of_other_origins_are_let_in_as_the_options_say() {
    let preflight = |server: Server| async move {
        let request = Request::options("/v1/chat/completions")
            .header("origin", "https://page")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        server.send(request.body(Body::empty()).expect("a request")).await
    };
    let guarded = ServerOptions { api_keys: vec!["k".into()], ..ServerOptions::default() };
    let any = preflight(with_options(guarded)).await;
    assert_eq!((any.status, any.header("access-control-allow-origin")), (StatusCode::OK, "*"));
    // Named one by one: to a browser, `*` does not stand for `authorization`.
    assert_eq!(any.header("access-control-allow-headers"), "authorization,content-type");
    let listed = ServerOptions { cors: Cors::Origins(vec!["https://page".into()]), ..ServerOptions::default() };
    assert_eq!(preflight(with_options(listed)).await.header("access-control-allow-origin"), "https://page");
    let other = ServerOptions { cors: Cors::Origins(vec!["https://other".into()]), ..ServerOptions::default() };
    assert_eq!(preflight(with_options(other)).await.header("access-control-allow-origin"), "");
    let off = preflight(with_options(ServerOptions { cors: Cors::Off, ..ServerOptions::default() })).await;
    assert_eq!((off.status, off.header("access-control-allow-origin")), (StatusCode::METHOD_NOT_ALLOWED, ""));
}

#[tokio::test]
async fn answers_have_the_form_they_are_asked_for() {
    let server = Setup { answers: Answers::Hash, ..Setup::default() }.build();
    let ask = async |seed: usize, form: &str, stream: bool| {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"temperature":1.5,"seed":{seed},"n":2,
                 "stream":{stream},{form}}}"#
        );
        server.post("/v1/chat/completions", &body).await
    };
    let schema = r#"{"type":"object","properties":{"kind":{"enum":["cat","dog"]},"legs":{"type":"integer","minimum":0,
                     "maximum":4}},"required":["kind","legs"],"additionalProperties":false}"#;
    let schema =
        format!(r#""response_format":{{"type":"json_schema","json_schema":{{"name":"s","schema":{schema}}}}}"#);
    for seed in 0..10 {
        let answered = ask(seed, &schema, false).await.json();
        for choice in answered["choices"].as_array().expect("choices") {
            let animal: serde_json::Value =
                serde_json::from_str(choice["message"]["content"].as_str().expect("text")).expect("JSON");
            assert!(["cat", "dog"].contains(&animal["kind"].as_str().expect("a kind")), "{animal}");
            assert!(animal["legs"].as_u64().is_some_and(|legs| legs <= 4), "{animal}");
            assert_eq!(choice["finish_reason"], "stop");
        }
    }
    let matched = ask(1, r#""regex":"[ab]{3}!""#, true).await.text();
    let text: String = super::events(&matched)
        .into_iter()
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
        .filter(|chunk| chunk["choices"][0]["index"] == 0)
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert!(text.len() == 4 && text.ends_with('!'), "{text}");
    let spelled = ask(2, r#""grammar":"root ::= [ä-ü]{2} (\"x\" | \"y\")""#, false).await.json();
    let text = spelled["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(text.chars().count() == 3 && text.ends_with(['x', 'y']), "{text}");
    assert_eq!(server.busy(), 0);
}

#[tokio::test]
async fn a_model_that_thinks_first_is_held_to_the_form_behind_it() {
    let answers = Answers::Text("Hm, or 17?</think>\n42 of course".into());
    let template = "{{ messages[0].content }}<think>";
    let server = Setup { answers, template, ..Setup::default() }.build();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"regex":"[0-9]{2}"}"#;
    let answered = server.post("/v1/chat/completions", body).await.json();
    let message = &answered["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&"42".into(), &"Hm, or 17?".into()));
    assert_eq!(answered["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn what_is_not_followed_or_not_enforced_is_said_in_headers() {
    let server = Setup { answers: Answers::Hash, ..Setup::default() }.build();
    let ask = async |fields: &str| {
        let body = format!(r#"{{"model":"m","prompt":"x","temperature":1.5,"seed":3,{fields}}}"#);
        server.post("/v1/completions", &body).await
    };
    // LocalAI's order; one that asks for the same is no second one.
    let both =
        ask(r#""grammar":"root ::= \"a\"","regex":"b","response_format":{"type":"json_object","schema":{"const":7}}"#)
            .await;
    assert_eq!((both.status, both.header("x-ingle-ignored")), (StatusCode::OK, "grammar, regex"));
    assert_eq!(both.json()["choices"][0]["text"], "7");
    let same = ask(r#""json_schema":{"const":7},"response_format":{"type":"json_object","schema":{"const":7}}"#).await;
    assert!(!same.headers.contains_key("x-ingle-ignored"));
    assert!(same.json().get("ingle").is_none(), "all of the schema is enforced");

    let lenient = |stream: bool| {
        format!(
            r#""stream":{stream},"response_format":{{"type":"json_schema","json_schema":{{"name":"s","schema":
            {{"type":"array","items":{{"enum":[1,2]}},"minItems":3,"maxItems":3,"uniqueItems":true}}}}}}"#
        )
    };
    let whole = ask(&lenient(false)).await;
    assert!(whole.header("x-ingle-unenforced").contains("uniqueItems"), "{:?}", whole.headers);
    let whole = whole.json();
    assert_eq!(whole["ingle"]["schema_valid"], false, "three of two numbers repeat: {whole}");
    let streamed = ask(&lenient(true)).await;
    assert!(streamed.header("x-ingle-unenforced").contains("uniqueItems"));
    let streamed = streamed.text();
    let verdicts: Vec<serde_json::Value> = super::events(&streamed)
        .into_iter()
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
        .filter_map(|chunk| chunk.get("ingle").cloned())
        .collect();
    assert_eq!(verdicts, [serde_json::json!({"schema_valid": false})]);

    let functions = r#"{"oneOf":[{"type":"object","properties":{"name":{"const":"add"},"arguments":{"type":"object",
        "properties":{"a":{"type":"integer","maximum":9,"minimum":0}},"required":["a"],"additionalProperties":false}}}]}"#;
    let call = ask(&format!(r#""grammar_json_functions":{functions}"#)).await.json();
    let call: serde_json::Value =
        serde_json::from_str(call["choices"][0]["text"].as_str().expect("text")).expect("JSON");
    assert!(call["name"] == "add" && call["arguments"]["a"].as_u64().is_some_and(|a| a <= 9), "{call}");
}

#[tokio::test]
async fn tools_and_forms_go_together_or_one_is_named() {
    let server = Setup { answers: Answers::Hash, context_size: 4096, ..Setup::default() }.build();
    let ask = async |fields: &str| {
        let parameters = r#"{"type":"object","additionalProperties":false,"required":["n"],"properties":
            {"n":{"type":"array","items":{"enum":[1,2]},"minItems":3,"maxItems":3,"uniqueItems":true}}}"#;
        let tool = format!(r#"{{"type":"function","function":{{"name":"draw","parameters":{parameters}}}}}"#);
        let messages = r#"[{"role":"user","content":"x"}]"#;
        let body = format!(
            r#"{{"model":"m","messages":{messages},"tools":[{tool}],"temperature":1.5,"seed":3,"max_tokens":400,{fields}}}"#
        );
        server.post("/v1/chat/completions", &body).await
    };
    let format = r#""response_format":{"type":"json_object","schema":{"const":7}}"#;
    let forced = ask(&format!(r#""tool_choice":"required","parallel_tool_calls":false,{format}"#)).await;
    assert_eq!(forced.header("x-ingle-ignored"), "response_format");
    assert!(
        forced.header("x-ingle-unenforced").contains("draw: `uniqueItems` at /properties/n"),
        "{:?}",
        forced.headers
    );
    let forced = forced.json();
    let call = &forced["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: serde_json::Value =
        serde_json::from_str(call["arguments"].as_str().expect("arguments")).expect("whole JSON");
    assert!(call["name"] == "draw" && arguments["n"].as_array().is_some_and(|n| n.len() == 3), "{forced}");
    assert_eq!(forced["ingle"]["schema_valid"], false, "three of two numbers repeat");
    assert_eq!(forced["choices"][0]["finish_reason"], "tool_calls");

    // Where no call is made the schema says what the answer is.
    let both = ask(format).await;
    assert!(!both.headers.contains_key("x-ingle-ignored"));
    let message = both.json()["choices"][0]["message"].clone();
    assert!(message["content"] == "7" || message["tool_calls"][0]["function"]["name"] == "draw", "{message}");

    let grammar = ask(r#""grammar":"root ::= \"a\"","tool_choice":"auto""#).await;
    assert_eq!((grammar.status, grammar.header("x-ingle-ignored")), (StatusCode::OK, "grammar"));
    let none = ask(r#""grammar":"root ::= \"a\"","tool_choice":"none""#).await;
    assert!(!none.headers.contains_key("x-ingle-ignored"));
    assert_eq!(none.json()["choices"][0]["message"]["content"], "a", "no tool is on offer");
}

#[tokio::test]
async fn failures_are_opaque_when_asked() {
    let options = ServerOptions { opaque_errors: true, machine_tag: Some("box-7".into()), ..ServerOptions::default() };
    let server = with_options(options);
    let hidden = server.get("/nothing").await;
    assert_eq!((hidden.status, hidden.body.len()), (StatusCode::NOT_FOUND, 0));
    assert_eq!(hidden.header("machine-tag"), "box-7");
    assert!(!server.get("/v1/models").await.body.is_empty());
}

#[tokio::test]
async fn metrics_can_be_switched_off() {
    let server = with_options(ServerOptions { metrics: false, ..ServerOptions::default() });
    assert_eq!(server.get("/metrics").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn readiness_tells_what_start_up_does() {
    let server = Setup::default().build();
    server.state.runtime().set_starting(Some("loading m".into()));
    let waits = server.get("/readyz").await;
    assert_eq!(waits.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(waits.text(), r#"{"status":"starting","reason":"loading m"}"#);
    server.state.runtime().set_starting(None);
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, ready.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn the_model_may_be_left_out() {
    let server = Setup::default().build();
    let answered = server.post("/v1/completions", r#"{"prompt":"x","max_tokens":1}"#).await;
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.text());
    assert_eq!(answered.json()["model"], "m");
}

#[tokio::test]
async fn a_body_without_a_content_type_is_json() {
    let server = Setup::default().build();
    let request = Request::post("/v1/tokenize").body(Body::from(r#"{"model":"m","content":"a"}"#));
    assert_eq!(server.send(request.expect("a request")).await.text(), r#"{"tokens":[97]}"#);
}
