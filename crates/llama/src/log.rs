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
    /// Warnings and errors of this thread while somebody wants to know, see [`capture`].
    captured: Option<Vec<String>>,
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
        let is_complaint = self.level == sys::GGML_LOG_LEVEL_ERROR;
        if let Some(captured) = self.captured.as_mut().filter(|_| is_complaint) {
            captured.push(text.to_owned());
        }
    }
}

/// Runs `function` and returns what llama.cpp logged as errors on this thread meanwhile.
pub(crate) fn capture<R>(function: impl FnOnce() -> R) -> (R, String) {
    LINE.with(|line| line.borrow_mut().captured = Some(Vec::new()));
    let result = function();
    let lines = LINE.with(|line| line.borrow_mut().captured.take()).unwrap_or_default();
    (result, lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_and_errors_are_captured() {
        let ((), errors) = capture(|| {
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
        assert_eq!(errors, "first half; second line");
    }
}
