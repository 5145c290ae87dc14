//! Speaks HTTP: OpenAI's and LocalAI's dialects over [`ingle_runtime`].
//!
//! The crate turns requests into the runtime's words and its events into JSON and event streams. It decides nothing
//! about models or sampling. Listener and shutdown come from the caller, so a program or a test chooses the port, the
//! signals and the end; [`router`] works without a socket at all.
//!
//! Each dialect is a module that converts at its own edge. What all of them share stands in front as layers (keys,
//! request ids, CORS, panics), reads bodies (`body`), writes event streams (`sse`) and turns the runtime's errors into
//! answers (`fault`).
#![forbid(unsafe_code)]

mod aside;
mod audio;
mod backend;
mod body;
mod docs;
mod error;
mod fault;
mod gallery;
mod layers;
mod lifecycle;
mod localai;
mod metrics;
mod openai;
mod options;
mod rerank;
mod router;
mod routes;
mod serve;
mod sse;
mod state;
#[cfg(test)]
mod tests;

pub use error::ApiError;
pub use options::{Cors, Regex, ServerOptions};
pub use router::router;
pub use routes::{Endpoint, all_endpoints as endpoints};
pub use serve::serve;
pub use state::ServerState;
