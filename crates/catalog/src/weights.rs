//! What a GGUF file is: a model of its own, or something that belongs to one. The only place that reads headers.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

/// Whether a file is a model of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It can be run.
    Model,
    /// Projector, adapter, control vector: part of another model.
    Companion,
}

/// The kinds of files already looked at.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// Under a lock because listing takes `&self`; held only for the look-up.
    seen: Mutex<HashMap<PathBuf, Seen>>,
}

#[derive(Debug, Clone)]
struct Seen {
    bytes: u64,
    modified: Option<SystemTime>,
    kind: Result<Kind, String>,
}

impl Kinds {
    /// The kind of `path`, read once per length and time. The error is for people.
    pub fn of(&self, path: &Path) -> Result<Kind, String> {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        let lock = || self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(seen) = lock().get(path).filter(|seen| seen.bytes == bytes && seen.modified == modified) {
            return seen.kind.clone();
        }
        let kind = look(path);
        lock().insert(path.to_owned(), Seen { bytes, modified, kind: kind.clone() });
        kind
    }
}

fn look(path: &Path) -> Result<Kind, String> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if name.starts_with("mmproj") {
        return Ok(Kind::Companion);
    }
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    match read {
        Ok(()) if &magic == b"GGUF" => Ok(Kind::Model),
        Ok(()) => Err("it does not begin like a GGUF file".to_owned()),
        Err(error) => Err(format!("it is no GGUF file: {error}")),
    }
}
