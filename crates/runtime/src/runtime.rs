//! The façade.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ingle_catalog::{Catalog, ModelEntry, Usecase};
use ingle_engine::{Backend, Hardware, Segment, Surround, TokenId};

use crate::complete::ALWAYS_COUNTED;
use crate::manager::{Manager, Probe, Wanted};
use crate::{Lease, LoadDefaults, LoadPlan, LoadedModel, ModelState, Readiness, ResidencyOptions, RuntimeError};

/// Looks at the models come no more often.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// What a runtime is made of.
pub struct RuntimeConfig {
    /// The models there are.
    pub catalog: Catalog,
    /// What can run them.
    pub backends: Vec<Arc<dyn Backend>>,
    /// Reads the hardware, with what is free now; [`crate::hardware::detect`] outside tests.
    pub hardware: Arc<dyn Fn() -> Hardware + Send + Sync>,
    /// Settings for models that do not say otherwise.
    pub defaults: LoadDefaults,
    /// How long models stay in memory.
    pub residency: ResidencyOptions,
}

struct Inner {
    catalog: Catalog,
    manager: Arc<Manager>,
    hardware: Probe,
    /// What start-up still has to do, for readiness; set and cleared by whoever starts the program.
    starting: Mutex<Option<String>>,
}

/// Every capability of the program as plain calls; clones are cheap. Dropping a future or a stream cancels the work.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("models", &self.0.manager.models()).finish()
    }
}

impl Runtime {
    /// A runtime with no model loaded.
    pub fn new(config: RuntimeConfig) -> Self {
        let manager = Manager::new(config.backends, Arc::clone(&config.hardware), config.defaults, config.residency);
        Self(Arc::new(Inner {
            catalog: config.catalog,
            manager,
            hardware: config.hardware,
            starting: Mutex::default(),
        }))
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    /// The machine, with what is free now.
    pub fn hardware(&self) -> Hardware {
        (self.0.hardware)()
    }

    /// All models there are, by name.
    pub fn models(&self) -> Vec<ModelEntry> {
        self.0.catalog.list()
    }

    /// Models in memory or on their way there, by name.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        self.0.manager.models()
    }

    /// A lease of a model, loaded if need be; without a name the first one that can generate text.
    ///
    /// # Errors
    /// When there is no such model, or it cannot be loaded.
    pub async fn lease(&self, model: Option<&str>, usecase: Usecase) -> Result<Lease, RuntimeError> {
        let entry = self.0.catalog.resolve(model, usecase)?;
        let path = entry.weights()?.path.clone();
        self.watch();
        let wanted = Wanted { config: &entry.config, path, folder: self.0.catalog.models_path() };
        self.0.manager.lease(wanted).await
    }

    /// How a model would be loaded. Whoever loads it by this plan keeps it for itself: it is in nobody's way and in no
    /// list, and room is not made for it.
    ///
    /// # Errors
    /// When there is no such model, or its configuration cannot be carried out.
    pub fn load_plan(&self, model: Option<&str>, usecase: Usecase) -> Result<LoadPlan, RuntimeError> {
        let entry = self.0.catalog.resolve(model, usecase)?;
        let path = entry.weights()?.path.clone();
        self.0.manager.plan(Wanted { config: &entry.config, path, folder: self.0.catalog.models_path() })
    }

    /// Starts the thread that looks for idle models, with the first one that is loaded. It ends with the runtime.
    fn watch(&self) {
        if !self.0.manager.take_watch() {
            return;
        }
        let (inner, interval) = (Arc::downgrade(&self.0), self.0.manager.residency().check_interval);
        let look = move || {
            while let Some(inner) = inner.upgrade() {
                inner.manager.look(&|name| inner.catalog.get(name).is_ok());
                drop(inner);
                std::thread::sleep(interval.max(SHORTEST_INTERVAL));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".into()).spawn(look) {
            tracing::warn!(%error, "no thread could be started to look after idle models");
        }
    }

    /// How long one request may take.
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        self.0.manager.residency().busy_timeout
    }

    /// Takes a model out of memory once the answers that run on it have ended. `false` when it is not loaded.
    pub fn unload(&self, model: &str) -> bool {
        self.0.manager.unload(model)
    }

    /// Takes every model out of memory.
    pub fn unload_all(&self) {
        self.0.manager.unload_all();
    }

    /// Declares what start-up is busy with, or that it has ended.
    pub fn set_starting(&self, reason: Option<String>) {
        *self.0.starting.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why a backend can do nothing any more in this process: whoever serves should end, and be started again.
    pub fn poison(&self) -> Option<String> {
        self.0.manager.poison()
    }

    /// Can requests be answered?
    pub fn readiness(&self) -> Readiness {
        if let Some(reason) = self.poison() {
            return Readiness::Degraded { reason };
        }
        if let Some(reason) = self.0.starting.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Readiness::Starting { reason };
        }
        let dead = self.loaded().into_iter().find_map(|model| match model.state {
            ModelState::Dead { reason } => Some(format!("the engine of model {} has died: {reason}", model.name)),
            ModelState::Loading | ModelState::Ready => None,
        });
        dead.map_or(Readiness::Ready, |reason| Readiness::Degraded { reason })
    }

    /// The tokens of a text of at most 4 MiB.
    ///
    /// # Errors
    /// As [`Runtime::lease`], and when the text is too long or cannot be tokenized.
    pub async fn tokenize(
        &self,
        model: Option<&str>,
        segment: Segment,
        surround: Surround,
    ) -> Result<Vec<TokenId>, RuntimeError> {
        if segment.text.len() > ALWAYS_COUNTED {
            return Err(RuntimeError::InvalidParameter {
                parameter: "content",
                value: format!("{} bytes long", segment.text.len()),
                permitted: format!("at most {ALWAYS_COUNTED} bytes a call"),
            });
        }
        let lease = self.lease(model, Usecase::Tokenize).await?;
        Ok(lease.text()?.tokenizer().tokenize(&[segment], surround)?)
    }

    /// The text of tokens; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As [`Runtime::lease`], and [`ingle_engine::EngineError::TokenOutOfRange`].
    pub async fn detokenize(&self, model: Option<&str>, tokens: &[TokenId]) -> Result<String, RuntimeError> {
        let lease = self.lease(model, Usecase::Tokenize).await?;
        let tokenizer = lease.text()?.tokenizer();
        let n_vocab = tokenizer.n_vocab();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= n_vocab) {
            return Err(ingle_engine::EngineError::TokenOutOfRange { token, n_vocab }.into());
        }
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).copied().collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
