//! `ingle run` and `ingle chat` with a real model.

use std::process::Command;

use crate::support::{Server, chat_model, ingle, models_folder, text, with_input};

#[test]
fn the_hints_work() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let mut command = ingle(&["run", "small.gguf", "--models-path", folder.path().to_str().expect("UTF-8")]);
    command.env("INGLE_HINTS", "1");
    let server = Server::start(command);
    let curl = server.line_with("curl http://");
    let chat = server.line_with(" chat --endpoint ");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let answer = with_input(shell(&curl.replace("curl ", "curl -fsS ")), "");
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("the curl line answers with JSON");
    assert!(answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    let said = with_input(shell(&format!("{} --max-tokens 8", chat.trim())), "Say hello.");
    assert!(said.status.success() && text(&said.stdout).trim().len() > 1, "{}", text(&said.stderr));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_server_without_models_is_ready_and_stops_at_a_signal() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let models = folder.path().join("made/on/the/way");
        let server = Server::start(ingle(&["--models-path", models.to_str().expect("UTF-8")]));
        server.wait_until_ready();
        server.signal(signal);
        assert_eq!(server.wait(), Some(0), "{signal}");
        assert!(models.is_dir());
    }
}

#[test]
fn a_pipe_is_one_message() {
    let Some(model) = chat_model() else { return };
    let flags = ["--max-tokens", "12", "--temperature", "0"];
    let chat = |model: &str| {
        let output = with_input(ingle(&[&["chat", model][..], &flags].concat()), "Name a colour.\n");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let path = model.to_str().expect("UTF-8");
    let first = chat(path);
    assert!(first.trim().len() > 1 && first.ends_with('\n'), "{first}");
    assert_eq!(first, chat(path), "greedy answers are equal");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let output = with_input(ingle(&["chat", "--endpoint", "http://127.0.0.1:9"]), "Hi");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("127.0.0.1:9"), "{}", text(&output.stderr));
}
