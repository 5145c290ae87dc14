//! What a GGUF file is and says. The only place that reads headers; they are validated before anything is believed.

use crate::Usecase;
use crate::config::text_usecases;
use ingle_gguf::{FileKind, Header, ModelInfo, ShardName, validate_shards};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Whether a file is a model of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It can be run, for this.
    Model(BTreeSet<Usecase>),
    /// Projector, adapter, later shard: part of another model.
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
        let lock = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = lock().get(path).filter(|seen| seen.bytes == bytes && seen.modified == modified) {
            return seen.kind.clone();
        }
        let kind = kind(path);
        lock().insert(path.to_owned(), Seen { bytes, modified, kind: kind.clone() });
        kind
    }
}

fn kind(path: &Path) -> Result<Kind, String> {
    let header = read_header(path)?;
    // The tensors of a split model are judged together, when it is shown or loaded.
    if shard_name(path).is_some_and(|shard| shard.index == 0) {
        return Ok(Kind::Model(text_usecases()));
    }
    let info = header.validate().map_err(|error| error.to_string())?;
    match info.kind {
        FileKind::Model => Ok(Kind::Model(usecases(&info))),
        FileKind::Projector | FileKind::Adapter | FileKind::Shard | FileKind::Other => Ok(Kind::Companion),
    }
}

/// What a file may be asked for when nothing says otherwise: its pooling, or that it sees the whole text at once, tells
/// an embedding model or a reranker from one that generates text.
fn usecases(info: &ModelInfo) -> BTreeSet<Usecase> {
    const NONE: u32 = 0;
    const RANK: u32 = 4;
    match info.pooling_type {
        Some(RANK) => BTreeSet::from([Usecase::Rerank, Usecase::Tokenize]),
        Some(NONE) | None if info.is_causal => text_usecases(),
        Some(_) | None => BTreeSet::from([Usecase::Embeddings, Usecase::Tokenize]),
    }
}

pub(crate) fn shard_name(path: &Path) -> Option<ShardName> {
    ShardName::parse(path.file_name()?.to_str()?)
}

/// Reads and validates a model; of a split one, all parts. The error is for people.
pub(crate) fn read_info(path: &Path) -> Result<ModelInfo, String> {
    let first = read_header(path)?;
    let info = match shard_name(path) {
        None => first.validate(),
        Some(shard) => {
            let names = shard.all().into_iter().skip(1);
            let others: Vec<Header> =
                names.map(|name| read_header(&path.with_file_name(name))).collect::<Result<_, _>>()?;
            validate_shards(&first, &others)
        }
    };
    info.map_err(|error| error.to_string())
}

fn read_header(path: &Path) -> Result<Header, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| told(&error))?;
    let file_bytes = file.metadata().map_err(|error| told(&error))?.len();
    Header::read(&mut BufReader::new(file), file_bytes).map_err(|error| told(&error))
}
