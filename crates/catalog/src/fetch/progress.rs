//! What the person who waits is told.

use super::Verification;
use crate::CatalogError;
use std::time::Duration;

/// Receives events while files are fetched; called from the fetching thread, so it should be quick.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn on(&self, event: &Event<'_>);

    /// Whether to stop; asked between two blocks. What has arrived is kept.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Something that happened while fetching.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process fetches the same file; we wait for it.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// One of several files was chosen.
    Chosen {
        /// The file.
        file: &'a str,
        /// Why this one.
        reason: &'a str,
    },
    /// Bytes begin to arrive.
    Started {
        /// The file.
        file: &'a str,
        /// The source.
        source: &'a str,
        /// Bytes there from an earlier try.
        have_bytes: u64,
        /// Bytes of the whole file, where known.
        total_bytes: Option<u64>,
    },
    /// Bytes have arrived.
    Advanced {
        /// The file.
        file: &'a str,
        /// Bytes there.
        have_bytes: u64,
        /// Bytes of the whole file, where known.
        total_bytes: Option<u64>,
    },
    /// `pip download` was started.
    RunningPip {
        /// Space separated.
        packages: &'a str,
    },
    /// The same source is tried again after a pause.
    Retrying {
        /// The file.
        file: &'a str,
        /// Why.
        error: &'a CatalogError,
        /// How long we wait.
        wait: Duration,
    },
    /// A source did not work; the next one is tried.
    SourceFailed {
        /// The source.
        source: &'a str,
        /// Why.
        error: &'a CatalogError,
    },
    /// The sha256 is being computed.
    Verifying {
        /// The file.
        file: &'a str,
    },
    /// The file is complete and has its name.
    Finished {
        /// The file.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// How sure we are of it.
        verification: &'a Verification,
    },
}

/// Nobody waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn on(&self, _event: &Event<'_>) {}
}
