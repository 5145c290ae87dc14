//! The command line: texts, errors, and commands that need no model in memory.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{chat_model, failure_of, ingle, models_folder, program, stdout_of, text, with_input};

#[test]
fn every_command_has_help() {
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["Usage: ingle", "run", "chat", "models", "template", "grammar", "devices", "version"]),
        (&["grammar", "check"], &["--kind", "--text", "--strict", "--jsonl"]),
        (&["run"], &["--address", "LOCALAI_ADDRESS", ":8080", "--gpu-layers", "--api-keys", "--context-size <TOKENS>"]),
        (&["chat"], &["[MODEL]", "--endpoint", "--system"]),
        (&["models"], &["list", "install", "show"]),
        (&["models", "install"], &["<MODEL>...", "LOCALAI_MODELS_PATH"]),
        (&["template", "render"], &["--template", "--model", "--jsonl"]),
        (&["devices"], &["--json"]),
        (&["version"], &["--log-level"]),
    ];
    for (command, words) in cases {
        let help = stdout_of(ingle(&[command, &["--help"]].concat()));
        for word in words {
            assert!(help.contains(word), "{command:?} lacks {word}:\n{help}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = concat!("ingle ", env!("CARGO_PKG_VERSION"));
    for arguments in ["version", "--version", "-V"] {
        assert!(stdout_of(ingle(&[arguments])).starts_with(version), "{arguments}");
    }
}

#[test]
fn the_other_name_is_known_in_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = folder.path().join("local-ai");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ingle"), &other).expect("a link");
    assert!(stdout_of(program(&other, &["run", "--help"])).contains("Usage: local-ai run"));
}

#[test]
fn wrong_usage_has_status_2_and_names_the_flag() {
    let cases: [(&[&str], &str); 8] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["run", "--threads", "many"], "use a whole number"),
        (&["run", "--threads"], "--threads"),
        (&["run", "--gpu-layers", "-3"], "-3"),
        (&["models"], "Usage"),
        (&["models", "install"], "<MODEL>"),
        (&["template", "render"], "--template"),
        (&["--log-level", "loud", "version"], "loud"),
    ];
    for (arguments, part) in cases {
        let error = failure_of(ingle(arguments), 2);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn failures_have_status_1_and_say_what_to_change() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").expect("a file");
    let (folder, file) = (folder.path().to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    let cases: [(&[&str], &[&str]); 11] = [
        (&["models", "show", "nobody", "--models-path", folder], &["nobody"]),
        (&["models", "install", "nobody", "--models-path", folder], &["nobody", "smollm2-135m-instruct"]),
        (&["models", "install", "ocifile:///x", "--models-path", folder], &["ocifile", "huggingface://"]),
        (&["chat", "nobody", "--models-path", folder], &["standard input is empty"]),
        (&["models", "list", "--models-path", "no/such/folder"], &["no/such/folder", "--models-path"]),
        (&["run", "--address", "127.0.0.1:0", "--models-path", file], &[file, "--models-path"]),
        (&["run", "nobody", "--address", "127.0.0.1:0", "--models-path", folder], &["\"nobody\"", "gallery has"]),
        (&["run", "--address", "nowhere", "--models-path", folder], &["nowhere", "HOST:PORT"]),
        (&["run", "--address", "127.0.0.1:99999", "--models-path", folder], &["99999", "65535"]),
        (&["run", "--address", "203.0.113.7:0", "--models-path", folder], &["no address of this machine"]),
        (&["template", "render", "--template", "no/such/file"], &["no/such/file"]),
    ];
    for (arguments, parts) in cases {
        let error = failure_of(ingle(arguments), 1);
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().to_str().expect("UTF-8");
    for address in [format!("127.0.0.1:{port}"), format!(":{port}")] {
        let error = failure_of(ingle(&["run", "--address", &address, "--models-path", models]), 1);
        assert!(error.contains(&format!("port {port} is in use")) && error.contains("--address"), "{error}");
    }
}

#[test]
fn older_variables_of_localai_are_read() {
    for name in ["LOCALAI_ADDRESS", "ADDRESS"] {
        let mut command = ingle(&["run", "--models-path", "unused"]);
        command.env(name, "from the environment");
        assert!(failure_of(command, 1).contains("from the environment"), "{name}");
    }
    let mut command = ingle(&["version"]);
    command.env("LOCALAI_LOG_LEVEL", "").env("LOCALAI_DEBUG", "no");
    stdout_of(command);
}

#[test]
fn devices_are_json_and_a_table() {
    let devices: Value = serde_json::from_str(&stdout_of(ingle(&["devices", "--json"]))).expect("JSON");
    assert_eq!(devices["devices"][0]["kind"], "cpu");
    assert!(devices["cores"].as_u64().is_some_and(|cores| cores >= 1));
    let memory = |key: &str| devices["devices"][0][key].as_u64().expect("a number of bytes");
    assert!(memory("free_bytes") <= memory("total_bytes") && memory("total_bytes") > 1 << 20);
    let table = stdout_of(ingle(&["devices"]));
    assert!(table.starts_with("DEVICE") && table.contains("cpu0") && table.contains("cores"), "{table}");
}

#[test]
fn requiring_a_gpu_fails_without_one() {
    let devices: Value = serde_json::from_str(&stdout_of(ingle(&["devices", "--json"]))).expect("JSON");
    let has_gpu = devices["devices"].as_array().is_some_and(|list| list.len() > 1);
    if has_gpu && devices["usable"]["cuda"] == true {
        return eprintln!("skipped: this machine has a GPU that this build can use");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().to_str().expect("UTF-8");
    let error = failure_of(ingle(&["run", "--require-gpu", "--address", "127.0.0.1:0", "--models-path", models]), 1);
    assert!(error.contains("no GPU can be used") && error.contains("running on the CPU"), "{error}");
}

#[test]
fn models_are_listed_with_their_problems() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("broken.gguf"), "not a model").expect("a file");
    let models = folder.path().to_str().expect("UTF-8");
    let output = ingle(&["models", "list", "--models-path", models]).output().expect("the program starts");
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("smollm2-135m-instruct"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("broken.gguf"), "{}", text(&output.stderr));
}

#[test]
fn a_file_is_shown_and_installed() {
    let Some(model) = chat_model() else { return };
    let path = model.to_str().expect("UTF-8");
    let shown = stdout_of(ingle(&["models", "show", path]));
    for part in ["architecture", "llama", "134.5 million", "8192 tokens", "chat template"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().to_str().expect("UTF-8");
    let install = || stdout_of(ingle(&["models", "install", path, "--models-path", models]));
    assert!(install().contains("is installed"));
    assert!(install().contains("was there already"));
    let listed = stdout_of(ingle(&["models", "list", "--models-path", models]));
    assert!(listed.contains("SmolLM2-135M-Instruct.Q4_1") && listed.contains("ready"), "{listed}");
}

#[test]
fn a_template_file_renders_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let template = folder.path().join("t.jinja");
    let source =
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}";
    std::fs::write(&template, source).expect("a file");
    let template = template.to_str().expect("UTF-8");
    let messages = json!([{ "role": "user", "content": "Żółw" }]);
    let cases: [(&[&str], Value, &str); 3] = [
        (&[], messages.clone(), "[user] Żółw\n>"),
        (&["--no-generation-prompt"], messages.clone(), "[user] Żółw\n"),
        (&[], json!({ "messages": messages, "add_generation_prompt": false }), "[user] Żółw\n"),
    ];
    for (flags, input, expected) in cases {
        let arguments = [&["template", "render", "--template", template], flags].concat();
        let output = with_input(ingle(&arguments), &input.to_string());
        assert_eq!(text(&output.stdout), expected, "{flags:?}: {}", text(&output.stderr));
    }
    for (input, part) in [("{}", "key `messages`"), ("nonsense", "no JSON"), ("3", "must be a list")] {
        let output = with_input(ingle(&["template", "render", "--template", template]), input);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

#[test]
fn a_model_brings_its_template() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let models = folder.path().to_str().expect("UTF-8");
    for name in ["small", "small.gguf", model.to_str().expect("UTF-8")] {
        let command = ingle(&["template", "render", "--model", name, "--models-path", models]);
        let output = with_input(command, r#"[{"role": "user", "content": "Hi"}]"#);
        let prompt = text(&output.stdout);
        assert!(prompt.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
    }
}

#[test]
fn rows_answer_with_a_prompt_or_an_error() {
    let rows = [
        json!({ "template": "{{ bos_token }}{{ messages[0].content }}", "bos_token": "<s>", "messages": [{ "content": "x" }] }),
        json!({ "template": "{{ raise_exception('no') }}", "messages": [] }),
        json!({ "template": "{% if %}", "messages": [] }),
        json!({ "template": "{{ strftime_now('%Y') }}", "now": "2025-01-02T03:04:05", "messages": [] }),
        json!([]),
    ];
    let mut input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    input.push_str("\nnot JSON\n");
    let output = with_input(ingle(&["template", "render", "--jsonl"]), &input);
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 6);
    assert_eq!((&answers[0]["prompt"], &answers[3]["prompt"]), (&json!("<s>x"), &json!("2025")));
    for failed in [1, 2, 4, 5] {
        assert!(answers[failed]["error"].is_string() && answers[failed].get("prompt").is_none(), "{failed}");
    }
}

/// Rows of the corpus, each with what the reference makes of it; `None` is a refusal.
fn corpus_rows() -> Option<Vec<(Value, Option<String>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let scenarios: Value = serde_json::from_str(&read("chat_template_scenarios.json")?).expect("JSON");
    let mut rows = Vec::new();
    for line in read("chat_templates.jsonl")?.lines() {
        let template: Value = serde_json::from_str(line).expect("JSON");
        for case in template["cases"].as_array().expect("a list") {
            let mut row = scenarios["scenarios"][case["scenario"].as_str().expect("a name")].clone();
            row["template"] = template["template"].clone();
            row["now"] = scenarios["strftime_now_is"].clone();
            rows.push((row, case["expected"].as_str().map(str::to_owned)));
        }
    }
    Some(rows)
}

#[test]
fn the_corpus_renders_as_the_reference_does() {
    let Some(rows) = corpus_rows() else { return eprintln!("skipped: the corpus of templates is not here") };
    let input: String = rows.iter().map(|(row, _)| format!("{row}\n")).collect();
    let output = with_input(ingle(&["template", "render", "--jsonl"]), &input);
    let output = text(&output.stdout);
    let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), rows.len());
    let differ =
        answers.iter().zip(&rows).filter(|(answer, (_, expected))| answer["prompt"].as_str() != expected.as_deref());
    assert_eq!(differ.count(), 0);
}
