//! The default wiring: which backends there are, and how a runtime is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ingle_runtime::catalog::{Catalog, CatalogError, CatalogOptions};
use ingle_runtime::{
    Backend, EngineError, Hardware, LoadDefaults, ResidencyOptions, Runtime, RuntimeConfig, RuntimeError, hardware,
    hardware::{Blind, Interface},
};

/// So long ago at most the models folder was looked at for a request. Nobody changes a file and asks sooner; a thousand
/// requests a second would spend a tenth of their time on looking.
const FILES_HOLD: Duration = Duration::from_millis(10);

/// The backends in this program, by its features.
pub fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "llama")]
        Arc::new(ingle_llama::LlamaBackend),
        #[cfg(feature = "candle")]
        Arc::new(ingle_candle::CandleBackend),
        #[cfg(feature = "candle")]
        Arc::new(ingle_candle::speech::SpeechBackend),
    ]
}

/// How this program reaches GPUs: by what was linked in, or by the plug-ins that this machine's drivers ask for. The
/// first call looks for plug-ins.
pub fn gpu_interfaces() -> Vec<Interface> {
    let mut found = ggml_interfaces();
    if candle_has_cuda() && !found.contains(&Interface::Cuda) {
        found.push(Interface::Cuda);
    }
    found
}

fn candle_has_cuda() -> bool {
    #[cfg(feature = "candle")]
    let has_cuda = ingle_candle::HAS_CUDA;
    #[cfg(not(feature = "candle"))]
    let has_cuda = false;
    has_cuda
}

fn ggml_interfaces() -> Vec<Interface> {
    #[cfg(feature = "llama")]
    {
        let kinds = |wanted: Vec<Interface>| wanted.iter().map(|interface| interface.name().to_owned()).collect();
        ingle_llama::initialise_with(&|| kinds(hardware::wanted_interfaces(&hardware::detect())));
        let registries = ingle_llama::gpu_registries();
        registries.iter().filter_map(|name| Interface::from_registry(name)).collect()
    }
    #[cfg(not(feature = "llama"))]
    Vec::new()
}

/// The machine as far as this program can use it: without the GPUs that it cannot reach, and with notes on those.
pub fn hardware_in_use() -> Hardware {
    let interfaces = gpu_interfaces();
    let mut found = hardware::in_use(hardware::detect(), &interfaces, &blind_plugins());
    found.notes.extend(refused_plugins());
    found
}

/// Plug-ins for GPUs that were loaded and reach none.
fn blind_plugins() -> Vec<Blind> {
    #[cfg(feature = "llama")]
    {
        let loaded = ingle_llama::plugin_report().map(|report| report.loaded.as_slice()).unwrap_or_default();
        let blind = |plugin: &ingle_llama::LoadedPlugin| {
            let interface = Interface::ALL.iter().copied().find(|interface| interface.name() == plugin.kind)?;
            Some(Blind { interface, reason: plugin.blindness()? })
        };
        loaded.iter().filter_map(blind).collect()
    }
    #[cfg(not(feature = "llama"))]
    Vec::new()
}

/// A sentence for each plug-in that lies where plug-ins are looked for and cannot be used.
fn refused_plugins() -> Vec<String> {
    #[cfg(feature = "llama")]
    {
        let report = ingle_llama::plugin_report();
        let refused = report.map(|report| report.refused.as_slice()).unwrap_or_default();
        refused.iter().map(|plugin| format!("{} is not used: {}", plugin.file, plugin.reason)).collect()
    }
    #[cfg(not(feature = "llama"))]
    Vec::new()
}

/// Where the arithmetic is done, for logs and reports: the plug-ins in use, or how llama.cpp was linked in.
pub fn compute_backends() -> Vec<String> {
    let mut found = ggml_backends();
    found.extend(candle_has_cuda().then(|| "candle's CUDA (linked in)".to_owned()));
    found
}

fn ggml_backends() -> Vec<String> {
    #[cfg(feature = "llama")]
    match ingle_llama::plugin_report() {
        Some(report) => report.loaded.iter().map(|plugin| plugin.file.clone()).collect(),
        None => std::iter::once("CPU (linked in)".to_owned())
            .chain(ingle_llama::gpu_registries().into_iter().map(|name| format!("{name} (linked in)")))
            .collect(),
    }
    #[cfg(not(feature = "llama"))]
    Vec::new()
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
        let options = CatalogOptions { config_file: self.config_file, holds_for: FILES_HOLD };
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
