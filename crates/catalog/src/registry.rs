//! The catalog of a models folder: every model by name, kept in step with the files.

use crate::config::{Availability, ModelConfig};
use crate::keys::KeyWarning;
use crate::scan::{self, BareFile, Configured, Problem, Snapshot, folders};
use crate::uri::file_name_of_uri;
use crate::weights::{self, Kinds};
use crate::{CatalogError, Usecase, names};
use ingle_gguf::ShardName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What else the catalog reads.
#[derive(Debug, Clone, Default)]
pub struct CatalogOptions {
    /// One more YAML file with model configurations (`--models-config-file`).
    pub config_file: Option<PathBuf>,
    /// A pass over the folder holds for so long without a look at the files, so that many requests a second do not spend
    /// their time on looking. Zero looks each time.
    pub holds_for: Duration,
}

/// The models of one folder. Cheap to ask: the folder is listed each time or now and then ([`CatalogOptions::holds_for`]), its
/// files are read when they changed.
#[derive(Debug)]
pub struct Catalog {
    models_path: PathBuf,
    options: CatalogOptions,
    kinds: Kinds,
    /// The last pass over the folder; behind a lock because looking up may renew it.
    snapshot: Mutex<Arc<Snapshot>>,
    /// When the files were last looked at.
    looked: Mutex<Instant>,
    /// Whether the models can be loaded, as far as somebody has asked since.
    states: Mutex<BTreeMap<StateKey, ModelState>>,
    /// What the log has said already; none while nobody has asked for it.
    told: Mutex<Option<BTreeSet<String>>>,
}

/// A configured model or a bare file; both may have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum StateKey {
    Configured(String),
    Bare(String),
}

/// One model.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// Public id.
    pub name: String,
    /// What is configured, or the defaults of a bare file.
    pub config: ModelConfig,
    /// Where it comes from.
    pub source: ModelSource,
    /// Whether it can be loaded.
    pub state: ModelState,
    /// When its configuration or file was last changed.
    pub modified: Option<SystemTime>,
    /// Keys of its configuration that do not do what their author may expect.
    pub warnings: Vec<KeyWarning>,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// This YAML file.
    Yaml(PathBuf),
    /// This GGUF file without a configuration.
    BareFile(PathBuf),
}

/// Whether a model can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// The weights are there.
    Ready(Weights),
    /// The weights are named by something else than a file, e.g. another backend's repository, or not at all.
    NoFile,
    /// This file should exist and does not.
    MissingFile(PathBuf),
    /// Requests go to this model instead.
    Alias(String),
    /// Switched off.
    Disabled,
}

/// Weight files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// The file to load (the first part of a split one).
    pub path: PathBuf,
    /// Bytes of all parts.
    pub bytes: u64,
}

impl ModelEntry {
    /// Seconds since 1970 of the last change, for OpenAI's `created`.
    #[must_use]
    pub fn created(&self) -> Option<u64> {
        let since = self.modified?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    /// The weights, or why there are none to load.
    pub fn weights(&self) -> Result<&Weights, CatalogError> {
        let name = || self.name.clone();
        match &self.state {
            ModelState::Ready(weights) => Ok(weights),
            ModelState::Disabled => Err(CatalogError::Disabled { name: name() }),
            ModelState::MissingFile(path) => Err(CatalogError::MissingFile { name: name(), path: path.clone() }),
            ModelState::NoFile | ModelState::Alias(_) => {
                let path = match &self.source {
                    ModelSource::Yaml(path) | ModelSource::BareFile(path) => path.clone(),
                };
                let message = "parameters.model names no file of the models folder".to_owned();
                Err(CatalogError::BadConfig { name: name(), path, line: 0, message })
            }
        }
    }
}

impl Catalog {
    /// Reads the folder once. Broken files become [`problems`](Self::problems); a missing folder is an error.
    pub fn open(models_path: &Path, options: CatalogOptions) -> Result<Self, CatalogError> {
        let kinds = Kinds::default();
        let snapshot = scan::scan(models_path, options.config_file.as_deref(), &kinds)?;
        Ok(Self {
            models_path: models_path.to_owned(),
            options,
            kinds,
            snapshot: Mutex::new(Arc::new(snapshot)),
            looked: Mutex::new(Instant::now()),
            states: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn models_path(&self) -> &Path {
        &self.models_path
    }

    /// Every model, sorted by name: configured ones, and GGUF files that no configuration uses.
    #[must_use]
    pub fn list(&self) -> Vec<ModelEntry> {
        let snapshot = self.current();
        let used = self.used_files(&snapshot);
        let configured = snapshot.configured.values().map(|from| self.configured_entry(from));
        let free = |bare: &&BareFile| !used.contains(&bare.relative) && !snapshot.configured.contains_key(&bare.name);
        let bare = snapshot.bare.values().filter(free).map(|from| self.bare_entry(from));
        let mut entries: Vec<ModelEntry> = configured.chain(bare).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// What could not be read, in the order of the files.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.current().problems.clone()
    }

    /// Logs every problem, and every key without effect; from now on also those that changed files bring.
    pub fn tell(&self) {
        self.lock_told().get_or_insert_default();
        self.tell_of(&self.current());
    }

    fn tell_of(&self, snapshot: &Snapshot) {
        let mut told = self.lock_told();
        let Some(told) = told.as_mut() else { return };
        let problems = snapshot.problems.iter().map(ToString::to_string);
        let warnings = snapshot
            .configured
            .values()
            .flat_map(|from| from.warnings.iter().map(|warning| format!("{}, {warning}", from.path.display())));
        for line in problems.chain(warnings) {
            if told.insert(line.clone()) {
                tracing::warn!("{line}");
            }
        }
    }

    fn lock_told(&self) -> MutexGuard<'_, Option<BTreeSet<String>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model called `name`: a configured name, a GGUF file with or without its ending, a YAML file without its.
    /// An alias is answered as it stands; [`resolve`](Self::resolve) follows it.
    pub fn get(&self, name: &str) -> Result<ModelEntry, CatalogError> {
        names::check_model_name(name)?;
        if let Some(entry) = self.find(&self.current(), name) {
            return Ok(entry);
        }
        // It may have come just now.
        let snapshot = self.look();
        if let Some(entry) = self.find(&snapshot, name) {
            return Ok(entry);
        }
        if let Some(problem) = snapshot.problems.iter().find(|problem| concerns(problem, name)) {
            let (path, line) = (problem.path.clone(), problem.line);
            return Err(CatalogError::BadConfig {
                name: name.to_owned(),
                path,
                line,
                message: problem.message.clone(),
            });
        }
        drop(snapshot);
        let known = self.list().into_iter().map(|entry| entry.name).collect();
        Err(CatalogError::NotFound { name: name.to_owned(), known })
    }

    fn find(&self, snapshot: &Snapshot, name: &str) -> Option<ModelEntry> {
        if let Some(from) = snapshot.configured.get(name) {
            return Some(self.configured_entry(from));
        }
        if let Some(from) = find_bare(snapshot, name) {
            return Some(self.bare_entry(from));
        }
        let by_file = |from: &&Configured| from.path.file_stem().is_some_and(|stem| stem == name);
        snapshot.configured.values().find(by_file).map(|from| self.configured_entry(from))
    }

    /// The model for a request: the named one with its alias followed (one hop), or the first that suits. It is
    /// enabled, does `usecase` and has its weights.
    pub fn resolve(&self, name: Option<&str>, usecase: Usecase) -> Result<ModelEntry, CatalogError> {
        let Some(name) = name else { return self.first_for(usecase) };
        let mut entry = self.get(name)?;
        if let ModelState::Alias(target) = &entry.state {
            entry = self.get(target)?;
        }
        if entry.config.availability == Availability::Disabled {
            return Err(CatalogError::Disabled { name: entry.name });
        }
        if !entry.config.suits(usecase) {
            let words: Vec<&str> = entry.config.usecases.iter().map(|usecase| usecase.word()).collect();
            return Err(CatalogError::Unsuited { name: entry.name, usecase, has: words.join(", ") });
        }
        entry.weights()?;
        Ok(entry)
    }

    /// Reads everything again.
    pub fn reload(&self) -> Result<(), CatalogError> {
        let fresh = scan::scan(&self.models_path, self.options.config_file.as_deref(), &self.kinds)?;
        *self.lock() = Arc::new(fresh);
        self.lock_states().clear();
        Ok(())
    }

    fn first_for(&self, usecase: Usecase) -> Result<ModelEntry, CatalogError> {
        let suits = |entry: &ModelEntry| entry.config.suits(usecase) && matches!(entry.state, ModelState::Ready(_));
        let first = || {
            let (configured, bare): (Vec<_>, Vec<_>) =
                self.list().into_iter().filter(suits).partition(|entry| matches!(entry.source, ModelSource::Yaml(_)));
            configured.into_iter().chain(bare).next()
        };
        let found = first().or_else(|| {
            // One may have come just now.
            self.look();
            first()
        });
        found.ok_or(CatalogError::NoneSuits { usecase })
    }

    fn lock_states(&self) -> MutexGuard<'_, BTreeMap<StateKey, ModelState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a model, from the files unless somebody has looked at them for it since the last pass.
    fn state_of(&self, key: StateKey, look: impl FnOnce() -> ModelState) -> ModelState {
        if self.options.holds_for.is_zero() {
            return look();
        }
        if let Some(state) = self.lock_states().get(&key) {
            return state.clone();
        }
        let state = look();
        self.lock_states().insert(key, state.clone());
        state
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last pass, where it still holds; else a new look.
    fn current(&self) -> Arc<Snapshot> {
        let looked = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.elapsed() < self.options.holds_for { Arc::clone(&self.lock()) } else { self.look() }
    }

    /// The last pass, renewed when a file changed. A folder that has become unreadable shows as a problem.
    fn look(&self) -> Arc<Snapshot> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let fresh = self.look_again();
        // Behind the new pass: what was asked for meanwhile was answered from the old one.
        self.lock_states().clear();
        fresh
    }

    fn look_again(&self) -> Arc<Snapshot> {
        let held = Arc::clone(&self.lock());
        let renewed = match scan::fingerprint(&self.models_path) {
            Ok(marks) if marks == held.fingerprint => return held,
            Ok(_) => scan::scan(&self.models_path, self.options.config_file.as_deref(), &self.kinds),
            Err(source) => Err(CatalogError::ModelsFolder { path: self.models_path.clone(), source }),
        };
        let fresh = Arc::new(renewed.unwrap_or_else(|error| self.unreadable(&error)));
        *self.lock() = Arc::clone(&fresh);
        self.tell_of(&fresh);
        fresh
    }

    fn unreadable(&self, error: &CatalogError) -> Snapshot {
        let path = self.models_path.clone();
        let problem = Problem { path, line: 0, model: None, message: error.to_string() };
        Snapshot { problems: vec![problem], ..Snapshot::default() }
    }

    /// Files of a model, relative to the models folder: weights with all their parts, projector, draft model, adapters,
    /// grammar.
    #[must_use]
    pub fn files_of(&self, entry: &ModelEntry) -> Vec<PathBuf> {
        let config = &entry.config;
        let model = config.model.as_deref().and_then(local_file_name);
        let others =
            [config.load.mmproj.clone(), config.load.draft_model.clone(), config.defaults.grammar_file.clone()];
        let adapters = config.load.loras.iter().map(|(file, _)| file.clone());
        let mut files: Vec<PathBuf> = Vec::new();
        for file in model.into_iter().chain(others.into_iter().flatten()).chain(adapters) {
            let relative = normal(Path::new(&file));
            let shard = weights::shard_name(&relative);
            match shard {
                Some(shard) => files.extend(shard.all().into_iter().map(|name| relative.with_file_name(name))),
                None => files.push(relative),
            }
        }
        files
    }

    /// Files that configurations refer to, relative to the models folder.
    fn used_files(&self, snapshot: &Snapshot) -> BTreeSet<PathBuf> {
        let files = |from: &Configured| {
            let model = from.config.model.as_deref().and_then(local_file_name);
            [model, from.config.load.mmproj.clone(), from.config.load.draft_model.clone()]
        };
        snapshot.configured.values().flat_map(files).flatten().map(|file| normal(Path::new(&file))).collect()
    }

    fn configured_entry(&self, from: &Configured) -> ModelEntry {
        ModelEntry {
            name: from.config.name.clone(),
            state: self.state_of(StateKey::Configured(from.config.name.clone()), || self.state(&from.config)),
            config: from.config.clone(),
            source: ModelSource::Yaml(from.path.clone()),
            modified: from.modified,
            warnings: from.warnings.clone(),
        }
    }

    fn bare_entry(&self, from: &BareFile) -> ModelEntry {
        let state = self.state_of(StateKey::Bare(from.name.clone()), || self.file_state(&from.relative, &from.parts));
        ModelEntry {
            name: from.name.clone(),
            config: ModelConfig {
                template: from.template.clone(),
                usecases: from.usecases.clone(),
                backend: Some(from.backend.to_owned()),
                ..ModelConfig::bare(&from.name, &from.relative.to_string_lossy())
            },
            source: ModelSource::BareFile(self.models_path.join(&from.relative)),
            state,
            modified: from.modified,
            warnings: Vec::new(),
        }
    }

    fn state(&self, config: &ModelConfig) -> ModelState {
        if config.availability == Availability::Disabled {
            return ModelState::Disabled;
        }
        if let Some(target) = &config.alias {
            return ModelState::Alias(target.clone());
        }
        let Some(file) = config.model.as_deref().and_then(local_file_name) else { return ModelState::NoFile };
        let relative = normal(Path::new(&file));
        if let Some(relative) = self.model_folder(&relative) {
            let path = self.models_path.join(relative);
            let bytes = folders::weight_bytes(&path);
            return ModelState::Ready(Weights { path, bytes });
        }
        let shard = weights::shard_name(&relative);
        let parts: Vec<PathBuf> =
            shard.iter().flat_map(ShardName::all).map(|name| relative.with_file_name(name)).collect();
        self.file_state(&relative, &parts)
    }

    /// The folder that `parameters.model` means: as it is written, or, as for a repository `owner/name`, its last part.
    fn model_folder(&self, relative: &Path) -> Option<PathBuf> {
        let last = relative.file_name().map(PathBuf::from);
        let mut candidates = std::iter::once(relative.to_owned()).chain(last);
        candidates.find(|folder| is_usable(&self.models_path.join(folder)))
    }

    /// Looks at the file itself: it may have gone since it was listed.
    fn file_state(&self, relative: &Path, parts: &[PathBuf]) -> ModelState {
        let mut bytes = 0;
        let others = parts.iter().map(PathBuf::as_path).filter(|part| *part != relative);
        for part in std::iter::once(relative).chain(others) {
            let path = self.models_path.join(part);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                Ok(metadata) if metadata.is_dir() && is_usable(&path) => {
                    bytes += folders::weight_bytes(&path);
                }
                Ok(_) | Err(_) => return ModelState::MissingFile(path),
            }
        }
        ModelState::Ready(Weights { path: self.models_path.join(relative), bytes })
    }
}

/// Whether a folder can be the weights of a model.
fn is_usable(folder: &Path) -> bool {
    folders::is_model_folder(folder) || folders::has_voices(folder)
}

/// The file in the models folder that `parameters.model` means.
fn local_file_name(model: &str) -> Option<String> {
    match file_name_of_uri(model) {
        Some(name) => name.ok(),
        None => Some(model.to_owned()),
    }
}

/// The path without `./`.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != std::path::Component::CurDir).collect()
}

fn find_bare<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a BareFile> {
    let exact = snapshot.bare.get(name);
    let with_ending = || {
        let same = |bare: &&BareFile| names::without_gguf(&bare.name) == name;
        snapshot.bare.values().find(same)
    };
    let by_first_part = || snapshot.bare.values().find(|bare| bare.relative.as_os_str() == name);
    exact.or_else(with_ending).or_else(by_first_part)
}

fn concerns(problem: &Problem, name: &str) -> bool {
    problem.model.as_deref() == Some(name)
        || problem.path.file_stem().is_some_and(|stem| stem == name)
        || problem.path.file_name().is_some_and(|file| file == name)
}

#[cfg(test)]
mod tests;
