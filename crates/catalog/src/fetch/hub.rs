//! The model hub: addresses, token and cache layout come from hf-hub. The transfer is ours, the same as for every
//! address: hf-hub's own has no time-outs and appends to a part even when the server answers with the whole file.

use super::http::Http;
use super::settings::{HubAccess, HubSettings};
use crate::CatalogError;
use crate::uri::HubFile;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use std::path::PathBuf;

/// Where a hub file is downloaded from.
pub(super) struct Address {
    pub url: String,
    pub token: Option<String>,
}

fn repo(file: &HubFile) -> Repo {
    Repo::with_revision(file.repo.clone(), RepoType::Model, file.revision.clone())
}

/// The file, when the hub's own tools have fetched it before.
pub(super) fn in_hub_cache(hub: &HubSettings, file: &HubFile) -> Option<PathBuf> {
    let cache = Cache::new(hub.cache.clone()?).repo(repo(file));
    let by_branch = || cache.get(&file.path);
    let by_commit = || Some(cache.pointer_path(&file.revision).join(&file.path)).filter(|path| path.is_file());
    by_branch().or_else(by_commit)
}

/// The address of the file, unless the hub is not to be contacted.
pub(super) fn address(hub: &HubSettings, file: &HubFile) -> Result<Address, CatalogError> {
    if hub.access == HubAccess::Offline {
        return Err(CatalogError::SourceSkipped { reason: "HF_HUB_OFFLINE is set".to_owned() });
    }
    // The cache folder is not written: the address is all we ask for.
    let cache = Cache::new(hub.cache.clone().unwrap_or_default());
    let api = ApiBuilder::from_cache(cache).with_endpoint(hub.endpoint.clone()).with_progress(false).build();
    let unusable =
        |message: String| CatalogError::Transport { url: hub.endpoint.clone(), message, retry: crate::Retry::Useless };
    let api = api.map_err(|error| unusable(error.to_string()))?;
    Ok(Address { url: api.repo(repo(file)).url(&file.path), token: hub.token.clone() })
}

/// A short text of the hub.
pub(super) fn text(http: &Http, hub: &HubSettings, file: &HubFile) -> Result<String, CatalogError> {
    let address = address(hub, file)?;
    http.get_text(&address.url, address.token.as_deref())
}

/// A file of a repository, as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Listed {
    pub path: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    lfs: Option<Large>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
struct Large {
    oid: String,
}

impl Listed {
    /// 64 hex digits, of large files.
    pub(crate) fn sha256(&self) -> Option<String> {
        let oid = self.lfs.as_ref()?.oid.to_ascii_lowercase();
        (oid.len() == 64 && oid.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(oid)
    }
}

/// The files of a repository.
pub(super) fn list(
    http: &Http,
    hub: &HubSettings,
    repository: &str,
    revision: &str,
) -> Result<Vec<Listed>, CatalogError> {
    if hub.access == HubAccess::Offline {
        return Err(CatalogError::SourceSkipped { reason: "HF_HUB_OFFLINE is set".to_owned() });
    }
    let url = format!("{}/api/models/{repository}/tree/{revision}?recursive=true", hub.endpoint);
    let text = http.get_text(&url, hub.token.as_deref())?;
    serde_json::from_str(&text).map_err(|error| CatalogError::Transport {
        url,
        message: format!("the list of files cannot be read: {error}"),
        retry: crate::Retry::Useless,
    })
}
