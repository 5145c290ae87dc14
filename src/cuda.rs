//! How `ingle` becomes `ingle-cuda`.
//!
//! candle built for CUDA links the driver's library, so such a program cannot even start on a machine without a driver.
//! There are two programs of one source therefore: this one asks NVML, and where a driver and a GPU answer and the other
//! lies beside it, it becomes the other by exec: the same process, arguments, files and environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ingle::hardware::{self, DeviceKind};

/// The other program's name.
const NAME: &str = "ingle-cuda";
/// `0` keeps the program as it is.
const VARIABLE: &str = "INGLE_CUDA";
/// Set for the program that this one has become: whatever lies there as `ingle-cuda`, it is started once. A wrapper around
/// this program would go round for ever.
const STARTED: &str = "INGLE_CUDA_STARTED";
/// How CUDA counts GPUs.
const ORDER: &str = "CUDA_DEVICE_ORDER";
/// How long the other program may take to say its version; it starts in some milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Becomes the program for CUDA where there is one that runs here. Returns only when this program goes on itself, with
/// a sentence for the log when that is worth one.
pub(crate) fn become_cuda_program() -> Option<String> {
    if std::env::var_os(STARTED).is_some() {
        return None;
    }
    let other = beside_this_program()?;
    if std::env::var(VARIABLE).is_ok_and(|value| matches!(value.as_str(), "0" | "false" | "no" | "off")) {
        return Some(format!("{VARIABLE} says to stay on the CPU: {NAME} is not started"));
    }
    // Only now is the driver asked: it takes some tens of milliseconds.
    if !hardware::detect().gpus().any(|gpu| gpu.kind == DeviceKind::Cuda) {
        return None;
    }
    match version_of(&other) {
        Ok(version) if version == env!("CARGO_PKG_VERSION") => Some(start(&other)),
        Ok(version) => Some(format!(
            "{} is of version {version} and this program of {}: it is not started; install both of one version",
            other.display(),
            env!("CARGO_PKG_VERSION")
        )),
        Err(reason) => Some(format!("{} does not run here, so candle computes on the CPU: {reason}", other.display())),
    }
}

/// `ingle-cuda` in the folder of this program, links resolved; `None` where there is none, in that program itself, and
/// where it is a link to this one.
fn beside_this_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    let other = program.with_file_name(NAME);
    let target = other.canonicalize().ok()?;
    (target != program && target.is_file()).then_some(other)
}

/// What it answers to `version`. The loader ends a program whose libraries are missing before anything of it runs, so
/// this is tried in a process of its own: afterwards there is no way back.
fn version_of(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("version").env(VARIABLE, "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                // It may be gone by now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it does not answer within {} s", PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.lines().next().unwrap_or("it ends with an error").to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let word = text.lines().next().and_then(|line| line.split_whitespace().nth(1));
    word.map(str::to_owned).ok_or_else(|| "it does not tell its version".to_owned())
}

/// Returns only when that fails.
#[cfg(unix)]
fn start(program: &Path) -> String {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    // The name by which it was called decides about the command line it takes.
    command.arg0(arguments.next().unwrap_or_else(|| "ingle".into())).args(arguments).env(STARTED, "1");
    // GPUs are counted as NVML counts them; CUDA by itself begins with the fastest.
    if std::env::var_os(ORDER).is_none() {
        command.env(ORDER, "PCI_BUS_ID");
    }
    format!("{} could not be started: {}", program.display(), command.exec())
}

#[cfg(not(unix))]
fn start(program: &Path) -> String {
    format!("{} is not started: this system has no exec", program.display())
}
