//! The header of a model, read and validated before llama.cpp sees the file.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ingle_engine::{EngineError, LoadOptions, Task};
use ingle_gguf::{FileKind, Header, ModelInfo, ShardName, validate_shards};

use crate::model::{load_error, may_be_laid_out};
use crate::process;

/// Reads the header of a model, of all its shards when it is split.
///
/// # Errors
/// [`EngineError::Load`] for a file that is missing, damaged, or not a model for the tasks of the options.
pub(crate) fn read_model(options: &LoadOptions) -> Result<ModelInfo, EngineError> {
    let path = &options.path;
    let generates = options.tasks.is_empty() || options.tasks.contains(&Task::Text);
    let first = read_header(path)?;
    let others = later_shards(path).iter().map(|path| read_header(path)).collect::<Result<Vec<_>, _>>()?;
    let mut info = validate_shards(&first, &others).map_err(|error| load_error(path, error.to_string()))?;
    if let Some(reason) = wrong_kind(&info, generates) {
        return Err(load_error(path, reason));
    }
    if may_be_laid_out(&info) {
        let is_mapped = options.mmap != Some(false);
        info.relaid_bytes = process::matrix_forms().extra_bytes(others.iter().chain([&first]), &info, is_mapped);
    }
    for warning in &info.warnings {
        tracing::warn!(model = %path.display(), "{warning}");
    }
    Ok(info)
}

fn read_header(path: &Path) -> Result<Header, EngineError> {
    let unreadable = |error: std::io::Error| load_error(path, format!("it cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(load_error(path, "it is not a file; give the path of a .gguf file"));
    }
    Header::read(&mut BufReader::new(file), metadata.len()).map_err(|error| load_error(path, error.to_string()))
}

fn later_shards(path: &Path) -> Vec<PathBuf> {
    let shard = path.to_str().and_then(ShardName::parse);
    match shard {
        Some(shard) if shard.index == 0 => (1..shard.count).map(|index| shard.sibling(index).into()).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// Why a valid file is not a model, or not one that generates text where it should.
fn wrong_kind(info: &ModelInfo, generates: bool) -> Option<String> {
    let reason = match info.kind {
        FileKind::Model if generates && !info.is_causal => {
            "it is an encoder, which turns text into vectors and cannot generate text; choose a language model, or say \
             `embeddings: true` or `reranking: true` in its YAML"
        }
        FileKind::Model => return None,
        FileKind::Projector => {
            "it is a projector (mmproj) that lets a language model see or hear; give the language model's own file"
        }
        FileKind::Adapter => "it is a LoRA adapter that changes a language model; give the language model's own file",
        FileKind::Shard => "it is a later part of a split model; give the first part, whose name has -00001-of-",
        FileKind::Other => "it is a GGUF file but not a language model",
    };
    Some(reason.into())
}
