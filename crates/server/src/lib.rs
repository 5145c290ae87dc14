//! Speaks HTTP: OpenAI's and LocalAI's dialects over `ingle_runtime`.
//!
//! The crate turns requests into the runtime's words and its events into JSON and event streams. It decides nothing
//! about models or sampling. Listener and shutdown come from the caller, so a program or a test chooses the port, the
//! signals and the end.
#![forbid(unsafe_code)]

mod body;
mod error;
mod layers;
mod lifecycle;
mod metrics;
mod options;
mod serve;
mod sse;
mod state;

pub use error::ApiError;
pub use options::{Cors, ServerOptions};
pub use serve::serve;
pub use state::ServerState;

/// The router.
pub fn router(state: ServerState) -> axum::Router {
    axum::Router::new().with_state(state)
}
