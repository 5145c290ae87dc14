//! The default wiring: which backends there are, and how a runtime is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ingle_runtime::catalog::{Catalog, CatalogError, CatalogOptions};
use ingle_runtime::{
    Backend, EngineError, Hardware, LoadDefaults, ResidencyOptions, Runtime, RuntimeConfig, RuntimeError, hardware,
};

/// The backends in this program, by its features.
pub fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "llama")]
        Arc::new(ingle_llama::LlamaBackend),
    ]
}

/// Whether a backend of this program can use the machine's GPUs: by how it was built, or by the plug-ins it found.
pub fn uses_gpus() -> bool {
    #[cfg(feature = "llama")]
    return cfg!(any(feature = "cuda", feature = "plugins")) && ingle_llama::sees_gpu();
    #[cfg(not(feature = "llama"))]
    return false;
}

/// The machine as far as this program can use it: without its GPUs where no backend can use them.
pub fn hardware_in_use() -> Hardware {
    let found = hardware::detect();
    if uses_gpus() { found } else { hardware::without_gpus(found) }
}

/// A runtime over a folder of models (YAML files and GGUF files), with every default.
///
/// # Errors
/// When the folder cannot be read.
pub fn open(models_path: impl Into<PathBuf>) -> Result<Runtime, RuntimeError> {
    Setup::new(models_path).runtime()
}

/// What a runtime is made of, where the defaults of [`open`] do not do.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The models folder.
    pub models_path: PathBuf,
    /// One more YAML file with model configurations.
    pub config_file: Option<PathBuf>,
    /// Settings for models that do not say otherwise.
    pub defaults: LoadDefaults,
    /// How long models stay in memory.
    pub residency: ResidencyOptions,
}

impl Setup {
    /// Defaults for this folder.
    pub fn new(models_path: impl Into<PathBuf>) -> Self {
        Self {
            models_path: models_path.into(),
            config_file: None,
            defaults: LoadDefaults::default(),
            residency: ResidencyOptions::default(),
        }
    }

    /// The runtime; no model is loaded yet.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn runtime(self) -> Result<Runtime, RuntimeError> {
        let options = CatalogOptions { config_file: self.config_file };
        let catalog = Catalog::open(&self.models_path, options)?;
        Ok(Runtime::new(RuntimeConfig {
            catalog,
            backends: backends(),
            hardware: Arc::new(hardware_in_use),
            defaults: self.defaults,
            residency: self.residency,
        }))
    }

    /// A runtime over the folder that `file` lies in, and the name by which it knows the file.
    ///
    /// # Errors
    /// When there is no such file, or it does not end with `.gguf`.
    pub fn for_file(file: &Path, defaults: LoadDefaults) -> Result<(Runtime, String), RuntimeError> {
        let refuse = |reason: String| EngineError::Load { path: file.display().to_string(), reason };
        std::fs::metadata(file).map_err(|error| refuse(error.to_string()))?;
        let is_gguf = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        let name = file.file_name().and_then(|name| name.to_str()).filter(|_| is_gguf);
        let name = name.ok_or_else(|| refuse("only files that end with .gguf can be loaded".to_owned()))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let runtime = Self { defaults, ..Self::new(folder) }.runtime()?;
        let entry = runtime.catalog().get(name).map_err(|error| match error {
            CatalogError::BadConfig { message, .. } => refuse(message).into(),
            other => RuntimeError::from(other),
        })?;
        Ok((runtime, entry.name))
    }
}
