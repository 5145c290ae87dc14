//! Runs models that are not GGUF in Rust: embeddings and rerankers from safetensors, speech.
//!
//! Weights are read by this crate, tensor by tensor; the forward pass is its own. It holds no policy: what is in memory,
//! and for whom, is the runtime's business.
#![forbid(unsafe_code)]

mod backend;
mod device;
mod embed;
pub mod speech;
mod weights;

pub use backend::CandleBackend;

/// Can models of this crate be computed on NVIDIA GPUs in this program?
pub const HAS_CUDA: bool = cfg!(feature = "cuda");
