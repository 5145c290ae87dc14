//! Which models are in memory: loading once, leases, making room, watching, death and reloading.
//!
//! A model is loading, ready, or leaving. New calls for a leaving model wait until it has left and then ask for it
//! again, behind the load that it makes room for: two models that do not fit together take turns, and none starves.

mod failures;
mod resident;
mod room;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ingle_catalog::ModelConfig;
use ingle_engine::{Backend, Hardware, Health, LoadOptions, MemoryEstimate, TextModel};
use tokio::sync::watch as channel;

use crate::options::load_options;
use crate::residency::ResidencyOptions;
use crate::{BatchedTask, LoadDefaults, LoadedModel, ModelState, RuntimeError};
use failures::Failures;
use resident::Origin;
use room::{Ticket, Turns};

pub use resident::Lease;
pub(crate) use resident::Resident;

/// Reads what the machine has free now.
pub(crate) type Probe = Arc<dyn Fn() -> Hardware + Send + Sync>;

type Outcome = Option<Result<(), RuntimeError>>;

enum Slot {
    Loading(channel::Receiver<Outcome>),
    Ready(Arc<Resident>),
    /// No new call is let in; the sender goes when it has left.
    Leaving(Arc<Resident>, channel::Sender<()>),
}

/// A place for a model in memory, behind one lock; never held while a model loads or leaves.
#[derive(Default)]
struct State {
    slots: BTreeMap<String, Slot>,
    failures: Failures,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is valid after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The models in memory.
pub(crate) struct Manager {
    backends: Vec<Arc<dyn Backend>>,
    probe: Probe,
    defaults: LoadDefaults,
    residency: ResidencyOptions,
    state: Mutex<State>,
    /// Told when the last call on a model ends.
    ended: Arc<Condvar>,
    /// Calls of all models.
    calls: Arc<AtomicUsize>,
    /// Loads happen one at a time, in the order they were asked for: fitting is not thread safe, and two loads would
    /// count the same free memory.
    turns: Arc<Turns>,
    is_watched: AtomicBool,
}

/// How a model would be loaded, for a caller that loads it by itself.
pub struct LoadPlan {
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// Its configuration, as the backend gets it.
    pub options: LoadOptions,
}

/// What a model is asked for with.
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) path: PathBuf,
    /// The models folder.
    pub(crate) folder: &'a Path,
}

impl Manager {
    pub(crate) fn new(
        backends: Vec<Arc<dyn Backend>>,
        probe: Probe,
        defaults: LoadDefaults,
        residency: ResidencyOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            backends,
            probe,
            defaults,
            residency,
            state: Mutex::default(),
            ended: Arc::default(),
            calls: Arc::default(),
            turns: Arc::default(),
            is_watched: AtomicBool::new(false),
        })
    }

    /// Why a backend can do nothing any more in this process.
    pub(crate) fn poison(&self) -> Option<String> {
        self.backends.iter().find_map(|backend| backend.poison())
    }

    pub(crate) fn residency(&self) -> &ResidencyOptions {
        &self.residency
    }

    /// True once: whoever gets it starts the watch.
    pub(crate) fn take_watch(&self) -> bool {
        !self.is_watched.swap(true, Ordering::AcqRel)
    }

    /// How the model would be loaded.
    pub(crate) fn plan(&self, wanted: Wanted<'_>) -> Result<LoadPlan, RuntimeError> {
        let backend = self.backend_of(wanted.config, &wanted.path)?;
        let options = load_options(wanted.config, wanted.path, wanted.folder, &self.defaults)?;
        Ok(LoadPlan { backend, options })
    }

    /// A lease of the model; loads it when it is not in memory, on a thread of its own.
    pub(crate) async fn lease(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<Lease, RuntimeError> {
        let config = wanted.config;
        let LoadPlan { backend, options } = self.plan(wanted)?;
        let origin = Origin::new(options);
        loop {
            match self.find_or_start(config, &backend, &origin)? {
                Found::Ready(lease) => return Ok(lease),
                // It is looked for again in either case: it may have to leave at once.
                Found::Loading(mut receiver) => match receiver.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Ok(()))) => {}
                    Ok(Some(Err(error))) => return Err(error.clone()),
                    Ok(None) | Err(_) => return Err(died(&config.name, "its loader ended without a result").into()),
                },
                Found::Leaving(mut left) => while left.changed().await.is_ok() {},
            }
        }
    }

    fn find_or_start(
        self: &Arc<Self>,
        config: &ModelConfig,
        backend: &Arc<dyn Backend>,
        origin: &Origin,
    ) -> Result<Found, RuntimeError> {
        let mut state = lock(&self.state);
        match state.slots.get(&config.name) {
            Some(Slot::Loading(receiver)) => return Ok(Found::Loading(receiver.clone())),
            Some(Slot::Leaving(_, left)) => return Ok(Found::Leaving(left.subscribe())),
            Some(Slot::Ready(resident)) => match resident.health() {
                Health::Alive if resident.origin == *origin => {
                    self.check_limits(config, resident)?;
                    let lease = Lease::new(Arc::clone(resident), config.clone(), Arc::clone(&self.calls));
                    return Ok(Found::Ready(lease));
                }
                Health::Alive => {
                    tracing::info!(model = config.name, "its configuration or file has changed; loading anew")
                }
                Health::Dead { reason } => {
                    tracing::warn!(model = config.name, reason, "the engine has died; loading the model again");
                }
            },
            None => {}
        }
        // It would fail as every other load does in this process, and hide the death by then.
        if let Some(reason) = backend.poison() {
            return Err(died(&config.name, &reason).into());
        }
        state.failures.check(&config.name, origin)?;
        let (sender, receiver) = channel::channel(None);
        let job = Job {
            manager: Arc::clone(self),
            config: config.clone(),
            backend: Arc::clone(backend),
            origin: origin.clone(),
            sender,
            ticket: self.turns.take(),
        };
        let spawned = std::thread::Builder::new().name(format!("load {}", config.name)).spawn(move || job.run());
        spawned.map_err(|error| died(&config.name, &format!("no thread could be started: {error}")))?;
        let before = state.slots.insert(config.name.clone(), Slot::Loading(receiver.clone()));
        drop(state);
        drop_aside(before);
        Ok(Found::Loading(receiver))
    }

    fn check_limits(&self, config: &ModelConfig, resident: &Resident) -> Result<(), RuntimeError> {
        let most = self.residency.max_requests;
        if self.calls.load(Ordering::Acquire) >= most {
            return Err(RuntimeError::Busy { what: "the server".into(), limit: most, retry_after_secs: 1 });
        }
        match config.limits.max_concurrent {
            Some(limit) if resident.calls() >= limit.get() as usize => Err(RuntimeError::Busy {
                what: format!("model {}", config.name),
                limit: limit.get() as usize,
                retry_after_secs: config.limits.retry_after_secs.map_or(1, u64::from),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn backend_of(&self, config: &ModelConfig, path: &Path) -> Result<Arc<dyn Backend>, RuntimeError> {
        let usual = if path.is_dir() { ingle_catalog::CANDLE } else { ingle_catalog::LLAMA_CPP };
        let wanted = config.backend.as_deref().unwrap_or(usual);
        let runs = |backend: &&Arc<dyn Backend>| backend.name() == wanted || backend.other_names().contains(&wanted);
        let found = self.backends.iter().find(runs);
        found.cloned().ok_or_else(|| RuntimeError::UnknownBackend {
            model: config.name.clone(),
            backend: wanted.to_owned(),
            available: self.backends.iter().map(|backend| backend.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Takes a model out of memory; answers that run on it go on to their end. `false` when it is not loaded.
    pub(crate) fn unload(&self, model: &str) -> bool {
        let mut state = lock(&self.state);
        match state.slots.get(model) {
            Some(Slot::Ready(_)) => {
                let removed = state.slots.remove(model);
                drop(state);
                drop_aside(removed);
                true
            }
            Some(Slot::Leaving(..)) => true,
            Some(Slot::Loading(_)) | None => false,
        }
    }

    pub(crate) fn unload_all(&self) {
        let removed = std::mem::take(&mut lock(&self.state).slots);
        drop(removed);
    }

    pub(crate) fn models(&self) -> Vec<LoadedModel> {
        let state = lock(&self.state);
        let report = |(name, slot): (&String, &Slot)| match slot {
            Slot::Loading(_) => LoadedModel {
                name: name.clone(),
                backend: String::new(),
                state: ModelState::Loading,
                placement: String::new(),
                memory: MemoryEstimate::default(),
                leases: 0,
                stats: None,
                batched: Vec::new(),
            },
            Slot::Ready(resident) | Slot::Leaving(resident, _) => LoadedModel {
                name: name.clone(),
                backend: resident.backend.clone(),
                state: match resident.health() {
                    Health::Alive => ModelState::Ready,
                    Health::Dead { reason } => ModelState::Dead { reason },
                },
                placement: resident.engine.placement.clone(),
                memory: resident.engine.memory,
                leases: resident.calls(),
                stats: resident.engine.text.as_ref().map(TextModel::stats),
                batched: resident.engine.batched().into_iter().map(BatchedTask::of).collect(),
            },
        };
        state.slots.iter().map(report).collect()
    }
}

enum Found {
    Ready(Lease),
    Loading(channel::Receiver<Outcome>),
    Leaving(channel::Receiver<()>),
}

fn died(model: &str, reason: &str) -> ingle_engine::EngineError {
    ingle_engine::EngineError::Died { model: model.to_owned(), reason: reason.to_owned() }
}

/// An engine's end takes time, and the caller may be an executor's thread.
fn drop_aside<T: Send + 'static>(what: T) {
    drop(std::thread::Builder::new().name("unload".into()).spawn(move || drop(what)));
}

/// One load, on its own thread.
struct Job {
    manager: Arc<Manager>,
    config: ModelConfig,
    backend: Arc<dyn Backend>,
    origin: Origin,
    sender: channel::Sender<Outcome>,
    ticket: Ticket,
}

impl Job {
    fn run(self) {
        self.ticket.wait();
        // A dead engine's thread may be parked for ever; its memory cannot be had back.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load()));
        let result = result.unwrap_or_else(|_| Err(died(&self.config.name, "its loader panicked").into()));
        let name = &self.config.name;
        let mut state = lock(&self.manager.state);
        let (before, outcome) = match result {
            Ok(resident) => {
                state.failures.forget(name);
                (state.slots.insert(name.clone(), Slot::Ready(resident)), Ok(()))
            }
            Err(error) => {
                tracing::warn!(model = name, %error, "the model was not loaded");
                let cooldown = self.manager.residency.failure_cooldown;
                state.failures.note(name, self.origin.clone(), &error, cooldown);
                (state.slots.remove(name), Err(error))
            }
        };
        // What was there may be the last handle of an engine; its end takes time and needs no lock.
        drop(state);
        drop(before);
        drop(self.ticket);
        self.sender.send_replace(Some(outcome));
    }

    fn load(&self) -> Result<Arc<Resident>, RuntimeError> {
        let begun = Instant::now();
        let options = self.origin.options();
        let estimate = self.backend.estimate(options)?;
        self.manager.make_room(self.backend.as_ref(), options, &self.config)?;
        let waited = begun.elapsed();
        let hardware = (self.manager.probe)();
        let engine = self.backend.load(options, &hardware)?;
        tracing::info!(
            model = self.config.name,
            placement = engine.placement,
            secs = (begun.elapsed() - waited).as_secs_f64(),
            waited_secs = waited.as_secs_f64(),
            estimated_mib = estimate.total_bytes() >> 20,
            taken_mib = engine.memory.total_bytes() >> 20,
            "model loaded"
        );
        let backend = self.backend.name().to_owned();
        let (origin, ended) = (self.origin.clone(), Arc::clone(&self.manager.ended));
        Ok(Arc::new(Resident::new(self.config.clone(), backend, engine, origin, ended)))
    }
}
