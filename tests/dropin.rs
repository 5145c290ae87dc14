//! In place of LocalAI: its folder, files, variables and flags, with real models.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ingle::{LoadOptions, backends};
use serde_json::{Value, json};

use crate::support::{Server, chat_model, failure_of, ingle, stdout_of, windowed_model};

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(120))).build().into()
}

/// Status, JSON and the header `Machine-Tag`.
fn post(url: &str, key: &str, body: &Value) -> (u16, Value, String) {
    let request = agent().post(url).header("content-type", "application/json").header("x-api-key", key);
    let mut answer = request.send(body.to_string()).expect("the server answers");
    let text = answer.body_mut().read_to_string().expect("the answer is text");
    let tag = answer.headers().get("machine-tag").and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)), tag)
}

fn link(model: &Path, folder: &Path, name: &str) {
    std::os::unix::fs::symlink(model.canonicalize().expect("it exists"), folder.join(name)).expect("a link");
}

#[test]
fn a_folder_an_environment_and_flags_of_localai_work() {
    let Some(model) = chat_model() else { return };
    let home = tempfile::tempdir().expect("a temporary folder");
    let models = home.path().join("models");
    std::fs::create_dir(home.path().join("configuration")).expect("a folder");
    std::fs::create_dir(&models).expect("a folder");
    link(&model, &models, "small.gguf");
    let files = [
        ("models/assistant.tmpl", "{{.Input}}\n<|im_start|>assistant\n"),
        (
            "models/assistant.yaml",
            "name: assistant:1b\nbackend: llama\nnuma: true\nparameters:\n  model: small.gguf\n  temperature: 0\n  \
             temprature: 1\ntemplate:\n  chat: assistant\n  chat_message: |-\n    <|im_start|>{{.RoleName}}\n    \
             {{.Content}}<|im_end|>\nstopwords: ['<|im_end|>']\ncutstrings: ['Paris']\n",
        ),
        ("models/gpt-4.yaml", "name: gpt-4\nalias: assistant:1b\n"),
        ("models/broken.yaml", "name: broken\ncontext_size: many\n"),
        ("configuration/api_keys.json", r#"["from-file"]"#),
        (".env", "LOCALAI_MACHINE_TAG=tagged\nLOCALAI_API_KEY=from-env-file\nLD_PRELOAD=/nothing\n"),
    ];
    for (path, text) in files {
        std::fs::write(home.path().join(path), text).expect("it is written");
    }
    let mut command = ingle(&["run", "--p2p", "--f16=false", "--load-to-memory", "assistant:1b"]);
    command
        .current_dir(home.path())
        .env("MODELS_PATH", "models")
        .env("P2P_TOKEN", "secret")
        .env("CONTEXT_SIZE", "1024");
    let server = Server::start(command);
    server.wait_until_ready();
    let ask = |key: &str, model: &str| {
        let body = json!({"model": model, "max_tokens": 24,
            "messages": [{"role": "user", "content": "What is the capital of France?"}]});
        post(&format!("{}/v1/chat/completions", server.url), key, &body)
    };
    let (status, error, tag) = ask("wrong", "gpt-4");
    assert_eq!((status, tag.as_str()), (401, "tagged"), "{error}");
    for key in ["from-file", "from-env-file"] {
        let (status, answer, _) = ask(key, "gpt-4");
        let content = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        assert_eq!((status, answer["model"].as_str()), (200, Some("gpt-4")), "{answer}");
        assert!(content.contains("France") && !content.contains("Paris"), "it is cut: {content}");
    }
    let (status, error, _) = ask("from-file", "broken");
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("context_size") && message.contains("integer"), "{error}");
    let (status, error, _) = ask("from-file", "assistant:1c");
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 404 && message.contains("is \"assistant:1b\" meant?"), "{error}");
}

#[test]
fn what_has_no_effect_is_told_once_at_the_start() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let models = home.path().join("models");
    std::fs::create_dir(&models).expect("a folder");
    std::fs::write(models.join("m.yaml"), "name: m\nnuma: true\nparameters: {temprature: 1}\n").expect("it is written");
    let mut command = ingle(&["run", "--p2p", "--models-path", models.to_str().expect("UTF-8")]);
    command
        .current_dir(home.path())
        .env("P2P_TOKEN", "x")
        .args(["--address", "127.0.0.1:0"])
        .args(["--log-format", "json"]);
    command.args(["--preload-backend-only"]);
    let output = command.output().expect("the program starts");
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{log}");
    for part in [
        "--p2p has no effect",
        "P2P_TOKEN has no effect",
        "line 2: `numa` has no effect",
        "line 3: `parameters.temprature`",
    ] {
        assert_eq!(log.matches(part).count(), 1, "{part}: {log}");
    }
    assert!(!log.contains("\"x\""), "values are not logged: {log}");
}

#[test]
fn a_newcomers_mistakes_are_explained() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().to_str().expect("UTF-8");
    let run = |arguments: &[&str]| {
        let mut command = ingle(&[arguments, &["--address", "127.0.0.1:0", "--models-path", folder]].concat());
        command.current_dir(home.path());
        command
    };
    for (arguments, parts) in [
        (&["run", "smollm2-135m-instuct"][..], &["is \"smollm2-135m-instruct\" meant?", "gallery has"][..]),
        (&["run", folder], &["folder"]),
        (&["run", "--memory-budget", "lots"], &["lots", "12GB"]),
        (&["run", "--galleries", "x"], &["LOCALAI_GALLERIES", "JSON list"]),
        (&["run", "--preload-models", "x"], &["LOCALAI_PRELOAD_MODELS"]),
        (&["run", "--external-base-url", "x"], &["https://"]),
        (&["run", "--preload-models", r#"[{"url": "file:///etc/passwd.gguf"}]"#], &["files of this machine"]),
    ] {
        let status = if arguments.contains(&"--memory-budget") { 2 } else { 1 };
        let error = failure_of(run(arguments), status);
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    }
    assert!(stdout_of(ingle(&["completion", "bash"])).contains("--models-path"));
}

/// Two real models that do not fit together, and clients that want both.
#[test]
fn models_that_do_not_fit_together_take_turns() {
    let (Some(small), Some(windowed)) = (chat_model(), windowed_model()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (model, name) in [(&small, "one"), (&windowed, "two")] {
        link(model, folder.path(), &format!("{name}.gguf"));
        let yaml =
            format!("name: {name}\ncontext_size: 1024\nparameters: {{model: {name}.gguf}}\noptions: ['parallel:2']\n");
        std::fs::write(folder.path().join(format!("{name}.yaml")), yaml).expect("it is written");
    }
    let models = folder.path().to_str().expect("UTF-8");
    // Each fits, and both do not. What a model takes depends on the processor.
    let bytes = |model: &Path| {
        let (context_size, parallel) = (Some(1024), Some(2));
        let options = LoadOptions { path: model.to_owned(), context_size, parallel, ..LoadOptions::default() };
        backends()[0].estimate(&options).expect("it is a model").total_bytes()
    };
    let sizes = [&small, &windowed].map(|model| bytes(model));
    let budget = sizes.iter().max().expect("two") + sizes.iter().min().expect("two") / 2;
    let budget = format!("{}MB", budget / 1_000_000);
    let flags = ["run", "--models-path", models, "--memory-budget", &budget, "--min-residence", "1s"];
    let server = Server::start(ingle(&flags));
    let begun = Instant::now();
    let waits: Mutex<Vec<Duration>> = Mutex::default();
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (url, waits) = (format!("{}/v1/completions", server.url), &waits);
            scope.spawn(move || {
                for turn in client.. {
                    if begun.elapsed() > Duration::from_secs(8) {
                        return;
                    }
                    let model = ["one", "two"][turn % 2];
                    let asked = Instant::now();
                    let body = json!({"model": model, "prompt": "Once", "max_tokens": 3});
                    let (status, answer, _) = post(&url, "", &body);
                    assert_eq!(status, 200, "{model}: {answer}");
                    waits.lock().expect("no client fails").push(asked.elapsed());
                }
            });
        }
    });
    let waits = waits.into_inner().expect("no client fails");
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!("{} answers, longest wait {longest:?}", waits.len());
    assert!(waits.len() >= 8 && longest < Duration::from_secs(30), "{} answers, {longest:?}", waits.len());
}
