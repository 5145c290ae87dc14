//! What tests share: the program, its server, the test models.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The chat model of the tests, when it is installed.
pub(crate) fn chat_model() -> Option<PathBuf> {
    test_model("SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// A base model with a sliding window of 512 tokens, when it is installed.
pub(crate) fn windowed_model() -> Option<PathBuf> {
    test_model("gemma-3-270m-q4_k_m.gguf")
}

/// A small chat model that knows tool calls, when it is installed.
pub(crate) fn tools_model() -> Option<PathBuf> {
    test_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
}

/// The folder of the embedding model, when it is installed.
pub(crate) fn embedding_folder() -> Option<PathBuf> {
    Some(test_model("all-MiniLM-L6-v2/model.safetensors")?.parent()?.to_owned())
}

fn test_model(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from);
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ingle/test-models"));
    let path = folder.or_else(cache)?.join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: {name} is not installed; `make test` does that");
    None
}

/// A models folder with links to these test models, when all of them are installed.
pub(crate) fn test_folder(names: &[&str]) -> Option<tempfile::TempDir> {
    let installed = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from);
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ingle/test-models"));
    let installed = installed.or_else(cache)?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in names {
        let Ok(original) = installed.join(name).canonicalize() else {
            eprintln!("skipped: {name} is not installed; `make test` does that");
            return None;
        };
        std::os::unix::fs::symlink(original, folder.path().join(name)).expect("a link");
    }
    Some(folder)
}

/// A models folder with the chat model in it, as `small.gguf`.
pub(crate) fn models_folder(model: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = model.canonicalize().expect("the model exists");
    std::os::unix::fs::symlink(original, folder.path().join("small.gguf")).expect("a link");
    folder
}

/// The program, without the variables of whoever runs the tests.
pub(crate) fn ingle(arguments: &[&str]) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_ingle")), arguments)
}

/// Another file with the same care.
pub(crate) fn program(file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(file);
    command.args(arguments).env_clear();
    for name in ["HOME", "PATH", "LD_LIBRARY_PATH"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end with a text on standard input.
pub(crate) fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_owned();
    // A program that ends early closes the pipe; what it says about that is what the test looks at.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer ends");
    output
}

/// Standard output of a run that must succeed.
pub(crate) fn stdout_of(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Standard error of a run that must fail with this status.
pub(crate) fn failure_of(mut command: Command, status: i32) -> String {
    let output = command.output().expect("the program starts");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{command:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
    error
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// A running server; it is killed when the test ends.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
}

impl Server {
    /// Starts `ingle run` on a free port and waits until it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.args(["--address", "127.0.0.1:0", "--log-format", "json"]).spawn().expect("the program starts");
        let (sender, lines) = mpsc::channel();
        for stream in [
            Box::new(child.stdout.take().expect("stdout is a pipe")) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().expect("stderr is a pipe")),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(stream).lines().map_while(Result::ok);
                lines.for_each(|line| drop(sender.send(line)));
            });
        }
        let mut server = Self { child, lines, url: String::new() };
        let listening = server.line_with("\"listening\"");
        let record: serde_json::Value = serde_json::from_str(&listening).expect("log lines are JSON");
        server.url = format!("http://{}", record["address"].as_str().expect("the address is logged"));
        server
    }

    /// The next line of output that holds `part`.
    pub(crate) fn line_with(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line with {part:?} ({error}); there were: {seen:#?}"),
            }
        }
    }

    /// Waits until the models named on the command line are loaded.
    pub(crate) fn wait_until_ready(&self) {
        self.line_with("\"ready\"");
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill starts");
        assert!(status.success(), "no signal could be sent");
    }

    /// Waits for the end; the exit status.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("the program ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
