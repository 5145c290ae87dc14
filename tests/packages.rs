//! What packages and images promise: the root file system, the health check, the supervisor's socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::http;
use crate::support::{Server, chat_model, failure_of, ingle, models_folder, program, stdout_of};

/// The CPU image is no larger.
const MOST_MIB: u64 = 150;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder such as `scripts/dist.sh` makes: its own where `INGLE_DIST` names one, else the program under test, whose
/// backends are linked in.
fn dist(scratch: &Path) -> PathBuf {
    if let Some(folder) = std::env::var_os("INGLE_DIST") {
        return folder.into();
    }
    let folder = scratch.join("dist");
    std::fs::create_dir_all(folder.join("bin")).expect("a folder");
    std::fs::copy(env!("CARGO_BIN_EXE_ingle"), folder.join("bin/ingle")).expect("the program is copied");
    folder
}

/// A command in a root file system of its own, with processes and mounts of its own; `None`, with a word, where this
/// machine does not allow that.
fn in_root(root: &Path, arguments: &[&str]) -> Option<Command> {
    // The shell stays, as the first process of its namespace: it is killed with `unshare`, and everything in there with
    // it. A program that changes its user would be left over.
    let mount = "mount -t proc proc $0/proc && chroot $USERSPEC $0 \"$@\"; exit $?";
    let is_root = stdout_of(program(Path::new("id"), &["-u"])).trim() == "0";
    let make = |arguments: &[&str]| {
        let mut flags = vec!["--mount", "--pid", "--fork", "--kill-child"];
        if !is_root {
            flags.extend(["--user", "--map-root-user"]);
        }
        let root = root.to_str().expect("a path of ASCII");
        flags.extend(["sh", "-c", mount, root]);
        let mut command = program(Path::new("unshare"), &flags);
        command.args(arguments).env("USERSPEC", if is_root { "--userspec=10001:10001" } else { "" });
        // As in the image.
        for (name, value) in
            [("HOME", "/var/lib/ingle"), ("LOCALAI_MODELS_PATH", "/models"), ("XDG_CACHE_HOME", "/models/.cache")]
        {
            command.env(name, value);
        }
        command
    };
    let probe = make(&["/usr/local/bin/ingle", "version"]).output();
    match probe {
        Ok(output) if output.status.success() => Some(make(arguments)),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            // What the program itself says is a fault of the image.
            assert!(!reason.contains("ingle"), "{reason}");
            eprintln!("skipped: no root file system of its own here: {reason}");
            None
        }
        Err(error) => {
            eprintln!("skipped: unshare is not here: {error}");
            None
        }
    }
}

#[test]
fn the_root_file_system_of_the_image_answers() {
    let Some(model) = chat_model() else { return };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let root = scratch.path().join("root");
    let script = repository().join("scripts/rootfs.sh");
    let mib = stdout_of(program(&script, &[dist(scratch.path()).to_str().unwrap(), root.to_str().unwrap()]));
    let mib: u64 = mib.trim().parse().expect("the script prints the size");
    println!("the root file system has {mib} MiB");
    assert!(mib <= MOST_MIB, "{mib} MiB are more than {MOST_MIB}");
    for place in ["usr/local/bin/local-ai", "etc/passwd", "models", "tmp"] {
        assert!(root.join(place).exists(), "{place} is missing");
    }
    std::fs::copy(model, root.join("models/small.gguf")).expect("the model is copied");
    let Some(command) = in_root(&root, &["/usr/local/bin/local-ai", "run", "small"]) else { return };
    let server = Server::start(command);
    server.wait_until_ready();
    let asked = json!({"model": "small", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0});
    let (status, answer) = http::post(&format!("{}/v1/completions", server.url), asked.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().expect("text");
    assert!(text.contains("Paris"), "{text:?}");
    let (_, system) = http::get(&format!("{}/system", server.url));
    assert!(!system.contains("cannot be read"), "{system}");
}

/// What `scripts/dist.sh` makes takes too long to make for every run of the tests.
#[test]
fn a_program_with_plug_ins_takes_the_best_of_its_own_and_no_other() {
    let (Some(folder), Some(model)) = (std::env::var_os("INGLE_DIST").map(PathBuf::from), chat_model()) else {
        eprintln!("skipped: INGLE_DIST names no folder of scripts/dist.sh");
        return;
    };
    let started = |arguments: &[&str], backends: &Path| {
        let mut command = program(&folder.join("bin/ingle"), arguments);
        command.env("INGLE_BACKENDS_PATH", backends).args(["--log-level", "debug"]);
        command
    };
    let model = model.to_str().expect("a path of ASCII");
    let bench = ["bench", "offline", model, "--prompt", "8", "--answer", "4", "--repeats", "1"];
    let chosen = |backends: &Path| {
        let output = started(&bench, backends).output().expect("the program starts");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        assert!(log.contains("the plug-in takes this program's operations"), "{log}");
        let devices = stdout_of(started(&["devices"], backends));
        let file = devices.lines().find_map(|line| line.strip_prefix("computes with "));
        file.unwrap_or_else(|| panic!("{devices}")).to_owned()
    };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let copies = scratch.path().join("copies");
    std::fs::create_dir(&copies).expect("a folder");
    for entry in std::fs::read_dir(folder.join("lib/ingle")).expect("plug-ins").flatten() {
        std::fs::copy(entry.path(), copies.join(entry.file_name())).expect("a copy");
    }
    let best = chosen(&copies);
    println!("this processor gets {best}");
    std::fs::remove_file(copies.join(&best)).expect("it is there");
    let second = chosen(&copies);
    println!("without it, {second}");
    assert!(second.starts_with("libggml-cpu-") && second != best, "{second}");
    // Something else under the name of a plug-in, and nothing at all.
    let (other, none) = (scratch.path().join("other"), scratch.path().join("none"));
    for folder in [&other, &none] {
        std::fs::create_dir(folder).expect("a folder");
    }
    std::fs::copy(folder.join("lib/ingle/libllama.so.0"), other.join("libggml-cpu-best.so")).expect("a copy");
    let error = failure_of(started(&bench, &other), 1);
    assert!(error.contains("libggml-cpu-best.so: "), "{error}");
    let error = failure_of(started(&bench, &none), 1);
    assert!(error.contains(&format!("no ggml backend for the CPU could be loaded from {}", none.display())), "{error}");
}

#[test]
fn a_models_folder_of_another_user_is_explained_before_anything_is_downloaded() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let allow = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let (models, copy) = (scratch.path().join("models"), scratch.path().join("ingle"));
    std::fs::create_dir(&models).expect("a folder");
    std::fs::copy(env!("CARGO_BIN_EXE_ingle"), &copy).expect("the program is copied");
    allow(scratch.path(), 0o755);
    allow(&models, 0o555);
    let models = models.to_str().expect("a path of ASCII");
    let run = ["run", "smollm2-135m-instruct", "--models-path", models, "--address", "127.0.0.1:0"];
    // Root may write everywhere, so there the program is started as the image's user.
    let user = stdout_of(program(Path::new("id"), &["-u"])).trim().to_owned();
    let (mut command, as_user) = match user.as_str() {
        "0" => (program(Path::new("chroot"), &["--userspec=10001:10001", "/"]), "10001"),
        user => (program(Path::new("env"), &[]), user),
    };
    command.arg(&copy).args(run).env("INGLE_CACHE", scratch.path().join("cache"));
    let error = failure_of(command, 1);
    allow(Path::new(models), 0o755);
    let sentence = error.lines().last().unwrap_or_default();
    let says = format!("models folder {models}, which belongs to user {user} and cannot be written by user {as_user}");
    assert!(sentence.contains(&says), "{error}");
    assert!(sentence.contains(&format!("chown -R {as_user}")), "{error}");
    assert!(sentence.contains(&format!("RUN_AS={user}:{user}")), "{error}");
}

#[test]
fn health_is_an_exit_status() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let server = Server::start(ingle(&["run", "small", "--models-path", folder.path().to_str().unwrap()]));
    server.wait_until_ready();
    let address = server.url.trim_start_matches("http://");
    assert_eq!(stdout_of(ingle(&["health", "--address", address])), "");
    drop(server);
    let error = failure_of(ingle(&["health", "--address", "127.0.0.1:1", "--timeout", "2s"]), 1);
    assert!(error.contains("no server answers at http://127.0.0.1:1"), "{error}");
}

/// What systemd does with `ingle.socket`: opens the port, hands it over as file 3, and waits for a word.
const SUPERVISOR: &str = "
import os, socket, sys
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen()
open(sys.argv[1], 'w').write(str(listening.getsockname()[1]))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_supervisor_s_socket_is_taken_and_told() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let socket_path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&socket_path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let models = scratch.path().join("models");
    let port = scratch.path().join("port");
    let run = [
        "-c",
        SUPERVISOR,
        port.to_str().unwrap(),
        env!("CARGO_BIN_EXE_ingle"),
        "run",
        "--models-path",
        models.to_str().unwrap(),
    ];
    let mut command = program(Path::new("python3"), &run);
    command.env("NOTIFY_SOCKET", &socket_path);
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no python3 plays the supervisor here");
        return;
    }
    let server = Server::start(command);
    // The address on the command line is not used.
    let port = std::fs::read_to_string(port).expect("the supervisor has a port");
    assert_eq!(server.url, format!("http://127.0.0.1:{port}"));
    let mut word = [0; 64];
    let length = socket.recv(&mut word).expect("the supervisor is told");
    assert!(word[..length].starts_with(b"READY=1"), "{:?}", String::from_utf8_lossy(&word[..length]));
    assert_eq!(http::get(&format!("{}/healthz", server.url)).0, 200);
}
