//! The real program with a real model over HTTP: what a client meets, bad input included.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Server, chat_model, ingle, models_folder};

/// A server over a folder with the chat model as `small.gguf`.
fn start() -> Option<(Server, tempfile::TempDir)> {
    let folder = models_folder(&chat_model()?);
    let server = Server::start(ingle(&["run", "small.gguf", "--models-path", folder.path().to_str().expect("UTF-8")]));
    server.wait_until_ready();
    Some((server, folder))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)))
        .build()
        .into()
}

/// Status and JSON of an answer.
pub(crate) fn post(url: &str, body: &[u8]) -> (u16, Value) {
    let sent = agent().post(url).header("content-type", "application/json").send(body);
    let mut answer = sent.expect("the server answers");
    let text = answer.body_mut().read_to_string().expect("the answer is text");
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub(crate) fn get(url: &str) -> (u16, String) {
    let mut answer = agent().get(url).call().expect("the server answers");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("the answer is text"))
}

fn chat(server: &Server, body: &Value) -> (u16, Value) {
    post(&format!("{}/v1/chat/completions", server.url), body.to_string().as_bytes())
}

/// Waits until a gauge of `/metrics` has the value; panics after a minute.
fn wait_for_metric(server: &Server, line: &str) {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (_, metrics) = get(&format!("{}/metrics", server.url));
        if metrics.lines().any(|found| found == line) {
            return;
        }
        assert!(std::time::Instant::now() < until, "no line {line:?} in\n{metrics}");
        std::thread::yield_now();
    }
}

#[test]
fn a_real_model_answers_and_ends_well() {
    let Some((server, _folder)) = start() else { return };
    let asked = json!({"model": "small", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0});
    let complete = || post(&format!("{}/v1/completions", server.url), asked.to_string().as_bytes());
    let (status, answer) = complete();
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().expect("text");
    assert!(text.contains("Paris"), "{text:?}");
    let (_, again) = complete();
    assert_eq!(again["choices"][0]["text"], text, "greedy answers repeat");
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
    assert!(cached >= 4, "the second prompt comes from the cache: {}", again["usage"]);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0), "a server without work ends well");
}

#[test]
fn bad_requests_are_refused_with_what_is_wrong() {
    let Some((server, _folder)) = start() else { return };
    let user = json!([{"role": "user", "content": "hi"}]);
    let cases = [
        (json!({"model": "no-such-model", "messages": user}), 404, "no-such-model"),
        (json!({"model": "small", "messages": []}), 400, "messages"),
        (json!({"model": "small"}), 400, "messages"),
        (json!({"model": "small", "messages": user, "temperature": -1}), 400, "temperature"),
        (json!({"model": "small", "messages": user, "temperature": "hot"}), 400, "temperature"),
        (json!({"model": "small", "messages": user, "top_p": 2}), 400, "top_p"),
        (json!({"model": "small", "messages": user, "n": 10_000}), 400, "n"),
        (json!({"model": "small", "messages": user, "logit_bias": {"999999999": 1}}), 400, "logit_bias"),
        (json!({"model": "small", "messages": [{"role": "user", "content": "word ".repeat(40_000)}]}), 400, "context"),
    ];
    for (body, status, named) in cases {
        let (got, answer) = chat(&server, &body);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{answer}");
        assert!(message.contains(named), "{message:?} does not name {named:?}");
    }
    for body in [&b"{"[..], b"", b"\xff\xfe", b"[1,2]", b"null"] {
        let (status, answer) = post(&format!("{}/v1/chat/completions", server.url), body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    let (status, _) = post(&format!("{}/v1/chat/completions", server.url), &vec![b' '; 100 << 20]);
    assert_eq!(status, 413);
    assert_eq!(get(&format!("{}/readyz", server.url)).0, 200, "nothing of this harmed the server");
}

#[test]
fn a_client_that_hangs_up_frees_its_slot() {
    let Some((server, _folder)) = start() else { return };
    let body = json!({
        "model": "small", "stream": true, "max_tokens": 4000, "ignore_eos": true,
        "messages": [{"role": "user", "content": "Tell me a long story."}],
    })
    .to_string();
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("the request is sent");
    let mut first = [0; 512];
    assert!(stream.read(&mut first).expect("the answer begins") > 0);
    wait_for_metric(&server, "ingle_requests_running{model=\"small.gguf\"} 1");
    drop(stream);
    wait_for_metric(&server, "ingle_requests_running{model=\"small.gguf\"} 0");
}

fn write_random(path: &Path, n_bytes: usize) {
    let bytes: Vec<u8> = (0..n_bytes).map(|idx| (idx.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    std::fs::write(path, bytes).expect("the folder is writable");
}

#[test]
fn files_that_are_no_models_are_named_and_others_go_on() {
    let Some((server, folder)) = start() else { return };
    let original = std::fs::read(folder.path().join("small.gguf")).expect("it can be read");
    std::fs::write(folder.path().join("truncated.gguf"), &original[..original.len() / 2]).expect("writable");
    std::fs::write(folder.path().join("empty.gguf"), b"").expect("writable");
    write_random(&folder.path().join("random.gguf"), 100_000);
    let yaml = "name: gone\nbackend: llama-cpp\nparameters:\n  model: gone.gguf\n";
    std::fs::write(folder.path().join("gone.yaml"), yaml).expect("writable");
    for name in ["truncated", "empty", "random", "gone"] {
        let (status, answer) = chat(&server, &json!({"model": name, "messages": [{"role": "user", "content": "hi"}]}));
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!((400..=500).contains(&status) && message.contains(name), "{name}: {status} {answer}");
    }
    let good = json!({"model": "small", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(chat(&server, &good).0, 200);
}
