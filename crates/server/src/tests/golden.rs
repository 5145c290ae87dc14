//! The exact bytes of answers; `make golden` writes them anew for review.
use std::path::PathBuf;

use axum::body::Body;
use axum::http::Request;
use ingle_engine::fake::Answers;

use super::{Server, Setup};

fn assert_golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("the golden folder is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (idx, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(expected, actual, "{name}, line {}", idx + 1);
    }
    assert_eq!(expected.len(), actual.len(), "{name}: one has more lines");
}

/// Replaces what differs from run to run.
fn masked(text: &str) -> String {
    let text = mask_after(text, "cmpl-", |c| c.is_ascii_hexdigit(), "ID");
    let text = mask_after(&text, "\"call_", |c| c.is_ascii_hexdigit(), "ID");
    let text = mask_after(&text, "\"created\":", |c| c.is_ascii_digit(), "TIME");
    let is_number = |c: char| c.is_ascii_digit() || "e.-".contains(c);
    let text = mask_after(&text, "\"timing_prompt_processing\":", is_number, "MS");
    mask_after(&text, "\"timing_token_generation\":", is_number, "MS")
}

fn mask_after(text: &str, mark: &str, is_value: impl Fn(char) -> bool, mask: &str) -> String {
    let mut parts = text.split(mark);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked += mark;
        masked += mask;
        masked += part.trim_start_matches(&is_value);
    }
    masked
}

/// A case is `METHOD path [header: value]…` with an optional body behind a blank.
async fn run(server: &Server, title: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    let answered = server.send(request.body(Body::from(body.to_owned())).expect("a request")).await;
    let mut shown = format!("# {title}\n> {method} {path}\n");
    if !body.is_empty() {
        shown += &format!("> {body}\n");
    }
    shown += &format!("< {}\n", answered.status.as_u16());
    for name in ["content-type", "cache-control", "x-accel-buffering", "retry-after", "www-authenticate", "allow"] {
        if !answered.header(name).is_empty() {
            shown += &format!("< {name}: {}\n", answered.header(name));
        }
    }
    shown + &masked(&answered.text()) + "\n\n"
}

async fn run_all(server: &Server, cases: &[(&str, &str, &str, &str)]) -> String {
    let mut shown = String::new();
    for (title, method, path, body) in cases {
        shown += &run(server, title, method, path, &[], body).await;
    }
    shown
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETE: &str = "/v1/completions";

#[tokio::test]
async fn golden_chat() {
    let server = Setup::default().build();
    let cases = [
        ("smallest", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#),
        ("max_tokens", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":5}"#),
        ("stop", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stop":["Wö"]}"#),
        ("n", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Yo"}],"n":2,"max_tokens":3}"#),
        (
            "logprobs",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"Ho"}],"max_tokens":2,"logprobs":true,"top_logprobs":2}"#,
        ),
        (
            "tools with a free choice, an image-free part list, unknown keys",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto","user":"u","max_tokens":2}"#,
        ),
    ];
    let mut shown = run_all(&server, &cases).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":2}"#;
    shown += &run(&server, "timings", "POST", CHAT, &[("extra-usage", "1")], body).await;
    assert_golden("chat.out", &shown);
}

/// A chat about the weather, with these further fields.
fn weather_chat(fields: &str) -> String {
    let tools = r#"[{"type":"function","function":{"name":"get_weather","description":"Weather now","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}},{"type":"function","function":{"name":"ping","parameters":{"type":"object","properties":{}}}}]"#;
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Rome?"}}],"tools":{tools}{fields}}}"#)
}

#[tokio::test]
async fn golden_tools() {
    const CALLS: &str = "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n\
                         </tool_call>\n<tool_call>\n{\"name\": \"ping\", \"arguments\": {}}\n</tool_call>";
    let says =
        |text: &str| Setup { answers: Answers::Text(text.into()), context_size: 2048, ..Setup::default() }.build();
    let server = says(CALLS);
    let mut shown = String::new();
    let free = [
        ("two calls behind text", ""),
        ("the same, streamed", r#","stream":true,"stream_options":{"include_usage":true}"#),
        ("one call at most", r#","parallel_tool_calls":false"#),
        ("cut in the arguments", r#","max_tokens":70"#),
        ("no call wanted", r#","tool_choice":"none""#),
    ];
    for (title, fields) in free {
        shown += &run(&server, title, "POST", CHAT, &[], &weather_chat(fields)).await;
    }
    let server = says(&CALLS[CALLS.find('<').expect("a call")..]);
    let named = r#","tool_choice":{"type":"function","function":{"name":"get_weather"}}"#;
    let allowed = r#","tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"get_weather"}}]}},"parallel_tool_calls":false"#;
    let forced = [
        ("a call must be made", r#","tool_choice":"required""#),
        ("a named tool", named),
        ("some of the tools", allowed),
        ("a schema for what is no call", r#","response_format":{"type":"json_object"}"#),
    ];
    for (title, fields) in forced {
        shown += &run(&server, title, "POST", CHAT, &[], &weather_chat(fields)).await;
    }
    let older = |choice: &str| {
        let function = r#"{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}"#;
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Rome?"}}],"functions":[{function}]{choice}}}"#)
    };
    shown += &run(&server, "the old form", "POST", CHAT, &[], &older("")).await;
    let named = r#","function_call":{"name":"get_weather"},"stream":true"#;
    shown += &run(&server, "the old form, streamed", "POST", CHAT, &[], &older(named)).await;
    assert_golden("tools.out", &shown);
}

#[tokio::test]
async fn golden_chat_stream() {
    let server = Setup::default().build();
    let cases = [
        ("stream", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#),
        (
            "usage",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,"max_tokens":2,"stream_options":{"include_usage":true}}"#,
        ),
        (
            "stop",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,"stop":"lo"}"#,
        ),
        (
            "logprobs",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,"max_tokens":2,"logprobs":true}"#,
        ),
    ];
    assert_golden("chat_stream.out", &run_all(&server, &cases).await);
}

#[tokio::test]
async fn golden_reasoning() {
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}\
                    {% if false %}<think></think>{% endif %}";
    let answers = Answers::Text("<think>Hm.</think>Yes.".into());
    let server = Setup { answers, template, ..Setup::default() }.build();
    let cases = [
        ("whole", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#),
        ("stream", "POST", CHAT, r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#),
    ];
    assert_golden("reasoning.out", &run_all(&server, &cases).await);
}

#[tokio::test]
async fn golden_completions() {
    let server = Setup::default().build();
    let cases = [
        ("text", "POST", COMPLETE, r#"{"model":"m","prompt":"Once"}"#),
        ("echo", "POST", COMPLETE, r#"{"model":"m","prompt":"Say: ","echo":true,"max_tokens":5}"#),
        ("tokens, echoed", "POST", COMPLETE, r#"{"model":"m","prompt":[72,105],"echo":true,"max_tokens":1}"#),
        (
            "two prompts with two answers",
            "POST",
            COMPLETE,
            r#"{"model":"m","prompt":["abc","de"],"n":2,"max_tokens":1}"#,
        ),
        ("logprobs", "POST", COMPLETE, r#"{"model":"m","prompt":"Twice","max_tokens":9,"logprobs":1}"#),
        ("engine in the path", "POST", "/v1/engines/m/completions", r#"{"prompt":"Once","max_tokens":1}"#),
        ("no /v1", "POST", "/completions", r#"{"model":"m","prompt":"Once","max_tokens":1}"#),
        (
            "stream",
            "POST",
            COMPLETE,
            r#"{"model":"m","prompt":"Say: ","echo":true,"max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            "stream with logprobs",
            "POST",
            COMPLETE,
            r#"{"model":"m","prompt":"x","max_tokens":2,"stream":true,"logprobs":0}"#,
        ),
    ];
    assert_golden("completions.out", &run_all(&server, &cases).await);
}

#[tokio::test]
async fn golden_localai() {
    let server = Setup::default().build();
    let cases = [
        ("healthz", "GET", "/healthz", ""),
        ("readyz", "GET", "/readyz", ""),
        ("models", "GET", "/v1/models", ""),
        ("models without /v1", "GET", "/models/", ""),
        ("model", "GET", "/v1/models/m", ""),
        ("model with a slash", "GET", "/v1/models/org/model:q4", ""),
        ("model with a slash, encoded", "GET", "/v1/models/org%2Fmodel%3Aq4", ""),
        ("version", "GET", "/version", ""),
        ("system before", "GET", "/system", ""),
        ("tokenize", "POST", "/v1/tokenize", r#"{"model":"m","content":"Hi<|im_end|>"}"#),
        ("detokenize", "POST", "/v1/detokenize", r#"{"model":"m","tokens":[72,105]}"#),
        ("system after", "GET", "/system", ""),
        ("head", "HEAD", "/v1/models", ""),
    ];
    assert_golden("localai.out", &run_all(&server, &cases).await);
}

#[tokio::test]
async fn golden_faults() {
    let server = Setup::default().build();
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(600));
    let cases = [
        ("unknown path", "GET", "/v1/nothing", ""),
        ("unknown path with a doubled slash", "POST", "//v1/nothing/", "{}"),
        ("wrong method", "DELETE", "/v1/models", ""),
        ("get of a post", "GET", CHAT, ""),
        ("no JSON", "POST", CHAT, "hello"),
        ("broken JSON", "POST", CHAT, r#"{"messages":["#),
        ("a list", "POST", CHAT, "[]"),
        ("two objects", "POST", CHAT, r#"{"model":"m"}{}"#),
        ("wrong type", "POST", CHAT, r#"{"messages":[{"role":"user","content":7}]}"#),
        ("no messages", "POST", CHAT, r#"{"model":"m"}"#),
        ("unknown role", "POST", CHAT, r#"{"model":"m","messages":[{"role":"pope","content":"x"}]}"#),
        ("unknown model", "POST", CHAT, r#"{"model":"x","messages":[{"role":"user","content":"Hi"}]}"#),
        ("disabled model", "POST", CHAT, r#"{"model":"off","messages":[{"role":"user","content":"Hi"}]}"#),
        ("unknown model by id", "GET", "/v1/models/x/y", ""),
        ("too long", "POST", COMPLETE, &long),
        ("no prompt", "POST", COMPLETE, r#"{"model":"m"}"#),
        ("empty prompts", "POST", COMPLETE, r#"{"model":"m","prompt":[]}"#),
        ("token out of range", "POST", COMPLETE, r#"{"model":"m","prompt":[99999]}"#),
        ("too many answers", "POST", COMPLETE, r#"{"model":"m","prompt":"x","n":10000}"#),
        ("no answers", "POST", COMPLETE, r#"{"model":"m","prompt":"x","n":0}"#),
        ("too many prompts", "POST", COMPLETE, r#"{"model":"m","prompt":["a","b"],"n":100}"#),
        ("temperature", "POST", COMPLETE, r#"{"model":"m","prompt":"x","temperature":-1}"#),
        ("infinite", "POST", COMPLETE, r#"{"model":"m","prompt":"x","top_p":1e39}"#),
        ("not a number", "POST", COMPLETE, r#"{"model":"m","prompt":"x","top_p":NaN}"#),
        ("top_k", "POST", COMPLETE, r#"{"model":"m","prompt":"x","top_k":-5}"#),
        ("max_tokens", "POST", COMPLETE, r#"{"model":"m","prompt":"x","max_tokens":-7}"#),
        ("logit_bias", "POST", COMPLETE, r#"{"model":"m","prompt":"x","logit_bias":{"1":1000}}"#),
        ("logit_bias of nothing", "POST", COMPLETE, r#"{"model":"m","prompt":"x","logit_bias":{"99999":1}}"#),
        ("logprobs", "POST", COMPLETE, r#"{"model":"m","prompt":"x","logprobs":21}"#),
        ("mirostat", "POST", COMPLETE, r#"{"model":"m","prompt":"x","mirostat":3}"#),
        ("echoed logprobs", "POST", COMPLETE, r#"{"model":"m","prompt":"x","echo":true,"logprobs":1}"#),
        ("suffix", "POST", COMPLETE, r#"{"model":"m","prompt":"x","suffix":"y"}"#),
        ("best_of", "POST", COMPLETE, r#"{"model":"m","prompt":"x","best_of":3}"#),
        (
            "a broken grammar",
            "POST",
            COMPLETE,
            r#"{"model":"m","prompt":"x","grammar":"root ::= \"a\"\nx ::= (\"b\""}"#,
        ),
        (
            "functions that are none",
            "POST",
            COMPLETE,
            r#"{"model":"m","prompt":"x","grammar_json_functions":{"oneOf":[]}}"#,
        ),
        (
            "a schema that cannot be enforced",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{"type":"object","not":{"required":["a"]}}}}}"#,
        ),
        ("a broken regular expression", "POST", COMPLETE, r#"{"model":"m","prompt":"x","regex":"(a"}"#),
        (
            "forced tool, and no tools",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tool_choice":"required"}"#,
        ),
        (
            "a name that is none",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"a b"}}]}"#,
        ),
        (
            "a strict tool that cannot be enforced",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}}}]}"#,
        ),
        (
            "parameters that are no schema",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]}"#,
        ),
        (
            "unknown tool",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"function","function":{"name":"g"}}}"#,
        ),
        (
            "picture",
            "POST",
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]}"#,
        ),
        ("nothing to tokenize", "POST", "/v1/tokenize", r#"{"model":"m"}"#),
        ("nothing to detokenize", "POST", "/v1/detokenize", r#"{"model":"m"}"#),
        ("token to detokenize out of range", "POST", "/v1/detokenize", r#"{"model":"m","tokens":[99999]}"#),
    ];
    let mut shown = run_all(&server, &cases).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    shown += &run(&server, "a form", "POST", CHAT, &form, "model=m").await;
    let gzip = [("content-encoding", "gzip"), ("content-type", "application/json")];
    shown += &run(&server, "compressed", "POST", CHAT, &gzip, "{}").await;
    assert_golden("faults.out", &shown);
}
