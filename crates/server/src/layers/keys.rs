//! The keys that let requests in: those of the command line, and those of a file that may change at any time.
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use subtle::{Choice, ConstantTimeEq};

/// The file is looked at no more often.
const LOOK: Duration = Duration::from_millis(500);

/// Largest file of keys, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The keys of a server.
#[derive(Debug)]
pub(crate) struct KeyRing {
    fixed: Vec<String>,
    file: Option<PathBuf>,
    read: Mutex<Read>,
}

/// What the file said.
#[derive(Debug, Default)]
struct Read {
    at: Option<Instant>,
    stamp: Option<(u64, SystemTime)>,
    keys: Vec<String>,
    /// There is a file and it cannot be read: then nobody gets in without one of the other keys.
    is_broken: bool,
}

impl KeyRing {
    pub(crate) fn new(fixed: Vec<String>, file: Option<PathBuf>) -> Self {
        Self { fixed, file, read: Mutex::default() }
    }

    /// Is no key needed?
    pub(crate) fn is_open(&self) -> bool {
        let read = self.read();
        self.fixed.is_empty() && read.keys.is_empty() && !read.is_broken
    }

    /// Is one of `given` a key? Every given one is compared with every known one, so that the time tells nothing.
    pub(crate) fn knows(&self, given: &[&[u8]]) -> bool {
        let read = self.read();
        let mut found = Choice::from(0);
        for given in given {
            for key in self.fixed.iter().chain(&read.keys) {
                found |= key.as_bytes().ct_eq(given);
            }
        }
        found.into()
    }

    /// The file's keys, read again when it has changed.
    fn read(&self) -> MutexGuard<'_, Read> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.file else { return read };
        if read.at.is_some_and(|at| at.elapsed() < LOOK) {
            return read;
        }
        let is_first = read.at.replace(Instant::now()).is_none();
        let stamp = std::fs::metadata(file).ok().and_then(|data| Some((data.len(), data.modified().ok()?)));
        if stamp == read.stamp && !is_first {
            return read;
        }
        read.stamp = stamp;
        match stamp.map(|(bytes, _)| keys_of(file, bytes)) {
            None => {
                read.is_broken = false;
                read.keys.clear();
            }
            Some(Ok(keys)) => {
                tracing::info!(file = %file.display(), keys = keys.len(), "API keys read");
                read.is_broken = false;
                read.keys = keys;
            }
            // The keys it had stay valid: a file that is just being written must not lock everybody out.
            Some(Err(reason)) => {
                tracing::error!(file = %file.display(), reason, "the API keys cannot be read");
                read.is_broken = true;
            }
        }
        read
    }
}

fn keys_of(file: &Path, bytes: u64) -> Result<Vec<String>, String> {
    if bytes > MAX_BYTES {
        return Err("it is larger than 1 MiB".to_owned());
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let keys: Vec<String> =
        serde_json::from_str(&text).map_err(|error| format!("it is no JSON list of strings: {error}"))?;
    Ok(keys.into_iter().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(ring: &KeyRing, key: &str) -> bool {
        ring.read.lock().expect("no panic").at = None;
        ring.knows(&[key.as_bytes()])
    }

    #[test]
    fn a_file_of_keys_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("api_keys.json");
        let ring = KeyRing::new(vec!["fixed".into()], Some(file.clone()));
        assert!(knows(&ring, "fixed") && !knows(&ring, "one"));
        let open = KeyRing::new(Vec::new(), Some(file.clone()));
        assert!(open.is_open());
        std::fs::write(&file, r#"["one", " two ", ""]"#).expect("it is written");
        assert!(knows(&ring, "one") && knows(&ring, "two") && knows(&ring, "fixed") && !knows(&ring, ""));
        std::fs::write(&file, r#"["one""#).expect("it is written");
        assert!(knows(&ring, "one"), "what was known stays known");
        open.read.lock().expect("no panic").at = None;
        assert!(!open.is_open(), "a file that cannot be read lets nobody in");
        std::fs::remove_file(&file).expect("it is removed");
        assert!(!knows(&ring, "one") && knows(&ring, "fixed"));
    }
}
