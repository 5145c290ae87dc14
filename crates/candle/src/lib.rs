//! Runs models that are not GGUF in Rust: embeddings and rerankers from safetensors, speech.
#![forbid(unsafe_code)]
