//! A model in memory and the calls that use it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use ingle_catalog::ModelConfig;
use ingle_engine::{
    EmbedModel, Engine, Health, LoadOptions, RerankModel, SpeakModel, TextModel, TranscribeModel, VoiceModel,
};
use ingle_grammar::{GrammarCache, GrammarError};

use super::lock;
use crate::RuntimeError;
use crate::prompter::PrompterCache;

/// A model in memory.
pub(crate) struct Resident {
    pub(super) config: ModelConfig,
    pub(super) backend: String,
    pub(super) engine: Engine,
    /// Made at first use.
    pub(crate) prompter: PrompterCache,
    /// Made with the first answer that must look a certain way, and used again for the others.
    pub(crate) grammars: OnceLock<Result<GrammarCache, GrammarError>>,
    /// What it was loaded from: when that changes it is loaded anew.
    pub(super) origin: Origin,
    pub(super) since: Instant,
    calls: AtomicUsize,
    /// For eviction of the least recently used.
    last_used: Mutex<Instant>,
    /// Told when the last call ends.
    ended: Arc<Condvar>,
}

/// What a model is loaded from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Origin {
    options: LoadOptions,
    /// Length and time of the weights.
    stamp: Option<(u64, SystemTime)>,
    adapters: Vec<Option<(u64, SystemTime)>>,
}

impl Origin {
    pub(super) fn new(options: LoadOptions) -> Self {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        // A folder's own time does not change when a file in it is written again.
        let weights = options.path.join("model.safetensors");
        let of_model = if options.path.is_dir() {
            stamp(&weights).or_else(|| stamp(&options.path.join("model.bin")))
        } else {
            stamp(&options.path)
        };
        let adapters = options.loras.iter().map(|lora| stamp(&lora.path)).collect();
        Self { stamp: of_model, adapters, options }
    }

    pub(super) fn options(&self) -> &LoadOptions {
        &self.options
    }
}

impl Resident {
    pub(super) fn new(
        config: ModelConfig,
        backend: String,
        engine: Engine,
        origin: Origin,
        ended: Arc<Condvar>,
    ) -> Self {
        Self {
            config,
            backend,
            engine,
            prompter: PrompterCache::default(),
            grammars: OnceLock::new(),
            origin,
            since: Instant::now(),
            calls: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
            ended,
        }
    }

    pub(super) fn health(&self) -> Health {
        self.engine.health()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.calls() == 0
    }

    pub(super) fn last_used(&self) -> Instant {
        *lock(&self.last_used)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.engine.memory.total_bytes()
    }

    /// What of it is on GPUs.
    pub(super) fn gpu_bytes(&self) -> u64 {
        self.engine.gpu_bytes
    }

    /// What its end gives to those that need main memory. A model that is mostly on GPUs gives nothing: it would be
    /// taken from them for the few buffers that it has beside.
    pub(super) fn main_bytes(&self) -> u64 {
        let rest = self.bytes().saturating_sub(self.gpu_bytes());
        if rest > self.gpu_bytes() { rest } else { 0 }
    }
}

/// One call; counted from its beginning to its end.
struct Call {
    resident: Arc<Resident>,
    /// Calls of all models together.
    total: Arc<AtomicUsize>,
}

impl Drop for Call {
    fn drop(&mut self) {
        *lock(&self.resident.last_used) = Instant::now();
        self.total.fetch_sub(1, Ordering::AcqRel);
        if self.resident.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.resident.ended.notify_all();
        }
    }
}

/// Keeps a model from being evicted; clones belong to the same call, and dropping the last one lets go.
#[derive(Clone)]
pub struct Lease {
    call: Arc<Call>,
    /// As the catalog has it now; what concerns loading is as it was then.
    config: Arc<ModelConfig>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("model", &self.config.name).finish()
    }
}

impl Lease {
    /// A call on `resident`; the caller holds the lock under which models are taken out.
    pub(super) fn new(resident: Arc<Resident>, config: ModelConfig, total: Arc<AtomicUsize>) -> Self {
        resident.calls.fetch_add(1, Ordering::AcqRel);
        total.fetch_add(1, Ordering::AcqRel);
        *lock(&resident.last_used) = Instant::now();
        Self { call: Arc::new(Call { resident, total }), config: Arc::new(config) }
    }

    /// Name of the model.
    pub fn model(&self) -> &str {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The loaded model.
    pub fn engine(&self) -> &Engine {
        &self.call.resident.engine
    }

    pub(crate) fn resident(&self) -> &Resident {
        &self.call.resident
    }

    /// The embedding handle.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model makes no embeddings.
    pub fn embed(&self) -> Result<&EmbedModel, RuntimeError> {
        self.engine()
            .embed
            .as_ref()
            .ok_or_else(|| self.incapable("make embeddings; its YAML may say `embeddings: true`"))
    }

    /// The reranking handle.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model scores no pairs.
    pub fn rerank(&self) -> Result<&RerankModel, RuntimeError> {
        self.engine().rerank.as_ref().ok_or_else(|| self.incapable("rerank; its YAML may say `reranking: true`"))
    }

    /// The handle of a model that writes down what it hears.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model hears nothing.
    pub fn transcribe(&self) -> Result<&TranscribeModel, RuntimeError> {
        self.engine().transcribe.as_ref().ok_or_else(|| self.incapable("write down speech"))
    }

    /// The handle of a voice activity detector.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model is none.
    pub fn voice(&self) -> Result<&VoiceModel, RuntimeError> {
        self.engine().voice.as_ref().ok_or_else(|| self.incapable("find speech in sound"))
    }

    /// The handle of a voice.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model does not speak.
    pub fn speak(&self) -> Result<&SpeakModel, RuntimeError> {
        self.engine().speak.as_ref().ok_or_else(|| self.incapable("speak"))
    }

    /// The text handle.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model generates no text.
    pub fn text(&self) -> Result<&TextModel, RuntimeError> {
        self.engine().text.as_ref().ok_or_else(|| self.incapable("generate text"))
    }

    pub(crate) fn incapable(&self, capability: &'static str) -> RuntimeError {
        RuntimeError::Incapable { model: self.model().to_owned(), capability }
    }
}
