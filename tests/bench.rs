//! `ingle bench` with a real model: reports, comparison, the end by a signal.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Server, chat_model, failure_of, ingle, models_folder, stdout_of, test_folder, text};

/// More than two pieces of 32 tokens.
const TEXT: &str = "A river begins as a small stream high in the mountains, where snow melts in the spring and runs down \
    over the rocks. As it flows towards the sea, other streams join it, and it becomes wider and slower. People have always \
    lived beside rivers, because they give water to drink, fish to eat, and a way to travel. Many of the largest cities in \
    the world were built on the banks of a river, and many of their bridges are famous.";

/// A file in a folder, as an argument.
fn report(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("the report is there")).expect("the report is JSON")
}

fn median(row: &Value, name: &str) -> f64 {
    let metrics = row["metrics"].as_array().expect("a row has figures");
    let metric = metrics.iter().find(|metric| metric["name"] == name);
    metric.unwrap_or_else(|| panic!("{name} is missing: {row}"))["median"].as_f64().expect("a number")
}

#[test]
fn models_are_measured_over_every_combination() {
    let Some(model) = chat_model() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = ["a.json", "a.csv", "a.md", "a.html"].map(|name| report(folder.path(), name));
    let model = model.display().to_string();
    let mut arguments = vec!["bench", "offline", &model, "--prompt", "16", "--answer", "0,12", "--parallel", "1,3"];
    arguments.extend(["--threads", "1", "--repeats", "2", "--depth", "32", "--bare", "--json", &files[0]]);
    arguments.extend(["--operations", "ours"]);
    arguments.extend(["--csv", &files[1], "--markdown", &files[2], "--html", &files[3]]);
    let table = stdout_of(ingle(&arguments));
    assert!(table.contains("prefill tok/s") && table.contains("engine / bare"), "{table}");
    let found = read(&files[0]);
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert!(median(row, "prefill") > 1.0 && median(row, "peak memory") > 50.0, "{row}");
        if row["case"]["answer"] == 12 {
            assert!(median(row, "decode") > 1.0 && median(row, "roofline") > 0.0, "{row}");
        }
    }
    assert!(found["notes"].to_string().contains("our own operations"), "{}", found["notes"]);
    assert_eq!(found["subjects"][0]["facts"]["sha256"].as_str().map(str::len), Some(64));
    assert!(found["host"]["cpu"].as_str().is_some_and(|cpu| !cpu.is_empty()));
    assert!(std::fs::read_to_string(&files[3]).expect("a page").contains("<svg"));
    let compared = stdout_of(ingle(&["bench", "compare", &files[0], &files[0]]));
    let changes = ["better", "worse", "different"];
    assert!(compared.contains("same") && !changes.iter().any(|word| compared.contains(word)), "{compared}");
}

#[test]
fn models_of_vectors_and_of_speech_are_measured() {
    let Some(models) = test_folder(&["all-MiniLM-L6-v2", "whisper-tiny.en"]) else { return };
    let path = models.path().to_str().expect("UTF-8");
    let file = report(models.path(), "report.json");
    let mut arguments = vec!["bench", "offline", "all-MiniLM-L6-v2", "--models-path", path, "--repeats", "1"];
    arguments.extend(["--prompt", "17", "--answer", "4,8", "--parallel", "1,4", "--json", &file]);
    let table = stdout_of(ingle(&arguments));
    assert!(table.contains("texts 1/s"), "{table}");
    let found = read(&file);
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "answers tell no case from another: {rows:?}");
    for row in rows {
        let (texts, tokens) = (median(row, "texts"), median(row, "tokens"));
        assert!((tokens / texts - 17.0).abs() < 1e-6 && median(row, "call p50") > 0.0, "{row}");
    }
    let long = ["bench", "offline", "all-MiniLM-L6-v2", "--models-path", path, "--prompt", "400"];
    let refused = failure_of(ingle(&long), 1);
    assert!(refused.contains("lower --prompt"), "{refused}");
    let whisper = ["bench", "offline", "whisper-tiny.en", "--models-path", path, "--repeats", "1", "--json", &file];
    let refused = failure_of(ingle(&whisper), 1);
    assert!(refused.contains("--audio"), "{refused}");
    let wav = report(models.path(), "tone.wav");
    let tone: Vec<f32> = (0..48_000).map(|n| 0.1 * (n as f32 * 0.2).sin()).collect();
    std::fs::write(&wav, ingle::media::wav(&tone, 16_000)).expect("a recording");
    stdout_of(ingle(&[&whisper[..], &["--audio", &wav]].concat()));
    assert!(median(&read(&file)["rows"][0], "real-time factor") > 0.0);
}

#[test]
fn a_server_is_measured_with_its_own_count_of_tokens() {
    let Some(model) = chat_model() else { return };
    let models = models_folder(&model);
    let mut command = ingle(&["run", "small", "--threads", "1", "--context-size", "2048", "--parallel", "4"]);
    command.arg("--models-path").arg(models.path());
    let server = Server::start(command);
    server.wait_until_ready();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = report(folder.path(), "short.yaml");
    let yaml = "name: short\nabout: x\nrounds: 1\nparts: [{api: chat, shared: 40, prompt: 8, answer: 6}]\n";
    std::fs::write(&scenario, yaml).expect("a scenario");
    let json = report(folder.path(), "served.json");
    let line =
        ["bench", "serve", &server.url, "--scenario", &scenario, "--clients", "3", "--blocks", "2", "--json", &json];
    stdout_of(ingle(&line));
    let found = read(&json);
    let row = &found["rows"][0];
    assert_eq!((median(row, "failed"), &row["case"]["clients"]), (0.0, &Value::from(3)));
    assert!(median(row, "prompt tokens") > 3.0 * 48.0 && median(row, "ttft p50") > 0.0, "{row}");
}

#[test]
fn texts_and_choices_are_scored() {
    let Some(model) = chat_model() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plain, odd) = (report(folder.path(), "plain.txt"), report(folder.path(), "odd.txt"));
    let words: Vec<&str> = TEXT.split_whitespace().collect();
    std::fs::write(&plain, words.join(" ")).expect("a text");
    std::fs::write(&odd, words.iter().rev().copied().collect::<Vec<_>>().join(" ")).expect("a text");
    let choices = report(folder.path(), "choices.jsonl");
    let questions = [
        r#"{"question": "The capital of France is", "choices": ["Paris", "banana", "running"], "answer": 0}"#,
        r#"{"question": "Two plus two is", "choices": ["purple", "four"], "answer": 1}"#,
    ];
    std::fs::write(&choices, questions.join("\n")).expect("questions");
    let model = model.display().to_string();
    let perplexity = |text: &str| {
        let json = report(folder.path(), "quality.json");
        let line = ["bench", "quality", &model, "--text", text, "--context", "32", "--threads", "1", "--json", &json];
        stdout_of(ingle(&[&line[..], &["--choices", &choices]].concat()));
        let compared = stdout_of(ingle(&["bench", "compare", &json, &json]));
        assert!(!compared.contains("worse") && !compared.contains("better"), "{compared}");
        let found = read(&json);
        assert_eq!(median(&found["rows"][0], "accuracy"), 100.0);
        median(&found["rows"][0], "perplexity")
    };
    let (plain, odd) = (perplexity(&plain), perplexity(&odd));
    assert!(plain > 1.0 && plain < odd, "{plain} {odd}");
}

#[test]
fn a_signal_keeps_what_is_done() {
    let Some(model) = chat_model() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = report(folder.path(), "stopped.json");
    let model = model.display().to_string();
    let line = ["bench", "offline", &model, "--prompt", "8", "--answer", "8", "--threads", "1", "--repeats", "1000"];
    let mut child = ingle(&[&line[..], &["--json", &json]].concat()).spawn().expect("the program starts");
    // The second line of progress is the first run that counts.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("a pipe")));
    assert_eq!(lines.by_ref().take(3).filter(Result::is_ok).count(), 3);
    let status = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(status.expect("kill starts").success());
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).count());
    let begun = std::time::Instant::now();
    assert!(child.wait().expect("the program ends").success() && begun.elapsed() < Duration::from_secs(60));
    rest.join().expect("the reader ends");
    let found = read(&json);
    assert_eq!((found["is_complete"].as_bool(), found["rows"].as_array().map(Vec::len)), (Some(false), Some(1)));
}

#[test]
fn a_case_that_cannot_be_measured_leaves_the_others_their_rows() {
    let Some(model) = chat_model() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = report(folder.path(), "half.json");
    let model = model.display().to_string();
    // The model was trained with 8,192 tokens; the longest prompt comes first.
    let mut line = vec!["bench", "offline", &model, "--prompt", "9000,8", "--answer", "0", "--threads", "1"];
    line.extend(["--repeats", "1", "--operations", "ggml", "--json", &json]);
    let error = failure_of(ingle(&line), 1);
    assert!(error.contains("not everything was measured") && error.contains("more than"), "{error}");
    let found = read(&json);
    assert_eq!((found["is_complete"].as_bool(), found["rows"].as_array().map(Vec::len)), (Some(false), Some(1)));
    let notes = found["notes"].to_string();
    assert!(notes.contains("prompt 9000") && notes.contains("left to ggml"), "{notes}");
}

#[test]
fn nonsense_is_refused_before_anything_is_loaded() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["offline", "absent-model", "--models-path", "."], 1, "absent-model"),
        (&["offline", "m", "--cache-type-k", "f99"], 2, "f16"),
        (&["offline", "m", "--operations", "theirs"], 2, "ggml"),
        (&["offline", "m", "--json", "/absent/folder/x.json"], 1, "/absent/folder"),
        (&["serve", "http://127.0.0.1:1", "--scenario", "absent"], 1, "shared-prefix"),
        (&["serve", "http://127.0.0.1:1", "--slo", "ttft"], 1, "ttft"),
        (&["compare", "/absent/a.json", "/absent/b.json"], 1, "/absent/a.json"),
    ];
    for (arguments, status, word) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = ingle(&[&["bench"], arguments].concat());
        command.current_dir(folder.path());
        let error = failure_of(command, status);
        assert!(error.contains(word), "{arguments:?}: {error}");
    }
    let list = stdout_of(ingle(&["bench", "serve", "--list"]));
    assert!(list.contains("multi-turn") && text(list.as_bytes()).lines().count() > 10, "{list}");
}
