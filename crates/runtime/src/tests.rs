//! The façade over a fake backend, without any async runtime.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ingle_catalog::{Catalog, CatalogOptions, Usecase};
use ingle_engine::fake::{Answers, FakeBackend};
use ingle_engine::sampling::SamplingParams;
use ingle_engine::{Backend, Device, DeviceKind, Hardware};
use ingle_prompt::{Conversation, Message, Role, TemplateOptions};
use pollster::block_on;

use super::*;
use crate::options::sampling_params;

mod encoders;
mod lifecycle;
mod yaml;

/// A machine with so many free bytes; the test may change them.
fn machine(free: &Arc<AtomicU64>) -> Arc<dyn Fn() -> Hardware + Send + Sync> {
    let free = Arc::clone(free);
    Arc::new(move || {
        let free_bytes = free.load(Ordering::Relaxed);
        let cpu = Device { name: "test".into(), total_bytes: 1 << 30, free_bytes, ..Device::default() };
        Hardware { devices: vec![cpu], n_cores: 2, ..Hardware::default() }
    })
}

fn write_model(folder: &Path, name: &str) {
    std::fs::write(folder.join(format!("{name}.gguf")), vec![0; 1000]).unwrap();
    let yaml = format!("name: {name}\nbackend: llama-cpp\nparameters:\n  model: {name}.gguf\n  temperature: 0\n");
    std::fs::write(folder.join(format!("{name}.yaml")), yaml).unwrap();
}

/// Settings under which nothing waits for long.
fn quick() -> ResidencyOptions {
    let (min_residence, busy_wait) = (Duration::ZERO, Duration::from_millis(200));
    ResidencyOptions { min_residence, busy_wait, ..ResidencyOptions::default() }
}

struct House {
    runtime: Runtime,
    free: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

fn house(answers: Answers) -> House {
    house_with(answers, quick())
}

fn house_with(answers: Answers, residency: ResidencyOptions) -> House {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "one");
    write_model(folder.path(), "two");
    let free = Arc::new(AtomicU64::new(1 << 30));
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend {
        answers,
        chat_template: Some("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]".into()),
        ..FakeBackend::default()
    });
    let runtime = Runtime::new(RuntimeConfig {
        catalog: Catalog::open(folder.path(), CatalogOptions::default()).unwrap(),
        backends: vec![backend],
        hardware: machine(&free),
        defaults: LoadDefaults::default(),
        residency,
    });
    House { runtime, free, folder }
}

fn call(model: &str, text: &str) -> ChatCall {
    ChatCall {
        model: Some(model.into()),
        conversation: Conversation { messages: vec![Message::text(Role::User, text)], tools: Vec::new() },
        tool_use: ToolUse::default(),
        template: TemplateOptions::default(),
        options: AnswerOptions { max_tokens: Some(20), ..AnswerOptions::default() },
    }
}

fn read(mut stream: ChatStream) -> (String, String, ChatCompletion) {
    let (mut content, mut reasoning) = (String::new(), String::new());
    loop {
        match stream.wait_next().expect("a stream ends with Done").expect("the answer does not fail") {
            ChatEvent::Content(text) => content += &text,
            ChatEvent::Reasoning(text) => reasoning += &text,
            ChatEvent::Tokens(_) | ChatEvent::CallEnd => {}
            ChatEvent::CallStart { name } => content += &format!("[{name}]"),
            ChatEvent::CallArguments(text) => content += &text,
            ChatEvent::Done(completion) => return (content, reasoning, completion),
        }
    }
}

#[test]
fn a_chat_needs_no_async_runtime() {
    let house = house(Answers::Text("hello there".into()));
    let mut streams = block_on(house.runtime.chat(call("one", "hi"))).unwrap();
    let (content, _, done) = read(streams.pop().unwrap());
    assert_eq!(content, "hello there");
    assert_eq!(done.completion.usage.prompt_tokens, "[user]hi[assistant]".len() + 1);
    assert_eq!(done.completion.reason, FinishReason::Stop);
}

#[test]
fn several_answers_share_their_prompt() {
    let house = house(Answers::Text("same".into()));
    let mut asked = call("one", "a question that is long enough to share");
    asked.options.n = 3;
    let streams = block_on(house.runtime.chat(asked)).unwrap();
    let answers: Vec<_> = streams.into_iter().map(read).collect();
    assert!(answers.iter().all(|(content, _, _)| content == "same"));
    let cached: usize = answers.iter().map(|(_, _, done)| done.completion.usage.cached_tokens).sum();
    assert!(cached >= 2 * 40, "{cached} tokens came from the cache");
}

#[test]
fn absurd_numbers_of_answers_are_refused() {
    let house = house(Answers::Hash);
    for n in [0, 129, 10_000] {
        let mut asked = call("one", "hi");
        asked.options.n = n;
        let refused = block_on(house.runtime.chat(asked)).unwrap_err();
        assert!(matches!(refused, RuntimeError::InvalidParameter { parameter: "n", .. }), "{refused}");
    }
}

#[test]
fn a_model_is_loaded_once_and_reported() {
    let house = house(Answers::Hash);
    assert_eq!(house.runtime.loaded(), []);
    let first = block_on(house.runtime.lease(Some("one"), Usecase::Chat)).unwrap();
    let second = block_on(house.runtime.lease(Some("one"), Usecase::Chat)).unwrap();
    let loaded = house.runtime.loaded();
    assert_eq!((loaded.len(), loaded[0].leases, &loaded[0].state), (1, 2, &ModelState::Ready));
    drop((first, second));
    assert!(house.runtime.unload("one"));
    assert!(!house.runtime.unload("one"));
}

#[test]
fn idle_models_make_room_and_used_ones_do_not() {
    let house = house(Answers::Hash);
    let lease = block_on(house.runtime.lease(Some("one"), Usecase::Chat)).unwrap();
    house.free.store(10, Ordering::Relaxed);
    let refused = block_on(house.runtime.lease(Some("two"), Usecase::Chat)).unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { .. }), "{refused}");
    assert_eq!(house.runtime.loaded().len(), 1, "a model in use stays");
    drop(lease);
    assert!(block_on(house.runtime.lease(Some("two"), Usecase::Chat)).is_err(), "the free bytes do not change here");
    assert_eq!(house.runtime.loaded(), [], "the idle model was evicted");
}

#[test]
fn a_dead_engine_shows_in_readiness_and_is_loaded_again() {
    let house = house(Answers::Hash);
    assert_eq!(house.runtime.readiness(), Readiness::Ready);
    let poison = PromptInput::Tokens(vec![ingle_engine::fake::POISON_PANIC]);
    let asked = CompletionCall { model: Some("one".into()), prompt: poison, options: AnswerOptions::default() };
    let mut streams = block_on(house.runtime.complete(asked)).unwrap();
    let failed = streams[0].wait_next().unwrap();
    assert!(matches!(failed, Err(RuntimeError::Engine(EngineError::Died { .. }))));
    assert!(matches!(house.runtime.readiness(), Readiness::Degraded { .. }));
    let mut streams = block_on(house.runtime.chat(call("one", "hi"))).expect("the model is loaded again");
    read(streams.pop().unwrap());
    assert_eq!(house.runtime.readiness(), Readiness::Ready);
}

#[test]
fn what_is_missing_is_named() {
    let house = house(Answers::Hash);
    let unknown = block_on(house.runtime.lease(Some("three"), Usecase::Chat)).unwrap_err();
    assert!(unknown.to_string().contains("three"), "{unknown}");
    std::fs::remove_file(house.folder.path().join("two.gguf")).unwrap();
    let gone = block_on(house.runtime.lease(Some("two"), Usecase::Chat)).unwrap_err();
    assert!(gone.to_string().contains("two.gguf"), "{gone}");
}

#[test]
fn a_prompt_over_the_context_is_refused_before_it_is_queued() {
    let house = house(Answers::Hash);
    let refused = |n_chars| block_on(house.runtime.chat(call("one", &"x".repeat(n_chars)))).unwrap_err();
    let counted = refused(600);
    let expected = |prompt_tokens| {
        matches!(
            counted,
            RuntimeError::Engine(EngineError::ContextLengthExceeded { prompt_tokens: n, context_tokens: 512 }) if n == prompt_tokens
        )
    };
    assert!(expected(1 + "[user][assistant]".len() + 600), "{counted}");
    let huge = refused(10_000_000);
    assert!(matches!(huge, RuntimeError::Engine(EngineError::PromptTooLarge { context_tokens: 512, .. })), "{huge}");
}

#[test]
fn tokens_and_text_are_each_others_inverse() {
    let house = house(Answers::Hash);
    let tokens = block_on(house.runtime.tokenize(Some("one"), Segment::parse("grüße"), Surround::Nothing)).unwrap();
    assert_eq!(tokens.len(), 7);
    assert_eq!(block_on(house.runtime.detokenize(Some("one"), &tokens)).unwrap(), "grüße");
    assert!(block_on(house.runtime.detokenize(Some("one"), &[99_999])).is_err());
}

#[test]
fn requests_override_the_configuration_and_the_configuration_the_defaults() {
    let house = house(Answers::Hash);
    let lease = block_on(house.runtime.lease(Some("one"), Usecase::Chat)).unwrap();
    let tokenizer = lease.text().unwrap().tokenizer();
    let merged = |sampling: SamplingOverrides| {
        let options = AnswerOptions { sampling, ..AnswerOptions::default() };
        sampling_params(&options, lease.config(), tokenizer.as_ref()).unwrap()
    };
    let base = SamplingParams::default();
    let plain = merged(SamplingOverrides::default());
    assert_eq!((plain.temperature, plain.top_k, plain.top_p), (0.0, base.top_k, base.top_p), "0 is from the YAML");
    let asked = merged(SamplingOverrides { temperature: Some(0.7), top_k: Some(0), ..SamplingOverrides::default() });
    assert_eq!((asked.temperature, asked.top_k), (0.7, None), "top_k 0 keeps all");
    let dry = merged(SamplingOverrides { dry_multiplier: Some(0.8), ..SamplingOverrides::default() }).dry.unwrap();
    assert!(!dry.breakers.is_empty(), "the usual breakers are known to the vocabulary");
}

/// A house whose model `one` has these further lines in its configuration.
fn configured(answers: Answers, yaml: &str) -> House {
    let house = house(answers);
    let path = house.folder.path().join("one.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before + yaml).unwrap();
    house.runtime.catalog().reload().unwrap();
    house
}

fn with_tool(mut call: ChatCall, choice: ToolChoice) -> ChatCall {
    let parameters = serde_json::json!({"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]});
    let raw = serde_json::json!({"type": "function", "function": {"name": "add", "parameters": parameters.clone()}});
    let tool = ingle_prompt::Tool { name: "add".into(), description: None, parameters, strict: false, raw };
    call.conversation.tools = vec![tool];
    call.tool_use.choice = choice;
    call.options.max_tokens = Some(100);
    call
}

#[test]
fn a_configuration_says_how_calls_are_found() {
    let yaml = "function:\n  response_regex: ['(?P<name>\\w+)\\((?P<arguments>.*)\\)']\n  argument_regex: ['(?P<key>\\w+)=(?P<value>\\w+)']\n  capture_llm_results: ['^(.*?):']\n";
    let house = configured(Answers::Text("Look: add(x=5)".into()), yaml);
    let mut streams = block_on(house.runtime.chat(with_tool(call("one", "hi"), ToolChoice::Auto))).unwrap();
    let (content, _, done) = read(streams.pop().unwrap());
    assert_eq!((content.as_str(), done.n_calls, done.is_cut), ("Look[add]{\"x\":\"5\"}", 1, false));
    // A call that must be made has a form, whatever the expressions are.
    let mut streams = block_on(house.runtime.chat(with_tool(call("one", "hi"), ToolChoice::Required))).unwrap();
    let (content, _, done) = read(streams.pop().unwrap());
    assert!(content.starts_with("[add]{\"x\":") && done.n_calls >= 1, "{content}");

    let house = configured(Answers::Text("add(1)".into()), "function:\n  response_regex: ['(']\n");
    let error = block_on(house.runtime.chat(with_tool(call("one", "hi"), ToolChoice::Auto))).unwrap_err().to_string();
    assert!(error.contains("function.response_regex") && error.contains("regular expression"), "{error}");
}

#[test]
fn keys_of_calls_can_be_configured() {
    let yaml = "function:\n  function_name_key: tool\n  function_arguments_key: input\n";
    let house = configured(
        Answers::Text("<tool_call>\n{\"tool\": \"add\", \"input\": {\"x\": \"1\"}}\n</tool_call>".into()),
        yaml,
    );
    let mut streams = block_on(house.runtime.chat(with_tool(call("one", "hi"), ToolChoice::Required))).unwrap();
    assert_eq!(read(streams.pop().unwrap()).0, "[add]{\"x\": \"1\"}");
}

#[test]
fn the_grammar_of_a_configuration_holds_answers_that_bring_none() {
    let house = configured(Answers::Text("maybe".into()), "grammar: 'root ::= \"yes\" | \"no\"'\n");
    let mut streams = block_on(house.runtime.chat(call("one", "hi"))).unwrap();
    assert!(["yes", "no"].contains(&read(streams.pop().unwrap()).0.as_str()));
    let mut asked = call("one", "hi");
    asked.options.grammar = Some(GrammarSource::Regex("may(be|not)".into()));
    assert_eq!(read(block_on(house.runtime.chat(asked)).unwrap().pop().unwrap()).0, "maybe");

    let house = configured(Answers::Text("maybe".into()), "grammar_file: answer.gbnf\n");
    let error = block_on(house.runtime.chat(call("one", "hi"))).unwrap_err().to_string();
    assert!(error.contains("answer.gbnf"), "{error}");
    std::fs::write(house.folder.path().join("answer.gbnf"), "root ::= \"no\"\n").unwrap();
    assert_eq!(read(block_on(house.runtime.chat(call("one", "hi"))).unwrap().pop().unwrap()).0, "no");
}
