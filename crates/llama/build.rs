//! Compiles the C++ function that keeps exceptions out of Rust and the one that ggml asks before each operation, and tells
//! the crate from which sources plug-ins must be.

fn main() {
    println!("cargo:rerun-if-changed=src/guard.cpp");
    println!("cargo:rerun-if-changed=src/operations.cpp");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let manifest = std::fs::read_to_string("Cargo.toml").expect("cargo runs this beside the manifest");
    println!("cargo:rustc-env=INGLE_GGML_STAMP={}", stamp(&manifest));
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(true).file("src/guard.cpp");
    // With plug-ins ggml's processor code is a library of its own: cmake/compiler_fixes.cmake builds it in there.
    if std::env::var_os("CARGO_FEATURE_PLUGINS").is_none() {
        build.file("src/operations.cpp");
        if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
            // For this crate's tests; a program says it in its own build script.
            println!("cargo:rustc-link-arg=-Wl,--wrap=ggml_cpu_extra_compute_forward,--wrap=ggml_cpu_extra_work_size");
        }
    }
    build.compile("ingle_llama_guard");
}

/// The version of llama-cpp-sys-2 that the manifest pins, as it stands in symbols: `0_1_161`.
fn stamp(manifest: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with("llama-cpp-sys-2")).expect("it is a dependency");
    let (_, rest) = line.split_once("\"=").expect("it is pinned");
    let (version, _) = rest.split_once('"').expect("a version ends");
    version.replace('.', "_")
}
