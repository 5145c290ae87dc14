//! What a job has done so far, in LocalAI's words.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use crate::GalleryEntry;
use crate::fetch::Event;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Others go first.
    Waiting,
    /// It works.
    Working,
    /// Bytes arrive.
    Downloading,
    /// Bytes are checked.
    Verifying,
    /// It has ended, well or not.
    Done,
}

/// The state of a job. `processed` is true at its end; then `error` tells whether it failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobStatus {
    /// Does it delete a model?
    pub deletion: bool,
    /// The file that is being fetched.
    pub file_name: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Has it ended?
    pub processed: bool,
    /// For people; `completed` at a good end.
    pub message: String,
    /// 0 to 100.
    pub progress: f64,
    /// Where it is.
    pub phase: Phase,
    /// Bytes of all files that are there.
    pub current_bytes: u64,
    /// Bytes of all files, as far as is known.
    pub total_bytes: u64,
    /// `total_bytes` for people.
    pub file_size: String,
    /// `current_bytes` for people.
    pub downloaded_size: String,
    /// What was asked for.
    pub gallery_element_name: String,
    /// Was it ended by request?
    pub cancelled: bool,
    /// Can it be ended?
    pub cancellable: bool,
    /// Bytes by file: there, and whole.
    #[serde(skip)]
    files: BTreeMap<String, (u64, Option<u64>)>,
    /// When it was last told something.
    #[serde(skip)]
    pub changed: Option<SystemTime>,
}

impl JobStatus {
    pub(super) fn waiting(name: &str, deletion: bool) -> Self {
        Self {
            deletion,
            file_name: String::new(),
            error: None,
            processed: false,
            message: "waiting".into(),
            progress: 0.0,
            phase: Phase::Waiting,
            current_bytes: 0,
            total_bytes: 0,
            file_size: String::new(),
            downloaded_size: String::new(),
            gallery_element_name: name.to_owned(),
            cancelled: false,
            cancellable: true,
            files: BTreeMap::new(),
            changed: None,
        }
    }

    /// What the job is about is known.
    pub(super) fn begin(&mut self, entry: &GalleryEntry) {
        entry.name.clone_into(&mut self.gallery_element_name);
        for file in &entry.files {
            let size = file.sources.first().and_then(|source| source.size);
            self.files.insert(file.filename.clone(), (0, size));
        }
        self.count();
    }

    pub(super) fn note(&mut self, event: &Event<'_>, now: SystemTime) {
        self.changed = Some(now);
        match event {
            Event::Started { file, source, have_bytes, total_bytes } => {
                self.at(Phase::Downloading, file, format!("downloading {file} from {source}"));
                self.has(file, *have_bytes, *total_bytes);
            }
            Event::Advanced { file, have_bytes, total_bytes } => {
                self.phase = Phase::Downloading;
                self.has(file, *have_bytes, *total_bytes);
            }
            Event::Chosen { file, reason } => self.at(self.phase, file, format!("{file}: {reason}")),
            Event::Waiting { file } => self.at(self.phase, file, format!("another process fetches {file}; waiting")),
            Event::RunningPip { packages } => self.message = format!("running pip download {packages}"),
            Event::Retrying { file, error, wait } => {
                self.at(self.phase, file, format!("{error}; trying again in {} s", wait.as_secs()));
            }
            Event::SourceFailed { source, error } => self.message = format!("{source} does not work: {error}"),
            Event::Verifying { file } => self.at(Phase::Verifying, file, format!("checking {file}")),
            Event::Finished { file, bytes, .. } => {
                self.message = format!("{file} is complete");
                self.has(file, *bytes, Some(*bytes));
            }
        }
    }

    fn at(&mut self, phase: Phase, file: &str, message: String) {
        self.phase = phase;
        file.clone_into(&mut self.file_name);
        self.message = message;
    }

    fn has(&mut self, file: &str, bytes: u64, whole: Option<u64>) {
        let known = self.files.entry(file.to_owned()).or_default();
        *known = (bytes, whole.or(known.1));
        self.count();
    }

    fn count(&mut self) {
        self.current_bytes = self.files.values().map(|(bytes, _)| bytes).sum();
        self.total_bytes = self.files.values().map(|(bytes, whole)| whole.unwrap_or(*bytes)).sum();
        self.downloaded_size = readable(self.current_bytes);
        self.file_size = readable(self.total_bytes);
        if self.total_bytes > 0 && !self.processed {
            // 100 is for the end.
            self.progress = (self.current_bytes as f64 / self.total_bytes as f64 * 100.0).min(99.9);
        }
    }

    pub(super) fn end(&mut self, outcome: Result<(), String>) {
        self.processed = true;
        self.cancellable = false;
        self.phase = Phase::Done;
        match outcome {
            Ok(()) => {
                self.progress = 100.0;
                self.message = "completed".into();
            }
            Err(error) => {
                self.message = format!("error: {error}");
                self.error = Some(error);
            }
        }
    }

    pub(super) fn end_cancelled(&mut self) {
        self.end(Err("cancelled".into()));
        self.cancelled = true;
        self.message = "cancelled".into();
    }
}

/// `12.3 MB`, as LocalAI writes sizes.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
