//! What `ingle models show` tells: the facts of the header and how much memory the model takes.

use crate::config::{ContextSize, LoadConfig};
use crate::registry::Catalog;
use crate::{CatalogError, weights};
use ingle_gguf::{GgmlType, ModelInfo};
use std::path::{Path, PathBuf};

/// Cells when the configuration does not say: the trained length, but not more than this.
const USUAL_CELLS: u32 = 8192;

/// A model file, looked at without loading it.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    /// The file (the first part of a split one).
    pub path: PathBuf,
    /// What its header says, validated.
    pub info: ModelInfo,
    /// What it takes.
    pub memory: MemoryEstimate,
}

/// Memory by arithmetic on the header: without compute buffers, which depend on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Tokens that the context holds.
    pub n_cells: u32,
    /// Bytes of the tensors.
    pub weight_bytes: u64,
    /// Bytes of the key/value caches, sliding windows kept whole.
    pub kv_bytes: u64,
    /// Bytes of recurrent state of one sequence.
    pub recurrent_bytes: u64,
}

impl MemoryEstimate {
    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_bytes).saturating_add(self.recurrent_bytes)
    }
}

impl ModelSummary {
    /// Reads the file at `path`; `load` gives context size and cache types.
    pub fn of_file(path: &Path, load: &LoadConfig) -> Result<Self, CatalogError> {
        let wrong = |message| CatalogError::NotAModel { path: path.to_owned(), message };
        let info = weights::read_info(path).map_err(wrong)?;
        let memory = estimate(&info, load);
        Ok(Self { path: path.to_owned(), info, memory })
    }
}

impl Catalog {
    /// Looks at a model of this catalog, or at the GGUF file that `name_or_path` leads to.
    pub fn show(&self, name_or_path: &str) -> Result<ModelSummary, CatalogError> {
        let error = match self.get(name_or_path) {
            Ok(entry) => return ModelSummary::of_file(&entry.weights()?.path, &entry.config.load),
            Err(error) => error,
        };
        let path = Path::new(name_or_path);
        if path.is_file() { ModelSummary::of_file(path, &LoadConfig::default()) } else { Err(error) }
    }
}

fn estimate(info: &ModelInfo, load: &LoadConfig) -> MemoryEstimate {
    let n_cells = match load.context_size {
        Some(ContextSize::Tokens(n_tokens)) => n_tokens.get(),
        Some(ContextSize::Trained) => info.n_ctx_train,
        None => info.n_ctx_train.min(USUAL_CELLS),
    };
    let (key_type, value_type) = (cache_type(&load.cache_type_k), cache_type(&load.cache_type_v));
    MemoryEstimate {
        n_cells,
        weight_bytes: info.weight_bytes,
        kv_bytes: info.kv_cache_bytes(n_cells.into(), key_type, value_type),
        recurrent_bytes: info.recurrent_bytes(1),
    }
}

fn cache_type(name: &Option<String>) -> GgmlType {
    // ggml's ids are small and dense.
    let named = |name: &String| (0..64).filter_map(GgmlType::from_id).find(|candidate| candidate.name() == name);
    name.as_ref().and_then(named).unwrap_or(GgmlType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CatalogOptions;
    use ingle_gguf::writer::tiny_llama;
    use std::fs;

    #[test]
    fn facts_and_memory_by_name_and_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        fs::write(&path, tiny_llama().bytes()).unwrap();
        fs::write(
            dir.path().join("m.yaml"),
            "{name: m, context_size: 32, cache_type_k: q8_0, cache_type_v: q8_0, parameters: {model: tiny.gguf}}",
        )
        .unwrap();
        let catalog = Catalog::open(dir.path(), CatalogOptions::default()).unwrap();
        let shown = catalog.show("tiny").unwrap();
        assert_eq!(shown.info.architecture.as_deref(), Some("llama"));
        // 64 tokens, 2 layers, 2 heads of 8, keys and values, 2 bytes each.
        assert_eq!((shown.memory.n_cells, shown.memory.kv_bytes), (64, 64 * 2 * 2 * 8 * 2 * 2));
        assert_eq!(shown.memory.total_bytes(), shown.memory.kv_bytes + shown.info.weight_bytes);
        let by_path = catalog.show(path.to_str().unwrap()).unwrap();
        assert_eq!(by_path.memory, shown.memory);
        let configured = catalog.show("m").unwrap().memory;
        assert_eq!(configured.n_cells, 32);
        assert!(configured.kv_bytes < shown.memory.kv_bytes / 2 + 1024);
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path(), CatalogOptions::default()).unwrap();
        let whole = tiny_llama().bytes();
        for bytes in [&b""[..], b"GGUF", b"nonsense", &whole[..whole.len() / 2]] {
            let path = dir.path().join("x.gguf");
            fs::write(&path, bytes).unwrap();
            assert!(matches!(catalog.show(path.to_str().unwrap()), Err(CatalogError::NotAModel { .. })));
            assert!(matches!(catalog.show("x"), Err(CatalogError::BadConfig { .. })));
        }
        assert!(matches!(catalog.show("/no/such.gguf"), Err(CatalogError::UnsafeName { .. })));
    }

    #[test]
    fn cache_types_are_found_by_name() {
        for (name, expected) in [("q8_0", GgmlType::Q8_0), ("f32", GgmlType::F32), ("bf16", GgmlType::BF16)] {
            assert_eq!(cache_type(&Some(name.to_owned())), expected);
        }
    }
}
