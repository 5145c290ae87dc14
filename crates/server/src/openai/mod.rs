//! OpenAI's dialect.
mod chat;
mod completions;
mod conversation;
mod drive;
mod edits;
mod embeddings;
mod form;
mod logprobs;
pub(crate) mod models;
mod params;
mod tools;
mod usage;

pub(crate) use chat::chat;
pub(crate) use completions::{completions, engine_completions};
pub(crate) use edits::edits;
pub(crate) use embeddings::{TRUNCATED, beside, embeddings, engine_embeddings};

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use ingle_api::openai::{FinishReason, StreamOptions};
use uuid::Uuid;

/// LocalAI's header that asks for timings in `usage`; any value does.
const EXTRA_USAGE: &str = "extra-usage";

/// What all objects of one answer share.
#[derive(Debug, Clone)]
struct Identity {
    id: String,
    created: u64,
    model: String,
}

impl Identity {
    fn new(prefix: &str, model: &str) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id: format!("{prefix}-{}", Uuid::new_v4().simple()), created, model: model.to_owned() }
    }
}

/// Whether a stream reports what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamUsage {
    /// Not at all.
    Absent,
    /// In a chunk of its own at the end, and as `null` before.
    AtTheEnd,
}

impl From<Option<StreamOptions>> for StreamUsage {
    fn from(options: Option<StreamOptions>) -> Self {
        let wanted = options.and_then(|options| options.include_usage).unwrap_or(false);
        if wanted { Self::AtTheEnd } else { Self::Absent }
    }
}

/// Whether `usage` carries LocalAI's timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// No.
    Absent,
    /// Yes, in milliseconds.
    Included,
}

impl From<&HeaderMap> for Timing {
    fn from(headers: &HeaderMap) -> Self {
        if headers.contains_key(EXTRA_USAGE) { Self::Included } else { Self::Absent }
    }
}

fn finish_reason(reason: ingle_runtime::FinishReason) -> FinishReason {
    match reason {
        ingle_runtime::FinishReason::Stop => FinishReason::Stop,
        ingle_runtime::FinishReason::Length => FinishReason::Length,
    }
}
