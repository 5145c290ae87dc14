//! llama.cpp's log, line by line into `tracing`.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use crate::ffi::sys;

/// Longest line kept; a longer one is cut.
const MAX_LINE: usize = 4096;

#[derive(Default)]
struct Line {
    level: sys::ggml_log_level,
    text: String,
    /// What this thread is told while somebody wants to know, see [`capture`].
    captured: Option<Captured>,
    /// The latest error of a device on this thread, such as `CUDA error: unspecified launch failure`.
    device_error: Option<String>,
}

/// What llama.cpp said in the course of a call.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    complaints: Vec<String>,
    /// What it has allocated.
    pub(crate) buffers: Vec<Buffer>,
}

impl Captured {
    /// The errors, in order.
    pub(crate) fn complaints(&self) -> String {
        self.complaints.join("; ")
    }
}

/// A buffer that llama.cpp has allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buffer {
    /// Such as `CUDA0`, or `CPU_Mapped` for a file in memory.
    pub device: String,
    pub purpose: Purpose,
    pub n_bytes: u64,
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Weights,
    Cache,
    Compute,
}

impl Buffer {
    /// Reads a line such as `load_tensors:   CPU_Mapped model buffer size =    98.87 MiB`.
    fn from_line(line: &str) -> Option<Self> {
        let (what, size) = line.split_once("buffer size =")?;
        let (_, what) = what.rsplit_once(':')?;
        let mut words = what.split_whitespace();
        let device = words.next()?.to_owned();
        let purpose = match words.next()? {
            "model" => Purpose::Weights,
            "KV" | "RS" => Purpose::Cache,
            _ => Purpose::Compute,
        };
        let mib: f64 = size.split_whitespace().next()?.parse().ok()?;
        Some(Self { device, purpose, n_bytes: (mib.max(0.0) * f64::from(1 << 20)) as u64 })
    }
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// The log callback. llama.cpp writes lines in pieces, the later ones with the level "continued".
pub(crate) unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _data: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends in zero and lives for this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A thread that is being torn down, or a log line inside a log line, has no place to keep pieces.
    let _ = LINE.try_with(|line| {
        if let Ok(mut line) = line.try_borrow_mut() {
            line.push(level, &text);
        }
    });
}

impl Line {
    fn push(&mut self, level: sys::ggml_log_level, text: &str) {
        if level != sys::GGML_LOG_LEVEL_CONT {
            self.level = level;
        }
        for piece in text.split_inclusive('\n') {
            let room = MAX_LINE.saturating_sub(self.text.len());
            self.text.extend(piece.chars().take(room));
            if piece.ends_with('\n') {
                self.emit();
            }
        }
    }

    fn emit(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        match self.level {
            _ if text.chars().all(|c| c == '.') => {}
            sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama_cpp", "{text}"),
            sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama_cpp", "{text}"),
            sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama_cpp", "{text}"),
            _ => tracing::trace!(target: "llama_cpp", "{text}"),
        }
        if self.level == sys::GGML_LOG_LEVEL_ERROR && is_device_error(text) {
            self.device_error = Some(text.to_owned());
        }
        let Some(captured) = self.captured.as_mut() else { return };
        captured.buffers.extend(Buffer::from_line(text));
        if self.level == sys::GGML_LOG_LEVEL_ERROR {
            captured.complaints.push(text.to_owned());
        }
    }
}

/// Does a line begin as those do with which ggml tells what a GPU's interface answered? It aborts right after them.
fn is_device_error(line: &str) -> bool {
    ["CUDA error: ", "ROCm error: ", "MUSA error: "].iter().any(|beginning| line.starts_with(beginning))
}

/// The latest error of a device that this thread was told.
pub(crate) fn device_error() -> Option<String> {
    LINE.try_with(|line| line.try_borrow().ok()?.device_error.clone()).ok().flatten()
}

/// Runs `function` and returns what llama.cpp said on this thread meanwhile.
pub(crate) fn capture<R>(function: impl FnOnce() -> R) -> (R, Captured) {
    LINE.with(|line| line.borrow_mut().captured = Some(Captured::default()));
    let result = function();
    let captured = LINE.with(|line| line.borrow_mut().captured.take()).unwrap_or_default();
    (result, captured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_and_errors_are_captured() {
        let ((), captured) = capture(|| {
            for (level, text) in [
                (sys::GGML_LOG_LEVEL_INFO, c"fine\n"),
                (sys::GGML_LOG_LEVEL_ERROR, c"first "),
                (sys::GGML_LOG_LEVEL_CONT, c"half\nsecond"),
                (sys::GGML_LOG_LEVEL_CONT, c" line\n"),
                (sys::GGML_LOG_LEVEL_WARN, c"only a warning\n"),
            ] {
                // SAFETY: the texts are literals.
                unsafe { on_log(level, text.as_ptr(), std::ptr::null_mut()) };
            }
        });
        assert_eq!(captured.complaints(), "first half; second line");
    }

    #[test]
    fn buffers_are_read_off_their_lines() {
        let read = |line: &str| {
            Buffer::from_line(line).map(|buffer| (buffer.device, buffer.purpose, (buffer.n_bytes * 10) >> 20))
        };
        let cases = [
            (
                "load_tensors:   CPU_Mapped model buffer size =    98.50 MiB",
                Some(("CPU_Mapped", Purpose::Weights, 985)),
            ),
            ("llama_kv_cache:      CUDA0 KV buffer size =   360.00 MiB", Some(("CUDA0", Purpose::Cache, 3600))),
            ("llama_memory_recurrent:  CPU RS buffer size =  1.00 MiB", Some(("CPU", Purpose::Cache, 10))),
            ("llama_context:        CPU  output buffer size =     2.50 MiB", Some(("CPU", Purpose::Compute, 25))),
            ("sched_reserve:        CPU compute buffer size = 96.00 MiB", Some(("CPU", Purpose::Compute, 960))),
            ("llama_context: n_ctx = 4096", None),
            ("x: CPU model buffer size = many MiB", None),
        ];
        for (line, expected) in cases {
            assert_eq!(
                read(line),
                expected.map(|(device, purpose, size)| (device.to_owned(), purpose, size)),
                "{line}"
            );
        }
    }
}
