//! Puts a model into the models folder: its files into the cache, links to them and a configuration beside.

use crate::fetch::{Event, FetchPolicy, Fetched, Fetcher, LocalFiles, Outcome, Progress};
use crate::gallery::{FileSource, Gallery, GalleryEntry, GalleryFile, SourcePlace};
use crate::names;
use crate::uri::{FileUri, HubFile, hub_repository};
use crate::weights::{self, Kind};
use crate::{CatalogError, LLAMA_CPP, quants, yaml};
use ingle_gguf::ShardName;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Installs models into one folder.
#[derive(Debug, Clone)]
pub struct Installer {
    models_path: PathBuf,
    fetcher: Fetcher,
    galleries: Vec<Gallery>,
    /// What a model may take; absent is not known.
    memory_bytes: Option<u64>,
}

/// A model that is in the folder now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What requests call it.
    pub name: String,
    /// Its configuration.
    pub config_path: PathBuf,
    /// Whether the configuration was written or had been there.
    pub config_outcome: ConfigOutcome,
    /// Its files.
    pub files: Vec<InstalledFile>,
}

/// Whether a configuration was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigOutcome {
    /// It is new.
    Written,
    /// It was there and was left as it is, since somebody may have edited it.
    Kept,
}

/// One file of an installed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFile {
    /// In the models folder.
    pub path: PathBuf,
    /// The bytes it leads to.
    pub fetched: Fetched,
}

impl Installer {
    /// An installer that knows the embedded gallery and the indexes in the models folder; the latter win.
    #[must_use]
    pub fn new(models_path: &Path, fetcher: Fetcher) -> Self {
        let mut galleries = Gallery::in_folder(models_path);
        galleries.push(Gallery::embedded());
        Self { models_path: models_path.to_owned(), fetcher, galleries, memory_bytes: None }
    }

    /// An installer that knows these galleries; the first one that has a name wins.
    #[must_use]
    pub fn with_galleries(models_path: &Path, fetcher: Fetcher, galleries: Vec<Gallery>) -> Self {
        Self { models_path: models_path.to_owned(), fetcher, galleries, memory_bytes: None }
    }

    /// The same for a machine with so much memory for models: where only a repository is named, a file is chosen by it.
    #[must_use]
    pub fn with_memory(self, memory_bytes: u64) -> Self {
        Self { memory_bytes: Some(memory_bytes).filter(|bytes| *bytes > 0), ..self }
    }

    /// The galleries, the first one that has a name wins.
    #[must_use]
    pub fn galleries(&self) -> &[Gallery] {
        &self.galleries
    }

    /// What would be installed for `what`: a gallery name (with or without `gallery@`), a URI or a path of a GGUF file.
    pub fn find(&self, what: &str) -> Result<GalleryEntry, CatalogError> {
        let what = what.trim();
        let in_galleries = |name: &str| self.galleries.iter().find_map(|gallery| gallery.find(name));
        if let Some(entry) = in_galleries(what) {
            return Ok(entry);
        }
        if let Some((repository, revision)) = hub_repository(what) {
            return self.entry_of_repository(&repository, &revision);
        }
        if let Some(uri) = FileUri::parse(what) {
            return entry_of_uri(uri?);
        }
        if let Some(entry) = what.split_once('@').and_then(|(_, name)| in_galleries(name)) {
            return Ok(entry);
        }
        if Path::new(what).is_file() {
            return entry_of_uri(FileUri::Local(PathBuf::from(what)));
        }
        let known =
            self.galleries.iter().flat_map(|gallery| &gallery.entries).map(|entry| entry.name.clone()).collect();
        Err(CatalogError::UnknownInstall { what: what.to_owned(), known })
    }

    /// The entry that a repository amounts to: the quantization that suits the machine.
    fn entry_of_repository(&self, repository: &str, revision: &str) -> Result<GalleryEntry, CatalogError> {
        let listed = self.fetcher.list_repository(repository, revision)?;
        let sizes: Vec<(String, u64)> = listed.iter().map(|file| (file.path.clone(), file.size)).collect();
        let chosen = quants::choose(quants::group(&sizes), self.memory_bytes);
        let (quant, reason) = chosen.ok_or_else(|| CatalogError::BadUri {
            uri: format!("huggingface://{repository}"),
            reason: "the repository has no GGUF file; look for one whose name ends with -GGUF",
        })?;
        let place =
            |path: &str| HubFile { repo: repository.to_owned(), path: path.to_owned(), revision: revision.to_owned() };
        let mut entry = entry_of_uri(FileUri::Hub(place(&quant.paths[0])))?;
        for (file, path) in entry.files.iter_mut().zip(&quant.paths) {
            let known = listed.iter().find(|listed| listed.path == *path);
            for source in &mut file.sources {
                source.sha256 = known.and_then(crate::fetch::Listed::sha256);
                source.size = known.map(|listed| listed.size);
            }
        }
        entry.description = Some(reason);
        Ok(entry)
    }

    /// Installs `what`; a second time costs nothing and changes nothing.
    pub fn install(&self, what: &str, policy: FetchPolicy, progress: &dyn Progress) -> Result<Installed, CatalogError> {
        self.install_entry(self.find(what)?, policy, progress)
    }

    /// Installs what an entry says.
    pub fn install_entry(
        &self,
        entry: GalleryEntry,
        policy: FetchPolicy,
        progress: &dyn Progress,
    ) -> Result<Installed, CatalogError> {
        if let (Some(file), Some(reason)) = (entry.files.first(), entry.description.as_deref())
            && reason.contains("GGUF file")
        {
            progress.on(&Event::Chosen { file: &file.filename, reason });
        }
        fs::create_dir_all(&self.models_path).map_err(CatalogError::io("create", &self.models_path))?;
        let is_here = |name: &str| self.models_path.join(name).exists();
        if !is_here(&names::config_file_name(&entry.name)) || !entry.files.iter().all(|file| is_here(&file.filename)) {
            check_writable(&self.models_path)?;
        }
        let config = self.full_config(&entry, policy)?;
        let mut files = Vec::new();
        for file in &entry.files {
            files.push(self.install_file(file, policy, progress)?);
        }
        let config_path = self.models_path.join(names::config_file_name(&entry.name));
        let config_outcome = write_config(&config_path, &config)?;
        Ok(Installed { name: entry.name, config_path, config_outcome, files })
    }

    /// Brings files into the folder that a configuration lists under `download_files`.
    pub fn install_files(
        &self,
        files: &[crate::DownloadFile],
        policy: FetchPolicy,
        progress: &dyn Progress,
    ) -> Result<(), CatalogError> {
        check_writable(&self.models_path)?;
        for file in files {
            let place = SourcePlace::Uri(address(&file.uri)?);
            let sources = vec![FileSource { place, sha256: file.sha256.clone(), size: None }];
            let file = GalleryFile { filename: file.filename.clone(), sources };
            self.install_file(&file, policy, progress)?;
        }
        Ok(())
    }

    fn install_file(
        &self,
        file: &GalleryFile,
        policy: FetchPolicy,
        progress: &dyn Progress,
    ) -> Result<InstalledFile, CatalogError> {
        let path = names::inside(&self.models_path, "filename", &file.filename)?;
        let fetched = match local_original(file) {
            Some(original) => take_in_place(original, policy)?,
            None => self.fetcher.fetch(file, policy, progress)?,
        };
        link(&fetched.path, &path, file)?;
        Ok(InstalledFile { path, fetched })
    }

    /// The base configuration, where the entry has one, with the entry's own on top and the name in front.
    fn full_config(&self, entry: &GalleryEntry, policy: FetchPolicy) -> Result<Value, CatalogError> {
        let mut config = Value::Object(Map::from_iter([("name".to_owned(), json!(entry.name))]));
        // LocalAI's entries without a base name this empty one.
        let base_url = entry.base_url.as_deref().filter(|url| !url.contains("/virtual.yaml"));
        if let Some(url) = base_url {
            yaml::merge(&mut config, &self.base_config(url, policy)?);
        }
        yaml::merge(&mut config, &entry.config);
        if let Some(description) = entry.description.as_ref().filter(|_| config.get("description").is_none()) {
            yaml::merge(&mut config, &json!({ "description": description.trim() }));
        }
        yaml::merge(&mut config, &json!({ "name": entry.name }));
        Ok(config)
    }

    /// The entry that a configuration file for galleries amounts to.
    pub(crate) fn entry_of_config(&self, url: &str, policy: FetchPolicy) -> Result<GalleryEntry, CatalogError> {
        let uri = address(url)?;
        let text = self.fetcher.fetch_text(&uri, policy)?;
        Gallery::entry_of_config(url, &text)
    }

    fn base_config(&self, url: &str, policy: FetchPolicy) -> Result<Value, CatalogError> {
        let uri = address(url)?;
        let text = self.fetcher.fetch_text(&uri, policy)?;
        let wrong = |error: yaml::YamlError| CatalogError::BadGallery {
            origin: url.to_owned(),
            line: error.line,
            message: error.message,
        };
        let base = yaml::parse(&text).map_err(wrong)?.to_json();
        match base.get("config_file") {
            Some(Value::String(text)) => Ok(yaml::parse(text).map_err(wrong)?.to_json()),
            Some(value) => Ok(value.clone()),
            None => Ok(Value::Object(Map::new())),
        }
    }
}

/// Says so before anything is downloaded when the folder cannot take it, as one that belongs to root and is mounted into
/// a container.
fn check_writable(folder: &Path) -> Result<(), CatalogError> {
    let probe = folder.join(format!(".ingle.{}.probe", std::process::id()));
    match fs::File::create(&probe) {
        Ok(_) => {
            // What is left over is empty and hidden.
            let _ = fs::remove_file(&probe);
            Ok(())
        }
        Err(error) => match (owner(folder), owner(Path::new("/proc/self"))) {
            (Some(owner), Some(user)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(CatalogError::FolderOfAnother { path: folder.to_owned(), owner, user })
            }
            _ => Err(CatalogError::io("write into", folder)(error)),
        },
    }
}

/// Number of the user that it belongs to.
#[cfg(unix)]
fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<u32> {
    None
}

fn address(url: &str) -> Result<FileUri, CatalogError> {
    FileUri::parse(url).unwrap_or_else(|| {
        Err(CatalogError::BadUri { uri: url.to_owned(), reason: "the url of a gallery entry needs a scheme" })
    })
}

/// The entry that a bare address amounts to: all parts of a split file, called like the file.
fn entry_of_uri(uri: FileUri) -> Result<GalleryEntry, CatalogError> {
    let file_name = uri.file_name()?;
    let stem = names::without_gguf(&file_name);
    if stem.len() == file_name.len() {
        return Err(CatalogError::BadUri { uri: uri.to_string(), reason: "only .gguf files can be installed" });
    }
    let shard = ShardName::parse(&file_name);
    let name = shard.as_ref().map_or_else(|| stem.to_owned(), |shard| shard.prefix.clone());
    let file_names = shard.map_or_else(|| vec![file_name.clone()], |shard| shard.all());
    let model = file_names[0].clone();
    let files = file_names.into_iter().map(|filename| {
        let place = SourcePlace::Uri(sibling(&uri, &file_name, &filename));
        GalleryFile { filename, sources: vec![FileSource { place, sha256: None, size: None }] }
    });
    Ok(GalleryEntry {
        name,
        also: Vec::new(),
        description: None,
        license: None,
        urls: Vec::new(),
        tags: Vec::new(),
        base_url: None,
        files: files.collect(),
        config: json!({ "backend": LLAMA_CPP, "parameters": { "model": model } }),
    })
}

/// The same address with another file name.
fn sibling(uri: &FileUri, file_name: &str, other: &str) -> FileUri {
    match uri {
        FileUri::Hub(file) => {
            FileUri::Hub(HubFile { path: replace_last(&file.path, file_name, other), ..file.clone() })
        }
        FileUri::Http(url) => FileUri::Http(replace_last(url, file_name, other)),
        FileUri::Local(path) => FileUri::Local(path.with_file_name(other)),
        // An image is one file.
        FileUri::Registry(_) => uri.clone(),
    }
}

fn replace_last(text: &str, old: &str, new: &str) -> String {
    match text.rfind(old) {
        Some(at) => format!("{}{new}{}", &text[..at], &text[at + old.len()..]),
        None => text.to_owned(),
    }
}

/// The only source, when it is a file of this machine: that one is linked where it lies.
fn local_original(file: &GalleryFile) -> Option<&Path> {
    match &file.sources[..] {
        [FileSource { place: SourcePlace::Uri(FileUri::Local(path)), sha256: None, .. }] => Some(path),
        _ => None,
    }
}

fn take_in_place(original: &Path, policy: FetchPolicy) -> Result<Fetched, CatalogError> {
    if policy.local_files == LocalFiles::Refuse {
        let reason = "files of this machine may not be named here".to_owned();
        return Err(CatalogError::SourceSkipped { reason });
    }
    let path = fs::canonicalize(original).map_err(CatalogError::io("find", original))?;
    let not_a_model = |message: String| CatalogError::NotAModel { path: path.clone(), message };
    let is_later_part = weights::shard_name(&path).is_some_and(|shard| shard.index > 0);
    match weights::Kinds::default().of(&path) {
        Ok(Kind::Model(_)) => {}
        Ok(Kind::Companion) if is_later_part => {}
        Ok(Kind::Companion) => return Err(not_a_model("it is a part of another model, e.g. its projector".to_owned())),
        Err(message) => return Err(not_a_model(message)),
    }
    let bytes = fs::metadata(&path).map_err(CatalogError::io("read", &path))?.len();
    let source = format!("file://{}", path.display());
    Ok(Fetched { path, bytes, outcome: Outcome::AlreadyThere, source })
}

/// Makes `link` lead to `original`: a symbolic link, else a hard link, else a copy. A link of ours is replaced, a file
/// of somebody's is not.
fn link(original: &Path, link: &Path, file: &GalleryFile) -> Result<(), CatalogError> {
    let folder = link.parent().expect("the link is inside the models folder; this is a bug");
    fs::create_dir_all(folder).map_err(CatalogError::io("create", folder))?;
    let same = |a: &Path, b: &Path| matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b);
    if same(original, link) {
        return Ok(());
    }
    if let Ok(found) = fs::symlink_metadata(link)
        && !found.is_symlink()
    {
        return keep_if_equal(link, file);
    }
    let fresh = folder.join(format!(".{}.{}.link", file.filename.replace('/', "_"), std::process::id()));
    let _ = fs::remove_file(&fresh);
    symlink(original, &fresh)
        .or_else(|_| fs::hard_link(original, &fresh))
        .or_else(|_| fs::copy(original, &fresh).map(|_| ()))
        .map_err(CatalogError::io("link to", original))?;
    fs::rename(&fresh, link).map_err(CatalogError::io("create", link))
}

/// A real file of the right bytes is as good as a link.
fn keep_if_equal(found: &Path, file: &GalleryFile) -> Result<(), CatalogError> {
    let actual = crate::fetch::sha256_of_file(found)?;
    let is_equal = file.sources.iter().any(|source| source.sha256.as_ref() == Some(&actual));
    if is_equal { Ok(()) } else { Err(CatalogError::FileInTheWay { path: found.to_owned() }) }
}

#[cfg(unix)]
fn symlink(original: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(original, link)
}

#[cfg(windows)]
fn symlink(original: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(original, link)
}

fn write_config(path: &Path, config: &Value) -> Result<ConfigOutcome, CatalogError> {
    if path.exists() {
        return Ok(ConfigOutcome::Kept);
    }
    let text = serde_saphyr::to_string(config).map_err(|error| CatalogError::BadGallery {
        origin: path.display().to_string(),
        line: 0,
        message: error.to_string(),
    })?;
    let fresh = path.with_extension(format!("yaml.{}.new", std::process::id()));
    fs::write(&fresh, text).map_err(CatalogError::io("write", &fresh))?;
    fs::rename(&fresh, path).map_err(CatalogError::io("create", path))?;
    Ok(ConfigOutcome::Written)
}

#[cfg(test)]
mod tests;
