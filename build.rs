//! Tells the program from which commit it is built, for reports of `ingle bench` (without git it is built all the same),
//! and has the linker lead ggml's question before each operation to `ingle_llama` (see its `operations.cpp`).

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if is_linux && has("LLAMA") && !has("PLUGINS") {
        println!("cargo:rustc-link-arg=-Wl,--wrap=ggml_cpu_extra_compute_forward,--wrap=ggml_cpu_extra_work_size");
    }
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=INGLE_COMMIT={commit}");
    }
}
