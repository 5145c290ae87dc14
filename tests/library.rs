//! The library in this process, and its example.

use std::path::Path;

use ingle::ChatEvent;

use crate::support::{chat_model, models_folder, program, stdout_of};

fn text_of(answer: ingle::ChatAnswer<'_>) -> (String, usize) {
    let mut text = String::new();
    let mut n_tokens = 0;
    for event in answer {
        match event.expect("an answer") {
            ChatEvent::Content(piece) => text.push_str(&piece),
            ChatEvent::Reasoning(_) | ChatEvent::Tokens(_) => {}
            ChatEvent::CallStart { .. } | ChatEvent::CallArguments(_) | ChatEvent::CallEnd => {}
            ChatEvent::Done(end) => n_tokens = end.completion.usage.completion_tokens,
        }
    }
    (text, n_tokens)
}

#[test]
fn the_example_streams_an_answer() {
    let Some(model) = chat_model() else { return };
    let folder = Path::new(env!("CARGO_BIN_EXE_ingle")).parent().expect("the program lies in a folder");
    let example = folder.join("examples/chat");
    assert!(
        example.exists(),
        "cargo test builds examples; with --test alone, run: cargo build --release --example chat"
    );
    let answer = stdout_of(program(&example, &[model.to_str().expect("UTF-8"), "Name one colour."]));
    assert!(answer.contains(" tokens]") && answer.len() > 20, "{answer}");
}

#[test]
fn a_conversation_goes_on() {
    let Some(model) = chat_model() else { return };
    let mut chat = ingle::chat_model(&model).expect("the model loads");
    chat.options.max_tokens = Some(16);
    chat.options.sampling.temperature = Some(0.0);
    let (first, n_tokens) = text_of(chat.ask("Say hello.").expect("an answer"));
    assert!(!first.is_empty() && (1..=16).contains(&n_tokens), "{first} {n_tokens}");
    assert_eq!(chat.messages.len(), 2);
    // Left early: what came belongs to the conversation, and the next answer comes all the same.
    drop(chat.ask("And again.").expect("an answer").next());
    assert_eq!(chat.messages.len(), 4);
    chat.messages.clear();
    let (again, _) = text_of(chat.ask("Say hello.").expect("an answer"));
    assert_eq!(again, first, "greedy answers are equal, cached or not");
}

#[test]
fn a_folder_is_a_runtime() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let runtime = ingle::open(folder.path()).expect("the folder is readable");
    let names: Vec<String> = runtime.catalog().list().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["small.gguf"]);
    let mut chat = ingle::ChatModel::new(runtime.clone(), "small").expect("the model loads");
    assert_eq!(runtime.loaded().len(), 1);
    chat.options.max_tokens = Some(4);
    assert!(text_of(chat.ask("Hi").expect("an answer")).1 <= 4);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let cases = [
        (folder.path().join("missing.gguf"), "No such file"),
        (write("empty.gguf", b""), "empty.gguf"),
        (write("random.gguf", &[7; 4096]), "random.gguf"),
        (write("short.gguf", b"GGUF\x03\0\0\0"), "short.gguf"),
        (write("model.bin", b"GGUF"), ".gguf"),
    ];
    for (path, part) in cases {
        let error = ingle::chat_model(&path).expect_err("this is no model").to_string();
        assert!(error.contains(part), "{}: {error}", path.display());
    }
}

#[test]
fn a_truncated_model_is_refused() {
    let Some(model) = chat_model() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut.gguf");
    let bytes = std::fs::read(model).expect("the model is readable");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("a file");
    let error = ingle::chat_model(&path).expect_err("half a model is none").to_string();
    assert!(error.contains("cut.gguf"), "{error}");
}
