//! Ingle as a library: AI models inside your own process, without HTTP and without an async runtime of its own.
//!
//! This crate is wiring: it hands the llama.cpp backend and this machine's hardware to [`ingle_runtime`], whose words it
//! re-exports. [`ChatModel`] loads one file and talks to it; [`open`] gives a [`Runtime`] over a folder of models, with
//! every capability as an async call that any executor can drive. It makes no decision that another crate could want.
//!
//! ```no_run
//! # fn main() -> Result<(), ingle::RuntimeError> {
//! let mut chat = ingle::chat_model("model.gguf")?;
//! for event in chat.ask("Why is the sky blue?")? {
//!     if let ingle::ChatEvent::Content(text) = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod chat;
mod setup;

pub use chat::{ChatAnswer, ChatModel, chat_model};
pub use ingle_runtime::*;
pub use setup::{Setup, backends, compute_backends, gpu_interfaces, hardware_in_use, open};

#[cfg(feature = "server")]
pub use ingle_server as server;
