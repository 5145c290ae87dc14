//! GGUF models through llama.cpp: the project's whole FFI.
//!
//! [`LlamaBackend`] validates a file's header in Rust, decides all sizes ([`ingle_gguf`] arithmetic over options and
//! hardware), and loads it. [`LlamaDecoder`] is a thin owner of a llama.cpp context over `llama-cpp-sys-2`, because
//! llama-cpp-2 hides what batching needs: threads, outputs, sequences. It holds no policy: scheduling, sampling and
//! prefix reuse live in `ingle_engine`.
//!
//! C++ is kept from taking the process down in three ways. Whatever makes llama.cpp abort is refused before the call;
//! exceptions end in a small C++ guard and become errors; and an abort parks the thread it happened on and kills that
//! one engine (see the `fault` module), so that the process and the other engines live on.
#![allow(unsafe_code)]

mod backend;
mod decoder;
mod draft;
mod encoder;
mod encoders;
mod exit;
mod fault;
mod ffi;
mod fit;
mod header;
mod log;
mod lora;
mod model;
mod operations;
mod partition;
mod peer;
mod placement;
mod plan;
mod plugins;
mod pool;
mod process;
mod texts;
mod tokenizer;

pub use backend::{LlamaBackend, LoadedModel};
pub use decoder::LlamaDecoder;
pub use operations::use_own_operations;
pub use peer::{PeerGrammar, PeerVocabulary};
pub use plugins::{LoadedPlugin, PluginReport, RefusedPlugin, plugin_report};
pub use process::{gpu_registries, initialise_with};
pub use tokenizer::LlamaTokenizer;
