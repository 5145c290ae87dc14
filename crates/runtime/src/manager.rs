//! Which models are in memory: loading once, leases, eviction of idle models, death and reloading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use ingle_catalog::ModelConfig;
use ingle_engine::{Backend, Engine, Hardware, Health, LoadOptions, MemoryEstimate, TextModel};
use ingle_grammar::{GrammarCache, GrammarError};
use tokio::sync::watch;

use crate::options::load_options;
use crate::prompter::PrompterCache;
use crate::{LoadDefaults, LoadedModel, ModelState, RuntimeError};

/// Reads what the machine has free now.
pub(crate) type Probe = Arc<dyn Fn() -> Hardware + Send + Sync>;

/// A context that a model can always do with.
const LEAST_CONTEXT: usize = 1024;

/// Share of the memory that models may fill.
const USABLE_SHARE: f64 = 0.95;

/// A model in memory.
pub(crate) struct Resident {
    pub(crate) config: ModelConfig,
    pub(crate) backend: String,
    pub(crate) engine: Engine,
    /// Made at first use.
    pub(crate) prompter: PrompterCache,
    /// Made with the first answer that must look a certain way, and used again for the others.
    pub(crate) grammars: OnceLock<Result<GrammarCache, GrammarError>>,
    leases: AtomicUsize,
    /// For eviction of the least recently used.
    last_used: Mutex<Instant>,
}

impl Resident {
    fn health(&self) -> Health {
        self.engine.text.as_ref().map_or(Health::Alive, TextModel::health)
    }
}

type Outcome = Option<Result<Arc<Resident>, RuntimeError>>;

enum Slot {
    Loading(watch::Receiver<Outcome>),
    Ready(Arc<Resident>),
}

/// Keeps a model from being evicted; dropping it lets go.
pub struct Lease {
    resident: Arc<Resident>,
    /// As the catalog has it now; what concerns loading is as it was then.
    config: Arc<ModelConfig>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("model", &self.config.name).finish()
    }
}

impl Lease {
    fn new(resident: Arc<Resident>, config: Arc<ModelConfig>) -> Self {
        resident.leases.fetch_add(1, Ordering::AcqRel);
        *lock(&resident.last_used) = Instant::now();
        Self { resident, config }
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
        &self.resident.engine
    }

    pub(crate) fn resident(&self) -> &Resident {
        &self.resident
    }

    /// The text handle.
    ///
    /// # Errors
    /// [`RuntimeError::Incapable`] when the model generates no text.
    pub fn text(&self) -> Result<&TextModel, RuntimeError> {
        let incapable = || RuntimeError::Incapable { model: self.model().to_owned(), capability: "generate text" };
        self.resident.engine.text.as_ref().ok_or_else(incapable)
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.resident), Arc::clone(&self.config))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.resident.last_used) = Instant::now();
        self.resident.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is valid after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The models in memory.
pub(crate) struct Manager {
    backends: Vec<Arc<dyn Backend>>,
    probe: Probe,
    defaults: LoadDefaults,
    /// Touched when a call starts and when a load ends; never held while a model loads.
    slots: Mutex<BTreeMap<String, Slot>>,
    /// Loads happen one at a time: fitting is not thread safe, and two loads would count the same free memory.
    loading: Mutex<()>,
}

impl Manager {
    pub(crate) fn new(backends: Vec<Arc<dyn Backend>>, probe: Probe, defaults: LoadDefaults) -> Arc<Self> {
        Arc::new(Self { backends, probe, defaults, slots: Mutex::default(), loading: Mutex::new(()) })
    }

    /// A lease of the model; loads it when it is not in memory, on a thread of its own.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        config: &ModelConfig,
        path: PathBuf,
        folder: &Path,
    ) -> Result<Lease, RuntimeError> {
        let mut receiver = match self.find_or_start(config, path, folder)? {
            Found::Ready(lease) => return Ok(lease),
            Found::Loading(receiver) => receiver,
        };
        let outcome = receiver.wait_for(Option::is_some).await;
        match outcome.ok().and_then(|outcome| outcome.clone()) {
            Some(result) => result.map(|resident| Lease::new(resident, Arc::new(config.clone()))),
            None => Err(died(&config.name, "its loader ended without a result").into()),
        }
    }

    fn find_or_start(
        self: &Arc<Self>,
        config: &ModelConfig,
        path: PathBuf,
        folder: &Path,
    ) -> Result<Found, RuntimeError> {
        let mut slots = lock(&self.slots);
        match slots.get(&config.name) {
            Some(Slot::Loading(receiver)) => return Ok(Found::Loading(receiver.clone())),
            Some(Slot::Ready(resident)) => match resident.health() {
                Health::Alive => {
                    return Ok(Found::Ready(Lease::new(Arc::clone(resident), Arc::new(config.clone()))));
                }
                Health::Dead { reason } => {
                    tracing::warn!(model = config.name, reason, "the engine has died; loading the model again");
                }
            },
            None => {}
        }
        let backend = self.backend_of(config)?;
        let options = load_options(config, path, folder, &self.defaults)?;
        let (sender, receiver) = watch::channel(None);
        let job = Job { manager: Arc::clone(self), config: config.clone(), backend, options, sender };
        let spawned = std::thread::Builder::new().name(format!("load {}", config.name)).spawn(move || job.run());
        spawned.map_err(|error| died(&config.name, &format!("no thread could be started: {error}")))?;
        let before = slots.insert(config.name.clone(), Slot::Loading(receiver.clone()));
        drop(slots);
        // A dead engine's memory is given back aside: the caller may be an executor's thread.
        drop(std::thread::Builder::new().name("unload".into()).spawn(move || drop(before)));
        Ok(Found::Loading(receiver))
    }

    fn backend_of(&self, config: &ModelConfig) -> Result<Arc<dyn Backend>, RuntimeError> {
        let wanted = config.backend.as_deref().unwrap_or(ingle_catalog::LLAMA_CPP);
        let found = self.backends.iter().find(|backend| backend.name() == wanted);
        found.cloned().ok_or_else(|| RuntimeError::UnknownBackend {
            model: config.name.clone(),
            backend: wanted.to_owned(),
            available: self.backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Evicts idle models, least recently used first, until the model fits. Nothing is evicted in vain. A model that
    /// may choose its own context is made smaller by its backend, so only the least it can do with is asked for.
    fn make_room(&self, backend: &dyn Backend, options: &LoadOptions) -> Result<(), RuntimeError> {
        let least = match options.context_size {
            Some(_) => backend.estimate(options)?,
            None => backend.estimate(&LoadOptions { context_size: Some(LEAST_CONTEXT), ..options.clone() })?,
        };
        let wanted = backend.estimate(options)?.total_bytes();
        loop {
            let Some(free_bytes) = usable_bytes(&(self.probe)()) else { return Ok(()) };
            if wanted <= free_bytes {
                return Ok(());
            }
            let (idle_bytes, n_busy) = self.reclaimable();
            if least.total_bytes() > free_bytes + idle_bytes {
                return Err(RuntimeError::OutOfMemory {
                    model: options.name.clone(),
                    needed_mib: least.total_bytes() >> 20,
                    free_mib: (free_bytes + idle_bytes) >> 20,
                    n_busy,
                });
            }
            let Some(idle) = self.take_idle() else { return Ok(()) };
            tracing::info!(model = idle.config.name, "evicted to make room for {}", options.name);
        }
    }

    /// Bytes of models that nothing uses, and how many models are in use.
    fn reclaimable(&self) -> (u64, usize) {
        let slots = lock(&self.slots);
        let (mut idle_bytes, mut n_busy) = (0, 0);
        for slot in slots.values() {
            match slot {
                Slot::Ready(resident) if resident.leases.load(Ordering::Acquire) == 0 => {
                    idle_bytes += resident.engine.memory.total_bytes();
                }
                Slot::Ready(_) => n_busy += 1,
                Slot::Loading(_) => {}
            }
        }
        (idle_bytes, n_busy)
    }

    /// Removes the idle model that was used least recently.
    fn take_idle(&self) -> Option<Arc<Resident>> {
        let mut slots = lock(&self.slots);
        let idle = slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Ready(resident) if resident.leases.load(Ordering::Acquire) == 0 => {
                Some((*lock(&resident.last_used), name.clone()))
            }
            Slot::Ready(_) | Slot::Loading(_) => None,
        });
        let (_, name) = idle.min()?;
        match slots.remove(&name) {
            Some(Slot::Ready(resident)) => Some(resident),
            Some(Slot::Loading(_)) | None => None,
        }
    }

    /// Takes a model out of memory once nothing uses it; `false` when it is not loaded.
    pub(crate) fn unload(&self, model: &str) -> bool {
        let mut slots = lock(&self.slots);
        match slots.get(model) {
            Some(Slot::Ready(_)) => {
                let removed = slots.remove(model);
                drop(slots);
                drop(removed);
                true
            }
            Some(Slot::Loading(_)) | None => false,
        }
    }

    pub(crate) fn unload_all(&self) {
        let removed = std::mem::take(&mut *lock(&self.slots));
        drop(removed);
    }

    pub(crate) fn models(&self) -> Vec<LoadedModel> {
        let slots = lock(&self.slots);
        let report = |(name, slot): (&String, &Slot)| match slot {
            Slot::Loading(_) => LoadedModel {
                name: name.clone(),
                backend: String::new(),
                state: ModelState::Loading,
                placement: String::new(),
                memory: MemoryEstimate::default(),
                leases: 0,
                stats: None,
            },
            Slot::Ready(resident) => LoadedModel {
                name: name.clone(),
                backend: resident.backend.clone(),
                state: match resident.health() {
                    Health::Alive => ModelState::Ready,
                    Health::Dead { reason } => ModelState::Dead { reason },
                },
                placement: resident.engine.placement.clone(),
                memory: resident.engine.memory,
                leases: resident.leases.load(Ordering::Acquire),
                stats: resident.engine.text.as_ref().map(TextModel::stats),
            },
        };
        slots.iter().map(report).collect()
    }
}

enum Found {
    Ready(Lease),
    Loading(watch::Receiver<Outcome>),
}

fn died(model: &str, reason: &str) -> ingle_engine::EngineError {
    ingle_engine::EngineError::Died { model: model.to_owned(), reason: reason.to_owned() }
}

/// Bytes that models may still take; `None` when the machine does not tell. A model that does not fit on the GPUs may
/// still run partly on the CPU, so both count.
fn usable_bytes(hardware: &Hardware) -> Option<u64> {
    hardware.cpu().filter(|cpu| cpu.total_bytes > 0)?;
    let free_bytes: u64 = hardware.devices.iter().map(|device| device.free_bytes).sum();
    Some((free_bytes as f64 * USABLE_SHARE) as u64)
}

/// One load, on its own thread.
struct Job {
    manager: Arc<Manager>,
    config: ModelConfig,
    backend: Arc<dyn Backend>,
    options: LoadOptions,
    sender: watch::Sender<Outcome>,
}

impl Job {
    fn run(self) {
        // A dead engine's thread may be parked for ever; its memory cannot be had back.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load()));
        let result = result.unwrap_or_else(|_| Err(died(&self.config.name, "its loader panicked").into()));
        let mut slots = lock(&self.manager.slots);
        let before = match &result {
            Ok(resident) => slots.insert(self.config.name.clone(), Slot::Ready(Arc::clone(resident))),
            Err(error) => {
                tracing::warn!(model = self.config.name, %error, "the model was not loaded");
                slots.remove(&self.config.name)
            }
        };
        // What was there may be the last handle of an engine; its end takes time and needs no lock.
        drop(slots);
        drop(before);
        self.sender.send_replace(Some(result));
    }

    fn load(&self) -> Result<Arc<Resident>, RuntimeError> {
        let _one_at_a_time = lock(&self.manager.loading);
        let begun = Instant::now();
        let estimate = self.backend.estimate(&self.options)?;
        self.manager.make_room(self.backend.as_ref(), &self.options)?;
        let hardware = (self.manager.probe)();
        let engine = self.backend.load(&self.options, &hardware)?;
        tracing::info!(
            model = self.config.name,
            placement = engine.placement,
            secs = begun.elapsed().as_secs_f64(),
            estimated_mib = estimate.total_bytes() >> 20,
            taken_mib = engine.memory.total_bytes() >> 20,
            "model loaded"
        );
        Ok(Arc::new(Resident {
            config: self.config.clone(),
            backend: self.backend.name().to_owned(),
            engine,
            prompter: PrompterCache::default(),
            grammars: OnceLock::new(),
            leases: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
        }))
    }
}
