//! Compiles the C++ function that keeps exceptions out of Rust, and tells the crate from which sources plug-ins must be.

fn main() {
    println!("cargo:rerun-if-changed=src/guard.cpp");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let manifest = std::fs::read_to_string("Cargo.toml").expect("cargo runs this beside the manifest");
    println!("cargo:rustc-env=INGLE_GGML_STAMP={}", stamp(&manifest));
    cc::Build::new().cpp(true).std("c++17").warnings(true).file("src/guard.cpp").compile("ingle_llama_guard");
}

/// The version of llama-cpp-sys-2 that the manifest pins, as it stands in symbols: `0_1_161`.
fn stamp(manifest: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with("llama-cpp-sys-2")).expect("it is a dependency");
    let (_, rest) = line.split_once("\"=").expect("it is pinned");
    let (version, _) = rest.split_once('"').expect("a version ends");
    version.replace('.', "_")
}
