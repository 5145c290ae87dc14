//! The flags of `ingle run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::values::{Amount, amount, duration, share};
use super::{FolderArgs, LoadArgs};

/// Arguments of `ingle run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Models to install where needed and to load before the first request
    #[arg(value_name = "MODEL", env = "LOCALAI_MODELS", value_delimiter = ',')]
    pub(crate) models: Vec<String>,
    /// Where to listen: HOST:PORT, or :PORT for every interface; port 0 picks a free one
    #[arg(long, env = "LOCALAI_ADDRESS", value_name = "ADDRESS", default_value = ":8080")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    /// Stop with an error when no GPU can be used
    #[arg(long, env = "INGLE_REQUIRE_GPU", value_parser = FalseyValueParser::new())]
    pub(crate) require_gpu: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) install: InstallArgs,
    #[command(flatten)]
    pub(crate) residency: ResidencyArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
}

/// What is brought in at the start.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct InstallArgs {
    /// Names of models to load before the first request, comma separated
    #[arg(long, env = "LOCALAI_LOAD_TO_MEMORY", value_name = "MODEL", value_delimiter = ',')]
    pub(crate) load_to_memory: Vec<String>,
    /// JSON list of bodies of POST /models/apply, installed before the first request
    #[arg(long, env = "LOCALAI_PRELOAD_MODELS", value_name = "JSON")]
    pub(crate) preload_models: Option<String>,
    /// YAML file with the same list
    #[arg(long, env = "LOCALAI_PRELOAD_MODELS_CONFIG", value_name = "FILE")]
    pub(crate) preload_models_config: Option<PathBuf>,
    /// Install the models of LocalAI's all-in-one images under their names: gpt-4, gpt-4o
    #[arg(long, env = "PROFILE", value_name = "aio")]
    pub(crate) profile: Option<String>,
    /// JSON list of galleries, [{"name": ..., "url": ...}], beside the one that comes with the program
    #[arg(long, env = "LOCALAI_GALLERIES", value_name = "JSON")]
    pub(crate) galleries: Option<String>,
    /// Key for downloads from the model hub
    #[arg(long, env = "HF_TOKEN", value_name = "KEY", hide_env_values = true, hide = true)]
    pub(crate) hf_token: Option<String>,
    /// Let requests name addresses of private networks
    #[arg(long, env = "INGLE_ALLOW_PRIVATE_URLS", value_parser = FalseyValueParser::new())]
    pub(crate) allow_private_urls: bool,
    /// Install and load the models, and end
    #[arg(long, env = "LOCALAI_PRELOAD_BACKEND_ONLY", value_parser = FalseyValueParser::new())]
    pub(crate) preload_backend_only: bool,
}

/// How long models stay in memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub(crate) struct ResidencyArgs {
    /// Models in memory at once; 0 is as many as fit
    #[arg(long, env = "LOCALAI_MAX_ACTIVE_BACKENDS", value_name = "COUNT", default_value_t = 0)]
    pub(crate) max_active_backends: usize,
    /// The same as --max-active-backends 1
    #[arg(long, env = "LOCALAI_SINGLE_ACTIVE_BACKEND", value_parser = FalseyValueParser::new())]
    pub(crate) single_active_backend: bool,
    /// Memory that all models may take together, such as 12GB or 80% [default: what there is]
    #[arg(long, env = "INGLE_MEMORY_BUDGET", value_name = "AMOUNT", value_parser = amount)]
    pub(crate) memory_budget: Option<Amount>,
    /// The same on a machine with GPUs, of their memory
    #[arg(long, env = "LOCALAI_VRAM_BUDGET", value_name = "AMOUNT", value_parser = amount)]
    pub(crate) vram_budget: Option<Amount>,
    /// How long a model stays at least; models that do not fit together take turns of this length
    #[arg(long, env = "INGLE_MIN_RESIDENCE", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) min_residence: Duration,
    /// Take models out of memory that were not used for --watchdog-idle-timeout
    #[arg(long, env = "LOCALAI_WATCHDOG_IDLE", value_parser = FalseyValueParser::new())]
    pub(crate) enable_watchdog_idle: bool,
    /// How long a model may be idle
    #[arg(long, env = "LOCALAI_WATCHDOG_IDLE_TIMEOUT", value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(crate) watchdog_idle_timeout: Duration,
    /// End answers that take longer than --watchdog-busy-timeout
    #[arg(long, env = "LOCALAI_WATCHDOG_BUSY", value_parser = FalseyValueParser::new())]
    pub(crate) enable_watchdog_busy: bool,
    /// How long an answer may take once it has begun
    #[arg(long, env = "LOCALAI_WATCHDOG_BUSY_TIMEOUT", value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(crate) watchdog_busy_timeout: Duration,
    /// How often idle times and memory are looked at
    #[arg(long, env = "LOCALAI_WATCHDOG_INTERVAL", value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub(crate) watchdog_interval: Duration,
    /// Take idle models out of memory while more than --memory-reclaimer-threshold of it is used
    #[arg(long, env = "LOCALAI_MEMORY_RECLAIMER", value_parser = FalseyValueParser::new())]
    pub(crate) enable_memory_reclaimer: bool,
    /// Share of the memory, of the GPUs where there are any
    #[arg(long, env = "LOCALAI_MEMORY_RECLAIMER_THRESHOLD", value_name = "SHARE", default_value = "0.95", value_parser = share)]
    pub(crate) memory_reclaimer_threshold: f64,
    /// End the answers of a model that has to make room for another one
    #[arg(long, env = "LOCALAI_FORCE_EVICTION_WHEN_BUSY", value_parser = FalseyValueParser::new())]
    pub(crate) force_eviction_when_busy: bool,
    /// The largest idle model makes room first, not the one that was used least recently
    #[arg(long, env = "LOCALAI_SIZE_AWARE_EVICTION", value_parser = FalseyValueParser::new())]
    pub(crate) size_aware_eviction: bool,
    /// How often a load waits for a busy model, each time for --lru-eviction-retry-interval
    #[arg(long, env = "LOCALAI_LRU_EVICTION_MAX_RETRIES", value_name = "COUNT", default_value_t = 30)]
    pub(crate) lru_eviction_max_retries: u32,
    /// How long it waits each time
    #[arg(long, env = "LOCALAI_LRU_EVICTION_RETRY_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) lru_eviction_retry_interval: Duration,
    /// After a failed load, requests for the model are refused for this long; doubles up to 5m
    #[arg(long, env = "LOCALAI_MODEL_LOAD_FAILURE_COOLDOWN", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) model_load_failure_cooldown: Duration,
    /// Requests in all models at once before others are refused
    #[arg(long, env = "LOCALAI_MAX_CONCURRENT_BACKEND_REQUESTS", value_name = "COUNT", default_value_t = 1024)]
    pub(crate) max_concurrent_backend_requests: usize,
}

/// How the HTTP side behaves.
#[derive(Debug, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct HttpArgs {
    /// Keys of which a request must carry one, comma separated
    #[arg(
        long,
        env = "LOCALAI_API_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true,
        alias = "api-key"
    )]
    pub(crate) api_keys: Vec<String>,
    /// Folder of api_keys.json, a list of further keys that is read again when it changes
    #[arg(long, env = "LOCALAI_CONFIG_DIR", value_name = "FOLDER", default_value = "configuration")]
    pub(crate) localai_config_dir: PathBuf,
    /// Listen on a public address although no key is needed
    #[arg(long, env = "LOCALAI_ALLOW_INSECURE_PUBLIC_BIND", value_parser = FalseyValueParser::new())]
    pub(crate) allow_insecure_public_bind: bool,
    /// Let GET requests without a key through to --http-get-exempted-endpoints
    #[arg(
        long,
        env = "LOCALAI_DISABLE_API_KEY_REQUIREMENT_FOR_HTTP_GET",
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) disable_api_key_requirement_for_http_get: bool,
    /// Regular expressions of paths, comma separated
    #[arg(
        long,
        env = "LOCALAI_HTTP_GET_EXEMPTED_ENDPOINTS",
        value_name = "REGEX",
        value_delimiter = ',',
        default_value = "^/$,^/app(/.*)?$,^/browse(/.*)?$,^/login/?$,^/explorer/?$,^/assets/.*$,^/static/.*$,^/swagger.*$"
    )]
    pub(crate) http_get_exempted_endpoints: Vec<String>,
    /// Requests a minute that one key, or one address without keys, may send; 0 is any number
    #[arg(long, env = "INGLE_RATE_LIMIT", value_name = "COUNT", default_value_t = 0)]
    pub(crate) rate_limit: u32,
    /// Largest request in MB [default: 15 beside media, 64 with media, 1024 with a recording]
    #[arg(long, env = "LOCALAI_UPLOAD_LIMIT", value_name = "MB")]
    pub(crate) upload_limit: Option<u32>,
    /// Only web pages of --cors-allow-origins may call the server, or none
    #[arg(long, env = "LOCALAI_CORS", value_parser = FalseyValueParser::new())]
    pub(crate) cors: bool,
    /// Origins of web pages that may call the server, comma separated [default: all]
    #[arg(long, env = "LOCALAI_CORS_ALLOW_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) cors_allow_origins: Vec<String>,
    /// Take requests that a web page of another site makes without a key
    #[arg(long, env = "LOCALAI_DISABLE_CSRF", value_parser = FalseyValueParser::new())]
    pub(crate) disable_csrf: bool,
    /// Address of this server as clients see it, for links in answers
    #[arg(long, env = "LOCALAI_BASE_URL", value_name = "URL")]
    pub(crate) external_base_url: Option<String>,
    /// Never compress answers
    #[arg(long, env = "LOCALAI_DISABLE_HTTP_COMPRESSION", value_parser = FalseyValueParser::new())]
    pub(crate) disable_http_compression: bool,
    /// Compress answers of so many bytes and more, for clients that want it
    #[arg(long, env = "LOCALAI_HTTP_COMPRESSION_MIN_LENGTH", value_name = "BYTES", default_value_t = 1024)]
    pub(crate) http_compression_min_length: u16,
    /// Value of the header Machine-Tag on every answer
    #[arg(long, env = "LOCALAI_MACHINE_TAG", value_name = "TEXT")]
    pub(crate) machine_tag: Option<String>,
    /// Answer failures with their status and no explanation
    #[arg(long, env = "LOCALAI_OPAQUE_ERRORS", value_parser = FalseyValueParser::new())]
    pub(crate) opaque_errors: bool,
    /// No /metrics
    #[arg(long, env = "LOCALAI_DISABLE_METRICS_ENDPOINT", value_parser = FalseyValueParser::new())]
    pub(crate) disable_metrics_endpoint: bool,
    /// No endpoints that install and delete models
    #[arg(long, env = "LOCALAI_DISABLE_GALLERY_ENDPOINT", value_parser = FalseyValueParser::new())]
    pub(crate) disable_gallery_endpoint: bool,
    /// Seconds that running answers get after the server was told to stop
    #[arg(long, env = "INGLE_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_timeout: u64,
}
