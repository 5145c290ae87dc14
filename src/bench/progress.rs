//! How far a measurement has come: a bar on a terminal, a line for each finished part elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress over a known number of parts, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    n_done: usize,
    n_parts: usize,
}

impl Progress {
    pub(crate) fn new(n_parts: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len}, about {eta} left  {msg}");
            let bar = ProgressBar::new(n_parts as u64);
            bar.set_style(style.expect("the form is a constant; this is a bug"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, begun: Instant::now(), n_done: 0, n_parts }
    }

    /// Says what is being measured.
    pub(crate) fn on(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// A part is done; `result` is what came out, for whoever watches.
    pub(crate) fn done(&mut self, result: &str) {
        self.n_done += 1;
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.suspend(|| eprintln!("{result}"));
            }
            None => {
                let left =
                    self.begun.elapsed().div_f64(self.n_done as f64) * self.n_parts.saturating_sub(self.n_done) as u32;
                eprintln!("[{}/{}, about {} s left] {result}", self.n_done, self.n_parts, left.as_secs());
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
