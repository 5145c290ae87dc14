//! What lies in a models folder: YAML files and bare GGUF files, in a fixed order.

use crate::config::{self, CANDLE, LLAMA_CPP, ModelConfig, TemplateConfig};
use crate::gallery::{Document, classify};
use crate::keys::{self, KeyWarning, MODEL_KEYS, Standing};
use crate::model_yaml::ModelYaml;
use crate::names;
use crate::yaml::{self, MAX_YAML_BYTES, Node, Tree, Unread};
use crate::{CatalogError, Usecase, weights};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) mod folders;
mod templates;

/// Something in the models folder that could not be used, or that should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// 1-based; 0 when not known.
    pub line: u64,
    /// The model, where it has a name.
    pub model: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.line > 0 {
            write!(formatter, " line {}", self.line)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// A configured model and where its configuration stands.
#[derive(Debug, Clone)]
pub(crate) struct Configured {
    pub config: ModelConfig,
    pub path: PathBuf,
    pub modified: Option<SystemTime>,
    pub warnings: Vec<KeyWarning>,
}

/// A GGUF file, or a folder with a model, without a configuration.
#[derive(Debug, Clone)]
pub(crate) struct BareFile {
    /// What it may be asked for.
    pub usecases: BTreeSet<Usecase>,
    pub backend: &'static str,
    /// From the `.tmpl` file beside it.
    pub template: TemplateConfig,
    /// Path inside the models folder; for a split file the name without part numbers.
    pub name: String,
    /// The file to load (the first part).
    pub relative: PathBuf,
    /// Other parts that should lie beside it.
    pub parts: Vec<PathBuf>,
    pub modified: Option<SystemTime>,
}

/// Everything found in one pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub configured: BTreeMap<String, Configured>,
    pub bare: BTreeMap<String, BareFile>,
    pub problems: Vec<Problem>,
    pub fingerprint: Fingerprint,
}

/// Path, length and time of every file, to see whether a new pass is needed.
pub(crate) type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// The files at the top of `folder` and one level below, sorted. Names that begin with a dot are left out.
pub(crate) fn fingerprint(folder: &Path) -> io::Result<Fingerprint> {
    let mut found = Vec::new();
    for path in listed(folder)? {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            for inner in listed(&path).unwrap_or_default() {
                found.extend(fs::metadata(&inner).ok().and_then(|metadata| file_mark(inner, &metadata)));
            }
        } else {
            found.extend(file_mark(path, &metadata));
        }
    }
    found.sort();
    Ok(found)
}

fn file_mark(path: PathBuf, metadata: &fs::Metadata) -> Option<(PathBuf, u64, Option<SystemTime>)> {
    metadata.is_file().then(|| (path, metadata.len(), metadata.modified().ok()))
}

fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.iter().any(|wanted| wanted.eq_ignore_ascii_case(ending)))
}

/// The YAML files at the top of `folder`.
pub(crate) fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(listed(folder)?.into_iter().filter(|path| has_ending(path, &["yaml", "yml"])).collect())
}

/// The text of a YAML file of bearable size.
pub(crate) fn read_yaml_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_YAML_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_YAML_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 32 MiB"));
    }
    Ok(text)
}

/// Reads the whole folder.
pub(crate) fn scan(
    folder: &Path,
    extra_config: Option<&Path>,
    kinds: &weights::Kinds,
) -> Result<Snapshot, CatalogError> {
    let unreadable = |source| CatalogError::ModelsFolder { path: folder.to_owned(), source };
    let mut snapshot = Snapshot { fingerprint: fingerprint(folder).map_err(unreadable)?, ..Snapshot::default() };
    let files: Vec<PathBuf> = snapshot.fingerprint.iter().map(|(path, ..)| path.clone()).collect();
    let top = |path: &&PathBuf| path.parent() == Some(folder) && has_ending(path, &["yaml", "yml"]);
    for path in files.iter().filter(top).map(PathBuf::as_path).chain(extra_config) {
        snapshot.read_yaml(folder, path, kinds);
    }
    for path in files.iter().filter(|path| path.ends_with("config.json") && path.parent() != Some(folder)) {
        snapshot.add_folder(folder, path);
    }
    let ggufs: Vec<&PathBuf> = files.iter().filter(|path| has_ending(path, &["gguf"])).collect();
    for path in ggufs {
        snapshot.add_gguf(folder, path, kinds);
    }
    Ok(snapshot)
}

/// Every key that does nothing, in the order of the file.
fn key_warnings(node: &Node, unread: &[Unread]) -> Vec<KeyWarning> {
    let mut warnings: Vec<KeyWarning> = unread.iter().map(|key| keys::warning(&key.key, key.line)).collect();
    // Some keys are read although nothing can be done with them yet.
    let is_idle = |standing: &Standing| *standing != Standing::Works;
    for (key, _) in MODEL_KEYS.iter().filter(|(_, standing)| is_idle(standing)) {
        let says_it = node.at(key).is_some_and(|value| !matches!(value.tree, Tree::Null | Tree::Bool(false)));
        if says_it && !unread.iter().any(|unread| unread.key == *key) {
            warnings.push(keys::warning(key, node.line_of_key(key)));
        }
    }
    warnings.extend(option_warnings(node));
    warnings.extend(beside_alias(node));
    warnings.sort_by_key(|warning| warning.line);
    warnings
}

/// Entries of `options` that do nothing.
fn option_warnings(node: &Node) -> Vec<KeyWarning> {
    let Some(Node { tree: Tree::List(options), .. }) = node.get("options") else { return Vec::new() };
    let backend = match node.get("backend").map(|backend| &backend.tree) {
        Some(Tree::Text(written)) => config::current_backend_name(written),
        _ => LLAMA_CPP,
    };
    let Some(table) = keys::options_of(backend) else {
        if options.is_empty() {
            return Vec::new();
        }
        let reason = format!("has no effect yet: it belongs to the backend {backend}, which is not there yet");
        return vec![KeyWarning { key: "options".into(), line: node.line_of_key("options"), reason }];
    };
    let told = |option: &Node| match &option.tree {
        Tree::Text(written) => keys::option_warning(table, written, option.line),
        _ => None,
    };
    options.iter().filter_map(told).collect()
}

/// Keys that an entry has although it only stands for another model.
fn beside_alias(node: &Node) -> Vec<KeyWarning> {
    const FITTING: [&str; 5] = ["name", "alias", "description", "usage", "disabled"];
    let is_alias = node.get("alias").is_some_and(|alias| !matches!(alias.tree, Tree::Null));
    let Tree::Map(entries) = &node.tree else { return Vec::new() };
    let idle = entries.iter().filter(|entry| is_alias && !FITTING.contains(&entry.key.as_str()));
    let reason = "has no effect: the entry is an alias, the other model's configuration counts";
    idle.map(|entry| KeyWarning { key: entry.key.clone(), line: entry.line, reason: reason.into() }).collect()
}

/// Where a configuration stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a Path,
    path: &'a Path,
    kinds: &'a weights::Kinds,
}

/// What the model's own file says it is for, where its configuration is silent.
fn guess_usecases(config: &mut ModelConfig, folder: &Path, kinds: &weights::Kinds) {
    let is_silent = config.usecases.is_empty() || config.usecases == config::text_usecases();
    let Some(file) = config.model.as_deref().filter(|_| is_silent) else { return };
    let path = folder.join(file);
    match config.backend.as_deref() {
        Some(LLAMA_CPP) => {
            if let Ok(weights::Kind::Model(usecases)) = kinds.of(&path) {
                config.usecases = usecases;
            }
        }
        None | Some(CANDLE | "transformers" | "rerankers") if folders::is_model_folder(&path) => {
            config.usecases = folders::usecases(&path);
            config.backend.get_or_insert_with(|| CANDLE.to_owned());
        }
        Some(_) | None => {}
    }
}

impl Snapshot {
    fn problem(&mut self, path: &Path, line: u64, model: Option<&str>, message: impl Into<String>) {
        let model = model.map(str::to_owned);
        self.problems.push(Problem { path: path.to_owned(), line, model, message: message.into() });
    }

    fn read_yaml(&mut self, folder: &Path, path: &Path, kinds: &weights::Kinds) {
        let text = match read_yaml_text(path) {
            Ok(text) => text,
            Err(error) => return self.problem(path, 0, None, format!("cannot be read: {error}")),
        };
        let node = match yaml::parse(&text) {
            Ok(node) => node,
            Err(error) => return self.problem(path, error.line, None, error.message),
        };
        if let Document::Models(nodes) = classify(node) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| nodes.len() == 1);
            for node in &nodes {
                self.add_model(Place { folder, path, kinds }, node, stem);
            }
        }
    }

    fn add_model(&mut self, Place { folder, path, kinds }: Place<'_>, node: &Node, fallback_name: Option<&str>) {
        let (written, unread) = match node.decode::<ModelYaml>() {
            Ok(decoded) => decoded,
            Err(error) => return self.problem(path, error.line, None, error.message),
        };
        let name = written.name.clone().map(|text| text.0);
        let warnings = key_warnings(node, &unread);
        let says_nothing_of_usecases =
            written.known_usecases.is_none() && written.embeddings.is_none() && written.reranking.is_none();
        let config = match ModelConfig::resolve(written, fallback_name) {
            Ok(config) => config,
            Err(bad) => {
                let line = node.line_of_key(bad.key);
                return self.problem(path, line, name.as_deref(), format!("{}: {}", bad.key, bad.message));
            }
        };
        if let Some(first) = self.configured.get(&config.name) {
            let message = format!("the name is taken by {}", first.path.display());
            return self.problem(path, node.line, Some(&config.name), message);
        }
        let mut config = config;
        if says_nothing_of_usecases {
            guess_usecases(&mut config, folder, kinds);
        }
        if let Err(message) = templates::read_files(&mut config.template, config.model.as_deref(), folder) {
            return self.problem(path, node.line_of_key("template"), name.as_deref(), message);
        }
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let name = config.name.clone();
        self.configured.insert(name, Configured { config, path: path.to_owned(), modified, warnings });
    }

    /// A folder that says itself what it is for.
    fn add_folder(&mut self, folder: &Path, config: &Path) {
        let Some(inner) = config.parent().filter(|inner| folders::is_model_folder(inner)) else { return };
        let usecases = folders::usecases(inner);
        let name = inner.strip_prefix(folder).ok().and_then(Path::to_str);
        let Some(name) = name.filter(|name| !usecases.is_empty() && names::check_model_name(name).is_ok()) else {
            return;
        };
        let bare = BareFile {
            usecases,
            backend: CANDLE,
            template: TemplateConfig::default(),
            name: name.to_owned(),
            relative: PathBuf::from(name),
            parts: Vec::new(),
            modified: fs::metadata(config).and_then(|metadata| metadata.modified()).ok(),
        };
        self.bare.insert(bare.name.clone(), bare);
    }

    fn add_gguf(&mut self, folder: &Path, path: &Path, kinds: &weights::Kinds) {
        let Ok(relative) = path.strip_prefix(folder) else { return };
        let Some(name) = relative.to_str() else {
            return self.problem(path, 0, None, "its name is not UTF-8: rename it");
        };
        if names::check_model_name(name).is_err() {
            return self.problem(path, 0, None, "its name cannot be a model name: rename it");
        }
        let shard = weights::shard_name(path);
        if shard.as_ref().is_some_and(|shard| shard.index != 0) {
            return;
        }
        let usecases = match kinds.of(path) {
            Ok(weights::Kind::Model(usecases)) => usecases,
            Ok(weights::Kind::Companion) => return,
            Err(message) => return self.problem(path, 0, Some(name), message),
        };
        let backend = LLAMA_CPP;
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let mut template = TemplateConfig::default();
        if let Err(message) = templates::read_files(&mut template, Some(name), folder) {
            return self.problem(path, 0, Some(name), message);
        }
        let bare = match shard {
            None => {
                let (name, relative) = (name.to_owned(), relative.to_owned());
                BareFile { usecases, backend, name, relative, parts: Vec::new(), modified, template }
            }
            Some(shard) => {
                let parts = shard.all().into_iter().skip(1).map(|name| relative.with_file_name(name)).collect();
                let name = relative.with_file_name(format!("{}.gguf", shard.prefix)).to_string_lossy().into_owned();
                BareFile { usecases, backend, name, relative: relative.to_owned(), parts, modified, template }
            }
        };
        self.bare.insert(bare.name.clone(), bare);
    }
}
