//! ggml's backends as plug-ins: found in one fixed folder, checked, and loaded once, before llama.cpp is initialised.
//!
//! Builds with the feature `plugins` hold no backend at all. Of the CPU's variants the best for this processor is taken;
//! of the GPUs' those that the caller asks for, so that the library of a driver that does not answer is never touched.
//! A plug-in shares data structures with the program, so each must have been built from the very same sources: they
//! carry a stamp (`cmake/compiler_fixes.cmake`), and another one, or none, is refused.

mod library;
mod select;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::ffi::sys;
pub(crate) use select::GPU_KINDS;
use select::{Candidate, Selection};
pub use select::{LoadedPlugin, RefusedPlugin};

/// Names the folder; for packages that put it elsewhere and for trials.
const FOLDER_VARIABLE: &str = "INGLE_BACKENDS_PATH";

static REPORT: OnceLock<PluginReport> = OnceLock::new();

/// What became of the plug-ins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginReport {
    /// Where they were looked for.
    pub folder: PathBuf,
    /// Those in use, the CPU's first.
    pub loaded: Vec<LoadedPlugin>,
    /// Those that could not be used.
    pub refused: Vec<RefusedPlugin>,
}

/// What became of the plug-ins; `None` in a program that has its backends linked in, and before llama.cpp is needed.
pub fn plugin_report() -> Option<&'static PluginReport> {
    REPORT.get()
}

/// Loads what there is for the CPU, and for the GPUs what is `wanted` (names such as `cuda`). Without the feature the
/// backends are linked in and nothing is done.
pub(crate) fn load(wanted: &dyn Fn() -> Vec<String>) {
    if !cfg!(feature = "plugins") {
        return;
    }
    let folder = folder().unwrap_or_default();
    let report = load_from(&folder, &wanted());
    for plugin in &report.loaded {
        tracing::info!(file = plugin.file.as_str(), kind = plugin.kind.as_str(), "ggml backend");
        plugin.blindness().iter().for_each(|sentence| tracing::warn!("{sentence}"));
        #[cfg(feature = "plugins")]
        if plugin.kind == "cpu" {
            lead_operations(&folder.join(&plugin.file));
        }
    }
    for plugin in &report.refused {
        tracing::warn!(file = plugin.file.as_str(), "a ggml backend is not used: {}", plugin.reason);
    }
    if !report.loaded.iter().any(|plugin| plugin.kind == "cpu") {
        tracing::error!("{}", missing());
    }
    // Only the first of two initialisations gets here.
    let _ = REPORT.set(report);
}

fn load_from(folder: &Path, wanted: &[String]) -> PluginReport {
    let mut report = PluginReport { folder: folder.to_owned(), ..PluginReport::default() };
    let candidates = match library::candidates(folder) {
        Ok(candidates) => candidates,
        Err(reason) => {
            report.refused.push(RefusedPlugin { file: folder.display().to_string(), reason });
            return report;
        }
    };
    let Selection { chosen, refused } = select::select(&candidates, wanted, &library::Dynamic);
    report.refused = refused;
    for group in chosen {
        load_first(folder, group, &mut report);
    }
    report
}

/// Loads the first of a group that can be loaded; the others are second choices.
fn load_first(folder: &Path, group: Vec<Candidate>, report: &mut PluginReport) {
    for candidate in group {
        match register(&folder.join(&candidate.file)) {
            Ok((n_devices, complaint)) => {
                let Candidate { file, kind, .. } = candidate;
                report.loaded.push(LoadedPlugin { file, kind, n_devices, complaint });
                return;
            }
            Err(reason) => report.refused.push(RefusedPlugin { file: candidate.file, reason }),
        }
    }
}

/// Hands a file to ggml, which keeps it open; how many devices it reaches, and what it complained about.
fn register(path: &Path) -> Result<(usize, String), String> {
    let text = path.as_os_str().as_encoded_bytes();
    let path = CString::new(text).map_err(|_| "its path holds a zero byte".to_owned())?;
    // SAFETY: the string ends in zero and lives until the call returns.
    let load = || unsafe { sys::ggml_backend_load(path.as_ptr()) };
    let (registry, captured) = crate::log::capture(load);
    match registry.is_null() {
        true => Err(crate::model::or_unknown(&captured.complaints()).to_owned()),
        // SAFETY: a registry lives as long as the process.
        false => Ok((unsafe { sys::ggml_backend_reg_dev_count(registry) }, captured.complaints())),
    }
}

/// Hands the operations of this program to the plug-in of the processor.
#[cfg(feature = "plugins")]
fn lead_operations(path: &Path) {
    match library::lead_operations(path) {
        Ok(true) => tracing::debug!("the plug-in takes this program's operations"),
        Ok(false) => tracing::warn!(
            "{} takes none of this program's operations and computes slower: use the one that comes with this version",
            path.display()
        ),
        Err(reason) => tracing::warn!("{} cannot take this program's operations: {reason}", path.display()),
    }
}

/// Why a plug-in for GPUs that was loaded reaches none.
pub(crate) fn blindness() -> Option<String> {
    plugin_report()?.loaded.iter().find_map(LoadedPlugin::blindness)
}

/// What to say when no plug-in could be used.
pub(crate) fn missing() -> String {
    let place = folder().map_or_else(|| "lib/ingle".to_owned(), |folder| folder.display().to_string());
    let refused = plugin_report().map(|report| report.refused.as_slice()).unwrap_or_default();
    let why: Vec<String> = refused.iter().map(|plugin| format!("{}: {}", plugin.file, plugin.reason)).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    format!(
        "no ggml backend for the CPU could be loaded from {place}{why}: this build needs libggml-cpu-*.so of its own \
         version there; install them, or name their folder in {FOLDER_VARIABLE}"
    )
}

/// `INGLE_BACKENDS_PATH`, or `../lib/ingle` seen from the program, with links resolved. ggml itself would look beside
/// the program and in the current folder: neither is safe.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    Some(program.parent()?.parent()?.join("lib/ingle"))
}

#[cfg(test)]
mod tests;
