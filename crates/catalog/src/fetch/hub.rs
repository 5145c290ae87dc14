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
