//! What becomes of a GPU: a driver that is compiled here stands in for NVIDIA's.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::http;
use crate::support::{Server, chat_model, failure_of, program, stdout_of};

/// A folder with `bin/ingle` and a driver that knows one GPU of 24 GiB.
struct Machine(tempfile::TempDir);

/// NVIDIA's management library, as far as it is asked.
const DRIVER: &str = r#"
#include <string.h>
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct rates { unsigned gpu, memory; };
int nvmlInit_v2(void) { return RESULT; }
int nvmlInitWithFlags(unsigned flags) { return RESULT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "570.1", size); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12080; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = device; return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "Testing RTX", size); return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 24ULL << 30; memory->free = 23ULL << 30; memory->used = 1ULL << 30; return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 8; *minor = 9; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, struct rates *rates) { rates->gpu = 7; rates->memory = 1; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *power) { *power = 90000; return 0; }
"#;

impl Machine {
    /// `None`, with a word, where no C compiler is.
    fn new() -> Option<Self> {
        let machine = Self(tempfile::tempdir().expect("a temporary folder"));
        for folder in ["bin", "driver", "broken"] {
            std::fs::create_dir(machine.0.path().join(folder)).expect("a folder");
        }
        std::fs::copy(env!("CARGO_BIN_EXE_ingle"), machine.program()).expect("the program is copied");
        let source = machine.0.path().join("driver.c");
        std::fs::write(&source, DRIVER).expect("a file");
        // 15 is "the GPU is lost".
        for (folder, result) in [("driver", "0"), ("broken", "15")] {
            let library = machine.0.path().join(folder).join("libnvidia-ml.so.1");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-w", &format!("-DRESULT={result}"), "-o"]).arg(library).arg(&source);
            if !compiler.status().is_ok_and(|status| status.success()) {
                eprintln!("skipped: no C compiler makes a driver here");
                return None;
            }
        }
        Some(machine)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("bin/ingle")
    }

    /// The program on a machine with this driver; `""` is none.
    fn ingle(&self, driver: &str, arguments: &[&str]) -> Command {
        let mut command = program(&self.program(), arguments);
        if !driver.is_empty() {
            command.env("LD_LIBRARY_PATH", self.0.path().join(driver));
        }
        command
    }

    /// What lies beside the program as `ingle-cuda`.
    fn put_cuda_program(&self, script: &str) {
        let path = self.0.path().join("bin/ingle-cuda");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    }
}

fn devices(command: Command) -> serde_json::Value {
    serde_json::from_str(&stdout_of(command)).expect("it is JSON")
}

#[test]
fn a_gpu_is_seen_and_the_program_says_that_it_cannot_use_it() {
    let Some(machine) = Machine::new() else { return };
    let found = devices(machine.ingle("driver", &["devices", "--json"]));
    let gpu = found["devices"].as_array().and_then(|devices| devices.iter().find(|device| device["kind"] == "cuda"));
    let gpu = gpu.expect("the driver knows one");
    assert_eq!((&gpu["name"], &gpu["compute_capability"]), (&"Testing RTX".into(), &"8.9".into()));
    assert_eq!((&gpu["utilization_percent"], &gpu["power_watts"]), (&7.into(), &90.0.into()));
    assert_eq!((&found["driver_version"], &found["cuda_version"]), (&"570.1".into(), &"12.8".into()));
    if cfg!(any(feature = "cuda", feature = "plugins")) {
        return;
    }
    assert_eq!(gpu["used"], false);
    let notes = found["notes"].to_string();
    assert!(notes.contains("Testing RTX is here") && notes.contains("running on the CPU"), "{notes}");
    let text = stdout_of(machine.ingle("driver", &["devices"]));
    assert!(text.contains("cuda0") && text.contains("7 %") && text.contains("90 W"), "{text}");
    let broken = devices(machine.ingle("broken", &["devices", "--json"]))["notes"].to_string();
    assert!(broken.contains("does not answer"), "{broken}");
    let models = machine.0.path().join("models");
    let models = models.to_str().expect("a path of ASCII");
    let run = ["run", "--require-gpu", "--address", "127.0.0.1:0", "--models-path", models];
    let error = failure_of(machine.ingle("driver", &run), 1);
    assert!(error.contains("--require-gpu") && error.contains("Testing RTX is here"), "{error}");
}

#[test]
fn with_a_driver_it_becomes_the_program_for_cuda() {
    let Some(machine) = Machine::new() else { return };
    let version = env!("CARGO_PKG_VERSION");
    let answers = |version: &str| {
        format!("[ \"$1\" = version ] && echo 'ingle {version}' && exit\necho \"cuda program, $$, $*, $SOME\"")
    };
    machine.put_cuda_program(&answers(version));
    let mut command = machine.ingle("driver", &["devices", "--json"]);
    command.env("SOME", "kept");
    let child = command.spawn().expect("it starts");
    let id = child.id();
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), format!("cuda program, {id}, devices --json, kept"), "the same process goes on");

    let stays = |machine: &Machine, driver: &str, variable: &str| {
        let mut command = machine.ingle(driver, &["devices", "--json"]);
        command.env("INGLE_CUDA", variable);
        let output = command.output().expect("it starts");
        assert!(output.stdout.starts_with(b"{"), "it went on itself");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(stays(&machine, "", ""), "", "no driver");
    assert_eq!(stays(&machine, "broken", ""), "", "a driver that does not answer");
    assert!(stays(&machine, "driver", "0").contains("INGLE_CUDA says"));
    machine.put_cuda_program(&answers("0.0.1"));
    assert!(stays(&machine, "driver", "").contains("is of version 0.0.1"));
    machine.put_cuda_program("echo 'libcuda.so.1: cannot open shared object file' >&2; exit 127");
    let note = stays(&machine, "driver", "");
    assert!(note.contains("does not run here") && note.contains("libcuda.so.1"), "{note}");
}

#[test]
fn a_program_for_cuda_that_leads_back_is_started_once() {
    let Some(machine) = Machine::new() else { return };
    let goes_on = |what: &str| {
        let found = devices(machine.ingle("driver", &["devices", "--json"]));
        assert!(found["devices"].is_array(), "{what}");
    };
    machine.put_cuda_program("exec \"$(dirname \"$0\")/ingle\" \"$@\"");
    goes_on("a wrapper");
    let path = machine.0.path().join("bin/ingle-cuda");
    std::fs::remove_file(&path).expect("it is there");
    std::os::unix::fs::symlink("ingle", &path).expect("a link");
    goes_on("a link");
}

#[test]
fn a_model_on_the_cpu_although_a_gpu_is_here_is_told() {
    let (Some(model), Some(machine)) = (chat_model(), Machine::new()) else { return };
    if cfg!(any(feature = "cuda", feature = "plugins")) {
        return;
    }
    let folder = crate::support::models_folder(&model);
    let models = folder.path().to_str().expect("a path of ASCII");
    let server = Server::start(machine.ingle("driver", &["run", "small", "--models-path", models]));
    let line = server.line_with("although a GPU is here");
    assert!(line.contains("Testing RTX") && line.contains("no backend for it"), "{line}");
    server.wait_until_ready();
    let (_, system) = http::get(&format!("{}/system", server.url));
    let system: serde_json::Value = serde_json::from_str(&system).expect("it is JSON");
    let placement = system["loaded_models"][0]["placement"].as_str().expect("it is told").to_owned();
    assert!(placement.starts_with("CPU (Testing RTX is not used"), "{placement}");
}

/// A server that may not take more than this address space, as a shell counts it.
fn limited(kib: u64, arguments: &[&str]) -> Command {
    let mut command = program(Path::new("/bin/sh"), &["-c", "ulimit -v $1; shift; exec \"$@\"", "sh"]);
    command.arg(kib.to_string()).arg(env!("CARGO_BIN_EXE_ingle")).args(arguments);
    // glibc sets 64 MiB of address space aside for each thread that allocates.
    command.env("MALLOC_ARENA_MAX", "2");
    command
}

#[test]
fn an_allocation_that_fails_costs_that_load_only() {
    let Some(model) = chat_model() else { return };
    let folder = crate::support::models_folder(&model);
    // 4.3 GiB of cache, where 3 may be had: reserved address space is what fails, however much memory there is.
    let yaml = "name: greedy\ncontext_size: 200000\nparameters: {model: small.gguf}\n";
    std::fs::write(folder.path().join("greedy.yaml"), yaml).expect("a file");
    let models = folder.path().to_str().expect("a path of ASCII");
    let server = Server::start(limited(3 << 20, &["run", "small", "--models-path", models, "--context-size", "2048"]));
    server.wait_until_ready();
    let ask = |model: &str| {
        let body =
            serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
        http::post(&format!("{}/v1/chat/completions", server.url), body.to_string().as_bytes())
    };
    assert_eq!(ask("small").0, 200);
    let (status, refused) = ask("greedy");
    let message = refused["error"]["message"].to_string();
    assert!(matches!(status, 400 | 503), "{message}");
    assert!(message.contains("memory") || message.contains("MiB"), "{message}");
    assert_eq!(ask("small").0, 200, "the other engine goes on");
}
