//! Downloads as people see them: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ingle::catalog::{Event, Progress};

use crate::output::bytes;

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows downloads on standard error, and stops them when asked to.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    /// What is on the screen; under a lock because progress is told through a shared reference.
    shown: Mutex<Shown>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Shown {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Downloads {
    /// Downloads that end when `stop` becomes true.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        Self { shown: Mutex::default(), stop }
    }
}

impl Progress for Downloads {
    fn on(&self, event: &Event<'_>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { file, source, have_bytes, total_bytes } => {
                shown.say(&started(file, source, *have_bytes, *total_bytes));
                shown.begin(*have_bytes, *total_bytes);
            }
            Event::Advanced { file, have_bytes, total_bytes } => shown.advance(file, *have_bytes, *total_bytes),
            Event::Waiting { file } => {
                shown.say(&format!("{file} is being fetched by another process; waiting for it"))
            }
            Event::Chosen { file, reason } => shown.say(&format!("{file}: {reason}")),
            Event::RunningPip { packages } => shown.say(&format!("running pip download {packages}")),
            Event::Retrying { file, error, wait } => {
                shown.say(&format!("{file}: {error}; trying again in {} s", wait.as_secs()));
            }
            Event::SourceFailed { source, error } => shown.say(&format!("{source} does not work: {error}")),
            Event::Verifying { file } => shown.say(&format!("checking {file}")),
            Event::Finished { file, bytes: n_bytes, verification } => {
                shown.end();
                let verified = format!("{verification:?}").to_lowercase();
                shown.say(&format!("{file} is complete: {}, sha256 {verified}", bytes(*n_bytes)));
            }
            other => tracing::debug!(?other, "download"),
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn started(file: &str, source: &str, have_bytes: u64, total_bytes: Option<u64>) -> String {
    let total = total_bytes.map_or_else(String::new, |total| format!(" ({})", bytes(total)));
    let resumed = if have_bytes > 0 { format!(", going on at {}", bytes(have_bytes)) } else { String::new() };
    format!("fetching {file}{total} from {source}{resumed}")
}

impl Shown {
    fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn begin(&mut self, have_bytes: u64, total_bytes: Option<u64>) {
        self.end();
        self.last_line = Some(Instant::now());
        if !std::io::stderr().is_terminal() {
            return;
        }
        let (bar, form) = match total_bytes {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
        };
        let style = ProgressStyle::with_template(form).expect("the form is a constant; this is a bug");
        let bar = bar.with_style(style);
        bar.set_position(have_bytes);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self, file: &str, have_bytes: u64, total_bytes: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_position(have_bytes);
            return;
        }
        if self.last_line.is_some_and(|last| last.elapsed() < LINE_INTERVAL) {
            return;
        }
        self.last_line = Some(Instant::now());
        let total = total_bytes.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
        self.say(&format!("{file}: {}{total}", bytes(have_bytes)));
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
