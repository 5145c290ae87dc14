//! ggml's backends as plug-ins: found in one fixed folder, loaded once, before llama.cpp is initialised.
//!
//! Builds with the feature `plugins` hold no backend at all. ggml picks the best of the CPU variants in the
//! folder, and takes every other plug-in that loads: CUDA's needs the driver's library, so it loads only where there is
//! a driver.

use std::ffi::CString;
use std::path::PathBuf;

use crate::ffi::sys;

/// Names the folder; for packages that put it elsewhere and for trials.
const FOLDER_VARIABLE: &str = "INGLE_BACKENDS_PATH";

/// Loads what there is. Without the feature the backends are linked in and nothing is done.
pub(crate) fn load() {
    if !cfg!(feature = "plugins") {
        return;
    }
    match folder() {
        // ggml would look beside the program and in the current folder if it were given no path: neither is safe.
        Some(folder) if folder.is_dir() => {
            tracing::debug!(folder = %folder.display(), "loading ggml's backends");
            match CString::new(folder.into_os_string().into_encoded_bytes()) {
                // SAFETY: the string ends in zero and lives until the call returns.
                Ok(path) => unsafe { sys::ggml_backend_load_all_from_path(path.as_ptr()) },
                Err(_) => tracing::error!("the folder of ggml's backends has a zero byte in its path"),
            }
        }
        _ => tracing::error!("{}", missing()),
    }
}

/// What to say when no plug-in could be used.
pub(crate) fn missing() -> String {
    let place = folder().map_or_else(|| "lib/ingle".to_owned(), |folder| folder.display().to_string());
    format!(
        "no ggml backend could be loaded from {place}: this build needs libggml-cpu-*.so of its own version there; \
         install them, or name their folder in {FOLDER_VARIABLE}"
    )
}

/// `INGLE_BACKENDS_PATH`, or `../lib/ingle` seen from the program, with links resolved.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    Some(program.parent()?.parent()?.join("lib/ingle"))
}
