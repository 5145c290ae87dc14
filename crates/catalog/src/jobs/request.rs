//! What a job is asked to install.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::GallerySource;
use crate::fetch::{FetchPolicy, Fetcher, LocalFiles, PipUse, Reach};
use crate::gallery::{FileSource, Gallery, GalleryEntry, GalleryFile, SourcePlace};
use crate::install::Installer;
use crate::uri::FileUri;
use crate::{CatalogError, names, yaml};

/// The body of LocalAI's `/models/apply`: one of `id`, `url` and `config_file`, and what goes on top.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplyRequest {
    /// `gallery@name` or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Address of a configuration file for galleries, or of a model file.
    #[serde(skip_serializing_if = "Option::is_none", alias = "config_url", alias = "uri")]
    pub url: Option<String>,
    /// A model configuration, as YAML text or as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<Value>,
    /// What requests call the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Put on top of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Value>,
    /// Further files.
    pub files: Vec<ApplyFile>,
}

/// A file of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplyFile {
    /// Inside the models folder.
    pub filename: String,
    /// Where from.
    pub uri: String,
    /// 64 hex digits; may be empty.
    pub sha256: String,
}

impl ApplyRequest {
    /// What people call the job.
    pub(super) fn title(&self) -> String {
        let named = [&self.name, &self.id, &self.url].into_iter().flatten().find(|text| !text.is_empty());
        named.cloned().unwrap_or_else(|| "model".into())
    }

    /// Is there anything to install, and does it stay inside the folder?
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn check(&self) -> Result<(), CatalogError> {
        let refuse = |message: String| Err(CatalogError::BadRequest { message });
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        if !is_set(&self.id) && !is_set(&self.url) && self.config_file.is_none() && self.files.is_empty() {
            return refuse("name what to install: `id` of a gallery, `url`, `config_file` or `files`".into());
        }
        if let Some(name) = self.name.as_deref().filter(|name| !name.is_empty()) {
            names::check_model_name(name)?;
        }
        if let Some(overrides) =
            self.overrides.as_ref().filter(|overrides| !overrides.is_object() && !overrides.is_null())
        {
            return refuse(format!("`overrides` is {overrides}; send an object"));
        }
        self.files.iter().try_for_each(|file| file.parsed().map(drop))
    }

    /// What is installed, and what may be used to get it.
    pub(super) fn entry(
        &self,
        installer: &Installer,
        allows_private: bool,
    ) -> Result<(GalleryEntry, FetchPolicy), CatalogError> {
        // Addresses of a gallery are its operator's; those in a request are anybody's.
        let is_from_gallery = self.url.is_none() && self.config_file.is_none() && self.files.is_empty();
        let reach = if allows_private || is_from_gallery { Reach::Anywhere } else { Reach::PublicOnly };
        let policy = FetchPolicy { pip: PipUse::Never, local_files: LocalFiles::Refuse, reach };
        let mut entry = self.base(installer, policy)?;
        if let Some(overrides) = self.overrides.as_ref().filter(|overrides| overrides.is_object()) {
            yaml::merge(&mut entry.config, overrides);
        }
        for file in &self.files {
            entry.files.push(file.parsed()?);
        }
        if let Some(name) = self.name.clone().filter(|name| !name.is_empty()) {
            entry.name = name;
        }
        names::check_model_name(&entry.name)?;
        Ok((entry, policy))
    }

    fn base(&self, installer: &Installer, policy: FetchPolicy) -> Result<GalleryEntry, CatalogError> {
        if let Some(id) = self.id.as_deref().filter(|id| !id.trim().is_empty()) {
            return installer.find(id);
        }
        let mut entry = GalleryEntry {
            name: self.name.clone().unwrap_or_default(),
            also: Vec::new(),
            description: None,
            license: None,
            urls: Vec::new(),
            tags: Vec::new(),
            base_url: None,
            files: Vec::new(),
            config: Value::Object(Map::new()),
        };
        match (&self.url, &self.config_file) {
            (Some(url), _) if !url.trim().is_empty() => {
                let is_config = [".yaml", ".yml"]
                    .iter()
                    .any(|ending| url.split('@').next().is_some_and(|url| url.ends_with(ending)));
                if !is_config {
                    return installer.find(url);
                }
                entry = installer.entry_of_config(url, policy)?;
            }
            (_, Some(Value::String(text))) => entry.config = parsed(text)?,
            (_, Some(config)) => entry.config = config.clone(),
            (_, None) => {}
        }
        if entry.name.is_empty() {
            entry.name = match entry.config.get("name").and_then(Value::as_str) {
                Some(name) => name.to_owned(),
                None => return Err(CatalogError::BadRequest { message: "the model needs a `name`".into() }),
            };
        }
        if entry.config.get("parameters").is_none()
            && let Some(file) = self.files.first()
        {
            yaml::merge(&mut entry.config, &json!({ "parameters": { "model": file.filename } }));
        }
        Ok(entry)
    }
}

fn parsed(text: &str) -> Result<Value, CatalogError> {
    let node = yaml::parse(text).map_err(|error| CatalogError::BadRequest {
        message: format!("`config_file`, line {}: {}", error.line, error.message),
    })?;
    Ok(node.to_json())
}

impl ApplyFile {
    fn parsed(&self) -> Result<GalleryFile, CatalogError> {
        names::check("filename", &self.filename)?;
        let uri = FileUri::parse(&self.uri).unwrap_or_else(|| {
            Err(CatalogError::BadUri { uri: self.uri.clone(), reason: "a file needs an address with a scheme" })
        })?;
        if matches!(uri, FileUri::Local(_)) {
            return Err(CatalogError::SourceSkipped { reason: "files of this machine may not be named here".into() });
        }
        let digest = self.sha256.trim().to_ascii_lowercase();
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digest.is_empty() && !is_digest {
            let message = format!("the sha256 of {} is not 64 hexadecimal digits", self.filename);
            return Err(CatalogError::BadRequest { message });
        }
        let sha256 = Some(digest).filter(|digest| !digest.is_empty());
        let source = FileSource { place: SourcePlace::Uri(uri), sha256, size: None };
        Ok(GalleryFile { filename: self.filename.clone(), sources: vec![source] })
    }
}

/// Reads the index of a gallery: an address, or a file inside the models folder.
pub(super) fn gallery(fetcher: &Fetcher, source: &GallerySource, models_path: &Path) -> Result<Gallery, CatalogError> {
    let uri = FileUri::parse(&source.url).unwrap_or_else(|| {
        Err(CatalogError::BadUri { uri: source.url.clone(), reason: "the address of a gallery needs a scheme" })
    })?;
    if let FileUri::Local(path) = &uri {
        let inside = |folder: &Path| std::fs::canonicalize(path).is_ok_and(|path| path.starts_with(folder));
        if !std::fs::canonicalize(models_path).is_ok_and(|folder| inside(&folder)) {
            return Err(CatalogError::SourceSkipped { reason: "a gallery file must lie in the models folder".into() });
        }
    }
    let policy = FetchPolicy { pip: PipUse::Never, local_files: LocalFiles::Allow, reach: Reach::Anywhere };
    Gallery::parse(&source.url, &fetcher.fetch_text(&uri, policy)?)
}
