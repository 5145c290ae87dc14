//! Golden files: what requests mean, how faults are told, and the exact bytes of answers.
//!
//! `UPDATE_GOLDEN=1 cargo test` (or `make golden`) writes them anew for review.
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::localai::{
    DetokenizeRequest, DetokenizeResponse, LoadedModel, NotReady, System, TokenizeRequest, TokenizeResponse, Version,
};
use crate::openai::*;
use crate::rerank::RerankRequest;

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read(name: &str) -> String {
    let path = golden_path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_golden(name: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden_path(name), actual).expect("golden folder is writable");
    }
    let expected = read(name);
    for (idx, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(expected, actual, "{name}, line {}", idx + 1);
    }
    assert_eq!(expected.len(), actual.len(), "{name}: one has more lines");
}

fn parsed<T: DeserializeOwned + Serialize>(body: &str) -> Result<String, String> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => Ok(to_json(&value)),
        Err(error) => Err(format!("{}: {}", error.path(), error.inner())),
    }
}

fn parse_case(case: &Value) -> Result<String, String> {
    let body = case["body"].to_string();
    match case["type"].as_str() {
        Some("chat") => parsed::<ChatRequest>(&body),
        Some("completion") => parsed::<CompletionRequest>(&body),
        Some("embedding") => parsed::<EmbeddingRequest>(&body),
        Some("rerank") => parsed::<RerankRequest>(&body),
        Some("tokenize") => parsed::<TokenizeRequest>(&body),
        Some("detokenize") => parsed::<DetokenizeRequest>(&body),
        other => panic!("unknown case type {other:?}"),
    }
}

fn cases(name: &str) -> Vec<Value> {
    read(name).lines().map(|line| serde_json::from_str(line).expect("a case is a line of JSON")).collect()
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types serialise")
}

#[test]
fn requests_mean_what_they_meant() {
    let mut actual = String::new();
    for case in cases("requests.jsonl") {
        let name = case["name"].as_str().expect("a case has a name");
        let canonical = parse_case(&case).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = json!({"type": case["type"], "body": serde_json::from_str::<Value>(&canonical).expect("JSON")});
        assert_eq!(parse_case(&again).as_ref(), Ok(&canonical), "{name}: what is written reads back the same");
        actual += &format!("{name}: {canonical}\n");
    }
    assert_golden("requests.out", &actual);
}

#[test]
fn faults_name_their_place() {
    let mut actual = String::new();
    for case in cases("faults.jsonl") {
        let error = parse_case(&case).expect_err("a fault is refused");
        actual += &format!("{} -> {error}\n", case["body"]);
    }
    assert_golden("faults.out", &actual);
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let deep = format!("{{\"tool_choice\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parsed::<ChatRequest>(&deep).expect_err("too deep").contains("recursion limit"));
}

fn usage() -> Usage {
    Usage {
        prompt_tokens: 7,
        completion_tokens: 2,
        total_tokens: 9,
        prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: 4 }),
        ..Usage::default()
    }
}

fn chunk(delta: ChatDelta, finish_reason: Option<FinishReason>, usage: Option<Option<Usage>>) -> ChatChunk {
    ChatChunk {
        id: "chatcmpl-1".into(),
        object: "chat.completion.chunk".into(),
        created: 1,
        model: "m".into(),
        choices: vec![ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason }],
        usage,
        ingle: None,
    }
}

fn chat_answer() -> ChatCompletion {
    let top = TopLogprob { token: "hi".into(), logprob: -0.5, bytes: Some(b"hi".to_vec()) };
    let token =
        TokenLogprob { token: "hi".into(), logprob: -0.5, bytes: Some(b"hi".to_vec()), top_logprobs: vec![top] };
    let message = AssistantMessage {
        role: Role::Assistant,
        content: Some("hi".into()),
        reasoning_content: None,
        reasoning: None,
        refusal: None,
        tool_calls: Vec::new(),
        function_call: None,
    };
    let choice = ChatChoice {
        index: 0,
        message,
        logprobs: Some(ChatLogprobs { content: vec![token] }),
        finish_reason: Some(FinishReason::Stop),
    };
    ChatCompletion {
        id: "chatcmpl-1".into(),
        object: "chat.completion".into(),
        created: 1,
        model: "m".into(),
        choices: vec![choice],
        usage: Some(usage()),
        system_fingerprint: None,
        ingle: None,
    }
}

fn tool_answer() -> ChatCompletion {
    let mut answer = chat_answer();
    let function = FunctionCall { name: "f".into(), arguments: "{}".into() };
    answer.choices[0].logprobs = None;
    answer.choices[0].finish_reason = Some(FinishReason::ToolCalls);
    answer.choices[0].message.content = None;
    answer.choices[0].message.reasoning_content = Some("hm".into());
    answer.choices[0].message.reasoning = Some("hm".into());
    answer.choices[0].message.tool_calls =
        vec![ToolCall { id: Some("call_1".into()), kind: "function".into(), function }];
    answer
}

fn completion() -> Completion {
    let top = [("hi".to_owned(), -0.5), ("ho".to_owned(), -1.5)].into_iter().collect();
    let logprobs = CompletionLogprobs {
        tokens: vec!["a".into(), "hi".into()],
        token_logprobs: vec![None, Some(-0.5)],
        top_logprobs: vec![None, Some(top)],
        text_offset: vec![0, 1],
    };
    Completion {
        id: "cmpl-1".into(),
        object: "text_completion".into(),
        created: 1,
        model: "m".into(),
        choices: vec![CompletionChoice {
            index: 0,
            text: "ahi".into(),
            logprobs: Some(logprobs),
            finish_reason: Some(FinishReason::Length),
        }],
        usage: Some(Usage { timing_prompt_processing: Some(1.5), timing_token_generation: Some(2.5), ..usage() }),
        system_fingerprint: Some("fp_1".into()),
        ingle: Some(FormReport { schema_valid: true }),
    }
}

fn tool_delta() -> ChatDelta {
    let function = FunctionDelta { name: Some("f".into()), arguments: Some(String::new()) };
    let call = ToolCallDelta { index: 0, id: Some("call_1".into()), kind: Some("function".into()), function };
    ChatDelta { tool_calls: Some(vec![call]), ..ChatDelta::default() }
}

fn chunks() -> Vec<String> {
    let first = ChatDelta { role: Some(Role::Assistant), content: Some(String::new()), ..ChatDelta::default() };
    let text = ChatDelta { content: Some("hi".into()), ..ChatDelta::default() };
    let reasoning =
        ChatDelta { reasoning_content: Some("hm".into()), reasoning: Some("hm".into()), ..ChatDelta::default() };
    let piece = ToolCallDelta {
        index: 0,
        id: None,
        kind: None,
        function: FunctionDelta { name: None, arguments: Some("{\"a\"".into()) },
    };
    let mut last = chunk(ChatDelta::default(), None, Some(Some(usage())));
    last.choices.clear();
    vec![
        to_json(&chunk(first, None, None)),
        to_json(&chunk(text, None, Some(None))),
        to_json(&chunk(reasoning, None, None)),
        to_json(&chunk(tool_delta(), None, None)),
        to_json(&chunk(ChatDelta { tool_calls: Some(vec![piece]), ..ChatDelta::default() }, None, None)),
        to_json(&chunk(ChatDelta::default(), Some(FinishReason::Stop), None)),
        to_json(&last),
    ]
}

fn others() -> Vec<String> {
    let error = ErrorBody {
        message: "no model is called `x`".into(),
        kind: "invalid_request_error".into(),
        param: Some("model".into()),
        code: Some("model_not_found".into()),
    };
    let model = Model { id: "m".into(), object: "model".into(), created: 1, owned_by: "ingle".into() };
    let loaded = LoadedModel {
        id: "m".into(),
        backend: Some("fake".into()),
        state: Some("ready".into()),
        memory_bytes: Some(9),
        placement: Some("CPU".into()),
        tasks: Vec::new(),
    };
    let piece = CompletionChunk {
        id: "cmpl-1".into(),
        object: "text_completion".into(),
        created: 1,
        model: "m".into(),
        choices: vec![CompletionChunkChoice { index: 0, text: "a".into(), logprobs: None, finish_reason: None }],
        usage: Some(None),
        ingle: None,
    };
    vec![
        to_json(&ErrorEnvelope { error }),
        to_json(&ModelList::new(vec![model])),
        to_json(&piece),
        to_json(&TokenizeResponse { tokens: vec![1, 2] }),
        to_json(&DetokenizeResponse { content: "hi".into() }),
        to_json(&Version { version: "0.1.0".into() }),
        to_json(&NotReady { status: "starting".into(), reason: "loading `m`".into() }),
        to_json(&System { backends: vec!["fake".into()], loaded_models: vec![loaded], hardware: None }),
    ]
}

#[test]
fn answers_have_their_exact_bytes() {
    let mut lines = vec![to_json(&chat_answer()), to_json(&tool_answer()), to_json(&completion())];
    lines.extend(chunks());
    lines.extend(others());
    assert_golden("answers.out", &(lines.join("\n") + "\n"));
}

#[test]
fn answers_are_read_back_as_they_were() {
    assert_eq!(serde_json::from_str::<ChatCompletion>(&to_json(&chat_answer())).expect("reads"), chat_answer());
    assert_eq!(serde_json::from_str::<ChatCompletion>(&to_json(&tool_answer())).expect("reads"), tool_answer());
    assert_eq!(serde_json::from_str::<Completion>(&to_json(&completion())).expect("reads"), completion());
    let foreign: ErrorEnvelope =
        serde_json::from_str(r#"{"error":{"code":404,"message":"m","type":""}}"#).expect("LocalAI's form");
    assert_eq!(foreign.error.code.as_deref(), Some("404"));
}
