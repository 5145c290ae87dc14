//! Where the cache is, how the hub is reached, how long we wait.

use super::disk::{DiskSpace, SpaceProbe};
use crate::CatalogError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything a fetcher needs to know.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// The user's cache of this program; weights lie in `models` below it.
    pub cache_root: PathBuf,
    /// The model hub.
    pub hub: HubSettings,
    /// Address of the registry behind `ollama://`; `INGLE_OLLAMA_REGISTRY`.
    pub ollama_registry: String,
    /// Python packages.
    pub pip: PipSettings,
    /// Time-outs and tries.
    pub http: HttpSettings,
    /// Tells how much room there is.
    pub space: Arc<dyn SpaceProbe>,
}

/// How the model hub is reached.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// `HF_ENDPOINT`; the hub's own address by default.
    pub endpoint: String,
    /// `HF_TOKEN`, or the token file of the hub's tools.
    pub token: Option<String>,
    /// Cache of the hub's tools, looked into before anything is downloaded.
    pub cache: Option<PathBuf>,
    /// `HF_HUB_OFFLINE`.
    pub access: HubAccess,
}

/// Whether the hub may be contacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubAccess {
    /// Yes.
    Online,
    /// Only what is in its cache.
    Offline,
}

/// How Python packages are fetched.
#[derive(Debug, Clone)]
pub struct PipSettings {
    /// The interpreter.
    pub python: PathBuf,
    /// Longest time for one `pip download`.
    pub timeout: Duration,
}

/// Time-outs and tries.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub stall_timeout: Duration,
    /// Tries in a row that bring nothing, before the source is given up.
    pub max_attempts: u32,
    /// Pause before the second try; it doubles.
    pub first_pause: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            max_attempts: 3,
            first_pause: Duration::from_secs(1),
        }
    }
}

impl FetchSettings {
    /// Reads `INGLE_CACHE`, `XDG_CACHE_HOME`, `HOME` and the hub's `HF_*` variables.
    pub fn from_env() -> Result<Self, CatalogError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// The same with the environment as a parameter.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CatalogError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let user_cache = set("XDG_CACHE_HOME").map(PathBuf::from);
        let user_cache = user_cache.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let own = set("INGLE_CACHE").map(PathBuf::from);
        let cache_root = own.or_else(|| user_cache.as_ref().map(|cache| cache.join("ingle")));
        let hub_home = set("HF_HOME").map(PathBuf::from).or_else(|| user_cache.map(|cache| cache.join("huggingface")));
        Ok(Self {
            cache_root: cache_root.ok_or(CatalogError::NoCacheFolder)?,
            hub: HubSettings::from_variables(&set, hub_home),
            ollama_registry: set("INGLE_OLLAMA_REGISTRY").unwrap_or_else(|| "https://registry.ollama.ai".to_owned()),
            pip: PipSettings::default(),
            http: HttpSettings::default(),
            space: Arc::new(DiskSpace),
        })
    }

    /// Folder of the weights.
    #[must_use]
    pub fn models_cache(&self) -> PathBuf {
        self.cache_root.join("models")
    }

    /// Folder of Python wheels.
    #[must_use]
    pub fn pip_cache(&self) -> PathBuf {
        self.cache_root.join("pip")
    }
}

impl HubSettings {
    fn from_variables(set: &dyn Fn(&str) -> Option<String>, hub_home: Option<PathBuf>) -> Self {
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| hub_home.map(|home| home.join("hub")));
        let offline = set("HF_HUB_OFFLINE").is_some_and(|value| crate::model_yaml::read_flag(&value) == Some(true));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN").or_else(|| cache.clone().and_then(|cache| hf_hub::Cache::new(cache).token())),
            cache,
            access: if offline { HubAccess::Offline } else { HubAccess::Online },
        }
    }
}

impl Default for PipSettings {
    fn default() -> Self {
        Self { python: PathBuf::from("python3"), timeout: Duration::from_secs(30 * 60) }
    }
}
