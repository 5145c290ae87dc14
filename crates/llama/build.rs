//! Compiles the C++ function that keeps exceptions out of Rust.

fn main() {
    println!("cargo:rerun-if-changed=src/guard.cpp");
    cc::Build::new().cpp(true).std("c++17").warnings(true).file("src/guard.cpp").compile("ingle_llama_guard");
}
