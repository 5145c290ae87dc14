//! Installing and deleting models in the background, for whoever asks over the network.
//!
//! A job that the end of the program cut off goes on with the next start: requests that are not done stand in a file of
//! the models folder, and the installer resumes what has arrived.

mod request;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::fetch::{Fetcher, Progress};
use crate::gallery::Gallery;
use crate::install::Installer;
use crate::{Catalog, CatalogError, CatalogOptions, ModelEntry, ModelSource};

pub use request::{ApplyFile, ApplyRequest};
pub use status::{JobStatus, Phase};

/// Jobs that run beside each other.
const MOST_RUNNING: usize = 4;
/// Jobs that are remembered after their end.
const MOST_REMEMBERED: usize = 200;
/// Jobs that may wait.
const MOST_WAITING: usize = 100;
/// Where unfinished requests stand; the name begins with a dot, so that it is no model.
const FILE: &str = ".ingle-jobs.json";

/// A list of models that can be installed, as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GallerySource {
    /// Its name, for `gallery@model`.
    pub name: String,
    /// Where its index is.
    pub url: String,
}

/// A model that can be installed.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// What the gallery says.
    pub entry: crate::GalleryEntry,
    /// Which gallery.
    pub gallery: GallerySource,
    /// Is it in the folder?
    pub is_installed: bool,
}

/// Jobs of one models folder. Clones share it.
#[derive(Debug, Clone)]
pub struct JobBoard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    models_path: PathBuf,
    fetcher: Fetcher,
    sources: Vec<GallerySource>,
    /// May requests of clients name addresses of this machine's own networks?
    allows_private: bool,
    /// The last good copy of each remote gallery.
    remote: Mutex<BTreeMap<String, Gallery>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<String, Arc<Job>>,
    /// In the order in which they came.
    order: VecDeque<String>,
    waiting: VecDeque<String>,
    n_running: usize,
    is_closed: bool,
}

/// What a job does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    Apply(Box<ApplyRequest>),
    Delete(String),
}

#[derive(Debug)]
struct Job {
    id: String,
    task: Task,
    status: Mutex<JobStatus>,
    is_cancelled: AtomicBool,
}

/// A request that is not done, as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    id: String,
    task: Task,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JobBoard {
    /// Jobs for the folder; requests that an earlier run has not finished go on.
    #[must_use]
    pub fn open(models_path: &Path, fetcher: Fetcher, sources: Vec<GallerySource>, allows_private: bool) -> Self {
        let board = Self(Arc::new(Inner {
            models_path: models_path.to_owned(),
            fetcher,
            sources,
            allows_private,
            remote: Mutex::default(),
            state: Mutex::default(),
        }));
        for Unfinished { id, task } in board.0.read_unfinished() {
            tracing::info!(job = id, "an installation that was cut off goes on");
            board.start(id, task);
        }
        board
    }

    /// Begins to install a model; the job's id.
    ///
    /// # Errors
    /// When the request names nothing that can be installed, or too many jobs wait.
    pub fn apply(&self, request: ApplyRequest) -> Result<String, CatalogError> {
        request.check()?;
        self.add(Task::Apply(Box::new(request)))
    }

    /// Begins to delete a model: its configuration, and its files unless another model uses them.
    ///
    /// # Errors
    /// When there is no such model, or too many jobs wait.
    pub fn delete(&self, name: &str) -> Result<String, CatalogError> {
        self.0.catalog()?.get(name)?;
        self.add(Task::Delete(name.to_owned()))
    }

    /// Every job that is known, by id.
    #[must_use]
    pub fn jobs(&self) -> BTreeMap<String, JobStatus> {
        let state = lock(&self.0.state);
        state.jobs.iter().map(|(id, job)| (id.clone(), lock(&job.status).clone())).collect()
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<JobStatus> {
        let state = lock(&self.0.state);
        state.jobs.get(id).map(|job| lock(&job.status).clone())
    }

    /// Ends a job that has not ended; what has arrived is kept for another try. `false` when there is no such job.
    pub fn cancel(&self, id: &str) -> bool {
        let Some(job) = lock(&self.0.state).jobs.get(id).cloned() else { return false };
        job.is_cancelled.store(true, Ordering::Release);
        let mut status = lock(&job.status);
        if !status.processed && status.phase == Phase::Waiting {
            status.end_cancelled();
        }
        true
    }

    /// Ends the work for now; it goes on with the next start.
    pub fn close(&self) {
        let mut state = lock(&self.0.state);
        state.is_closed = true;
        state.jobs.values().for_each(|job| job.is_cancelled.store(true, Ordering::Release));
    }

    /// The galleries, in the order in which names are looked up.
    #[must_use]
    pub fn galleries(&self) -> Vec<GallerySource> {
        let own = GallerySource { name: "ingle".into(), url: "built-in".into() };
        self.0.sources.iter().cloned().chain([own]).collect()
    }

    /// Every model that can be installed. Remote galleries are read; one that cannot be is left out and logged.
    #[must_use]
    pub fn available(&self) -> Vec<Offer> {
        let installed: BTreeSet<String> = match self.0.catalog() {
            Ok(catalog) => catalog.list().into_iter().map(|entry| entry.name).collect(),
            Err(_) => BTreeSet::new(),
        };
        let mut offers: Vec<Offer> = Vec::new();
        for (gallery, source) in self.0.all_galleries() {
            for entry in gallery.entries {
                if offers.iter().all(|offer| !offer.entry.name.eq_ignore_ascii_case(&entry.name)) {
                    let is_installed = installed.contains(&entry.name);
                    offers.push(Offer { entry, gallery: source.clone(), is_installed });
                }
            }
        }
        offers
    }

    fn add(&self, task: Task) -> Result<String, CatalogError> {
        let n_waiting = lock(&self.0.state).waiting.len();
        if n_waiting >= MOST_WAITING {
            return Err(CatalogError::TooManyJobs { limit: MOST_WAITING });
        }
        let id = uuid::Uuid::new_v4().to_string();
        self.start(id.clone(), task);
        self.0.write_unfinished();
        Ok(id)
    }

    fn start(&self, id: String, task: Task) {
        let status = Mutex::new(JobStatus::waiting(&task_name(&task), matches!(task, Task::Delete(_))));
        let job = Arc::new(Job { id: id.clone(), task, status, is_cancelled: AtomicBool::new(false) });
        let mut state = lock(&self.0.state);
        state.jobs.insert(id.clone(), job);
        state.order.push_back(id.clone());
        state.waiting.push_back(id);
        while state.order.len() > MOST_REMEMBERED {
            let done = |id: &String| state.jobs.get(id).is_none_or(|job| lock(&job.status).processed);
            let Some(at) = state.order.iter().position(done) else { break };
            if let Some(id) = state.order.remove(at) {
                state.jobs.remove(&id);
            }
        }
        drop(state);
        self.work();
    }

    /// Gives waiting jobs to threads.
    fn work(&self) {
        loop {
            let mut state = lock(&self.0.state);
            if state.is_closed || state.n_running >= MOST_RUNNING {
                return;
            }
            let Some(id) = state.waiting.pop_front() else { return };
            let Some(job) = state.jobs.get(&id).cloned() else { continue };
            state.n_running += 1;
            drop(state);
            let board = self.clone();
            let name = format!("job {}", &id[..8.min(id.len())]);
            let failing = Arc::clone(&job);
            let spawned = std::thread::Builder::new().name(name).spawn(move || {
                board.0.run(&job);
                lock(&board.0.state).n_running -= 1;
                board.0.write_unfinished();
                board.work();
            });
            if let Err(error) = spawned {
                lock(&failing.status).end(Err(format!("no thread could be started: {error}")));
                lock(&self.0.state).n_running -= 1;
            }
        }
    }
}

fn task_name(task: &Task) -> String {
    match task {
        Task::Apply(request) => request.title(),
        Task::Delete(name) => name.clone(),
    }
}

impl Inner {
    fn run(&self, job: &Arc<Job>) {
        if job.is_cancelled.load(Ordering::Acquire) {
            lock(&job.status).end_cancelled();
            return;
        }
        lock(&job.status).phase = Phase::Working;
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &job.task {
            Task::Apply(request) => self.install(job, request),
            Task::Delete(name) => self.remove(name),
        }));
        let outcome = work.unwrap_or_else(|_| Err(CatalogError::Cancelled { filename: "the job panicked".into() }));
        let mut status = lock(&job.status);
        match outcome {
            Ok(()) => status.end(Ok(())),
            Err(CatalogError::Cancelled { .. }) if job.is_cancelled.load(Ordering::Acquire) => status.end_cancelled(),
            Err(error) => {
                tracing::warn!(job = job.id, %error, "the job failed");
                status.end(Err(error.to_string()));
            }
        }
    }

    fn catalog(&self) -> Result<Catalog, CatalogError> {
        Catalog::open(&self.models_path, CatalogOptions::default())
    }

    fn install(&self, job: &Arc<Job>, request: &ApplyRequest) -> Result<(), CatalogError> {
        let galleries: Vec<Gallery> = self.all_galleries().into_iter().map(|(gallery, _)| gallery).collect();
        let installer = Installer::with_galleries(&self.models_path, self.fetcher.clone(), galleries);
        let (entry, policy) = request.entry(&installer, self.allows_private)?;
        lock(&job.status).begin(&entry);
        installer.install_entry(entry, policy, &Watcher(Arc::clone(job))).map(drop)
    }

    /// The operator's galleries, those in the folder, and the program's own, each with where it comes from.
    fn all_galleries(&self) -> Vec<(Gallery, GallerySource)> {
        let remote = self.sources.iter().filter_map(|source| Some((self.remote(source)?, source.clone())));
        let local = Gallery::in_folder(&self.models_path).into_iter().map(|gallery| {
            let stem = Path::new(&gallery.origin).file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let source = GallerySource { name: stem.unwrap_or_default(), url: gallery.origin.clone() };
            (gallery, source)
        });
        let own = GallerySource { name: "ingle".into(), url: "built-in".into() };
        remote.chain(local).chain([(Gallery::embedded(), own)]).collect()
    }

    /// A remote gallery, or its last good copy.
    fn remote(&self, source: &GallerySource) -> Option<Gallery> {
        match request::gallery(&self.fetcher, source, &self.models_path) {
            Ok(gallery) => {
                lock(&self.remote).insert(source.url.clone(), gallery.clone());
                Some(gallery)
            }
            Err(error) => {
                tracing::warn!(gallery = source.name, %error, "the gallery cannot be read");
                lock(&self.remote).get(&source.url).cloned()
            }
        }
    }

    fn remove(&self, name: &str) -> Result<(), CatalogError> {
        let catalog = self.catalog()?;
        let entry = catalog.get(name)?;
        let others: Vec<ModelEntry> = catalog.list().into_iter().filter(|other| other.name != entry.name).collect();
        if let ModelSource::Yaml(path) = &entry.source {
            let shares_file = others.iter().any(|other| matches!(&other.source, ModelSource::Yaml(it) if it == path));
            if shares_file {
                return Err(CatalogError::BadConfig {
                    name: entry.name.clone(),
                    path: path.clone(),
                    line: 0,
                    message: "it stands in a file with other models; take it out of there by hand".into(),
                });
            }
            fs::remove_file(path).map_err(CatalogError::io("delete", path))?;
        }
        let used: BTreeSet<PathBuf> = others.iter().flat_map(|other| catalog.files_of(other)).collect();
        for file in catalog.files_of(&entry) {
            let path = self.models_path.join(&file);
            if used.contains(&file) || fs::symlink_metadata(&path).is_err() {
                continue;
            }
            // The bytes lie in the cache, where the installer has put them; they are what takes up the room.
            let original = fs::canonicalize(&path).ok();
            fs::remove_file(&path).map_err(CatalogError::io("delete", &path))?;
            if let Some(original) = original.filter(|original| self.is_in_cache(original)) {
                fs::remove_file(&original).map_err(CatalogError::io("delete", &original))?;
            }
        }
        Ok(())
    }

    fn is_in_cache(&self, path: &Path) -> bool {
        let cache = fs::canonicalize(self.fetcher.settings().models_cache());
        cache.is_ok_and(|cache| path.starts_with(cache))
    }

    fn read_unfinished(&self) -> Vec<Unfinished> {
        let path = self.models_path.join(FILE);
        let Ok(text) = fs::read_to_string(&path) else { return Vec::new() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "unfinished installations cannot be read");
            Vec::new()
        })
    }

    fn write_unfinished(&self) {
        let state = lock(&self.state);
        let is_open = |job: &Arc<Job>| {
            let status = lock(&job.status);
            // What the end of the program cuts off goes on later; what a person cancels does not.
            !status.processed || (status.cancelled && state.is_closed)
        };
        let unfinished: Vec<Unfinished> = state
            .order
            .iter()
            .filter_map(|id| state.jobs.get(id))
            .filter(|job| is_open(job))
            .map(|job| Unfinished { id: job.id.clone(), task: job.task.clone() })
            .collect();
        let path = self.models_path.join(FILE);
        let written = match unfinished.is_empty() {
            true => fs::remove_file(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
            false => {
                let fresh = self.models_path.join(format!("{FILE}.new"));
                let text = serde_json::to_string(&unfinished).unwrap_or_default();
                fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path))
            }
        };
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "a restart would not go on with unfinished installations");
        }
    }
}

/// Writes progress into a job's status.
struct Watcher(Arc<Job>);

impl Progress for Watcher {
    fn on(&self, event: &crate::fetch::Event<'_>) {
        lock(&self.0.status).note(event, SystemTime::now());
    }

    fn cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
