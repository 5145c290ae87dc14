//! LocalAI's flags and variables of `run`, all of them: which do what they do there, and what becomes of the others.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use ingle::catalog::Standing;

use Kind::{Switch, Value};
use Standing::{NoEffect, Planned, Works};

/// Whether a flag has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--flag`, or `--flag=false`.
    Switch,
    /// `--flag VALUE`.
    Value,
}

/// One flag of LocalAI's `run`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Without the dashes.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Its variables: the preferred one, then older ones.
    pub(crate) variables: &'static [&'static str],
    pub(crate) standing: Standing,
}

const fn flag(name: &'static str, kind: Kind, variables: &'static [&'static str], standing: Standing) -> Flag {
    Flag { name, kind, variables, standing }
}

pub(crate) const BACKENDS: &str = "backends are part of the program";
pub(crate) const ONE_MACHINE: &str = "one process serves one machine; put a load balancer in front of several";
pub(crate) const AGENTS: &str = "Ingle runs no agents; use an agent framework as a client";
const ACCOUNTS: &str = "there are no user accounts; requests are let in by --api-keys";
const MIDDLEWARE: &str = "Ingle does not filter or route the traffic of clients; put a gateway in front";
pub(crate) const REALTIME: &str = "there is no realtime endpoint";

/// Every flag of LocalAI's `run`.
pub(crate) const FLAGS: &[Flag] = &[
    flag("color", Value, &["COLOR"], NoEffect("colours follow the terminal")),
    flag("no-color", Value, &["NO_COLOR"], NoEffect("colours follow the terminal")),
    flag("hf-token", Value, &["HF_TOKEN"], Works),
    flag("version", Switch, &[], Works),
    flag("models-path", Value, &["LOCALAI_MODELS_PATH", "MODELS_PATH"], Works),
    flag(
        "artifact-download-concurrency",
        Value,
        &["LOCALAI_ARTIFACT_DOWNLOAD_CONCURRENCY"],
        NoEffect("files of a model come one after the other, models beside each other"),
    ),
    flag(
        "generated-content-path",
        Value,
        &["LOCALAI_GENERATED_CONTENT_PATH", "GENERATED_CONTENT_PATH"],
        Planned("image generation"),
    ),
    flag("upload-path", Value, &["LOCALAI_UPLOAD_PATH", "UPLOAD_PATH"], NoEffect("uploads are not kept")),
    flag("data-path", Value, &["LOCALAI_DATA_PATH"], NoEffect("nothing but models is kept on disk")),
    flag("localai-config-dir", Value, &["LOCALAI_CONFIG_DIR"], Works),
    flag(
        "localai-config-dir-poll-interval",
        Value,
        &["LOCALAI_CONFIG_DIR_POLL_INTERVAL"],
        NoEffect("the folder is looked at with each request"),
    ),
    flag("models-config-file", Value, &["LOCALAI_MODELS_CONFIG_FILE", "CONFIG_FILE"], Works),
    flag("galleries", Value, &["LOCALAI_GALLERIES", "GALLERIES"], Works),
    flag(
        "autoload-galleries",
        Switch,
        &["LOCALAI_AUTOLOAD_GALLERIES", "AUTOLOAD_GALLERIES"],
        NoEffect("models are installed when they are asked for by run, models install or /models/apply"),
    ),
    flag("preload-models", Value, &["LOCALAI_PRELOAD_MODELS", "PRELOAD_MODELS"], Works),
    flag("models", Value, &["LOCALAI_MODELS", "MODELS"], Works),
    flag("preload-models-config", Value, &["LOCALAI_PRELOAD_MODELS_CONFIG", "PRELOAD_MODELS_CONFIG"], Works),
    flag("load-to-memory", Value, &["LOCALAI_LOAD_TO_MEMORY", "LOAD_TO_MEMORY"], Works),
    flag(
        "f16",
        Switch,
        &["LOCALAI_F16", "F16"],
        NoEffect("the cache is f16 unless cache_type_k and cache_type_v say otherwise"),
    ),
    flag("threads", Value, &["LOCALAI_THREADS", "THREADS"], Works),
    flag("context-size", Value, &["LOCALAI_CONTEXT_SIZE", "CONTEXT_SIZE"], Works),
    flag("web-rtcnat-1-to-1-i-ps", Value, &["LOCALAI_WEBRTC_NAT_1TO1_IPS", "WEBRTC_NAT_1TO1_IPS"], NoEffect(REALTIME)),
    flag(
        "web-rtcice-interfaces",
        Value,
        &["LOCALAI_WEBRTC_ICE_INTERFACES", "WEBRTC_ICE_INTERFACES"],
        NoEffect(REALTIME),
    ),
    flag("web-rtc-udp-port", Value, &["LOCALAI_WEBRTC_UDP_PORT"], NoEffect(REALTIME)),
    flag("address", Value, &["LOCALAI_ADDRESS", "ADDRESS"], Works),
    flag("cors", Switch, &["LOCALAI_CORS", "CORS"], Works),
    flag("cors-allow-origins", Value, &["LOCALAI_CORS_ALLOW_ORIGINS", "CORS_ALLOW_ORIGINS"], Works),
    flag("disable-csrf", Switch, &["LOCALAI_DISABLE_CSRF"], Works),
    flag("disable-http-compression", Switch, &["LOCALAI_DISABLE_HTTP_COMPRESSION"], Works),
    flag("http-compression-min-length", Value, &["LOCALAI_HTTP_COMPRESSION_MIN_LENGTH"], Works),
    flag("upload-limit", Value, &["LOCALAI_UPLOAD_LIMIT", "UPLOAD_LIMIT"], Works),
    flag("api-keys", Value, &["LOCALAI_API_KEY", "API_KEY"], Works),
    flag(
        "disable-web-ui",
        Switch,
        &["LOCALAI_DISABLE_WEBUI", "DISABLE_WEBUI"],
        NoEffect("there is no web page but /swagger"),
    ),
    flag("ollama-api-root-endpoint", Switch, &["LOCALAI_OLLAMA_API_ROOT_ENDPOINT"], Planned("the Ollama dialect")),
    flag(
        "disable-runtime-settings",
        Switch,
        &["LOCALAI_DISABLE_RUNTIME_SETTINGS", "DISABLE_RUNTIME_SETTINGS"],
        NoEffect("runtime_settings.json is not read"),
    ),
    flag("disable-metrics-endpoint", Switch, &["LOCALAI_DISABLE_METRICS_ENDPOINT", "DISABLE_METRICS_ENDPOINT"], Works),
    flag("disable-gallery-endpoint", Switch, &["LOCALAI_DISABLE_GALLERY_ENDPOINT", "DISABLE_GALLERY_ENDPOINT"], Works),
    flag("disable-mcp", Switch, &["LOCALAI_DISABLE_MCP", "DISABLE_MCP"], NoEffect(AGENTS)),
    flag("machine-tag", Value, &["LOCALAI_MACHINE_TAG", "MACHINE_TAG"], Works),
    flag(
        "enable-tracing",
        Switch,
        &["LOCALAI_ENABLE_TRACING", "ENABLE_TRACING"],
        NoEffect("the log tells: --log-level debug"),
    ),
    flag("tracing-max-items", Value, &["LOCALAI_TRACING_MAX_ITEMS"], NoEffect("the log tells: --log-level debug")),
    flag(
        "tracing-max-body-bytes",
        Value,
        &["LOCALAI_TRACING_MAX_BODY_BYTES"],
        NoEffect("the log tells: --log-level debug"),
    ),
    flag(
        "agent-job-retention-days",
        Value,
        &["LOCALAI_AGENT_JOB_RETENTION_DAYS", "AGENT_JOB_RETENTION_DAYS"],
        NoEffect(AGENTS),
    ),
    flag(
        "open-responses-store-ttl",
        Value,
        &["LOCALAI_OPEN_RESPONSES_STORE_TTL", "OPEN_RESPONSES_STORE_TTL"],
        Planned("the Responses dialect"),
    ),
    flag("external-base-url", Value, &["LOCALAI_BASE_URL"], Works),
    flag(
        "disable-predownload-scan",
        Switch,
        &["LOCALAI_DISABLE_PREDOWNLOAD_SCAN"],
        NoEffect("every file is checked against its sha256"),
    ),
    flag(
        "require-backend-integrity",
        Switch,
        &["LOCALAI_REQUIRE_BACKEND_INTEGRITY", "REQUIRE_BACKEND_INTEGRITY"],
        NoEffect(BACKENDS),
    ),
    flag("opaque-errors", Switch, &["LOCALAI_OPAQUE_ERRORS"], Works),
    flag(
        "use-subtle-key-comparison",
        Switch,
        &["LOCALAI_SUBTLE_KEY_COMPARISON"],
        NoEffect("keys are always compared in constant time"),
    ),
    flag(
        "disable-api-key-requirement-for-http-get",
        Switch,
        &["LOCALAI_DISABLE_API_KEY_REQUIREMENT_FOR_HTTP_GET"],
        Works,
    ),
    flag("allow-insecure-public-bind", Switch, &["LOCALAI_ALLOW_INSECURE_PUBLIC_BIND"], Works),
    flag("http-get-exempted-endpoints", Value, &["LOCALAI_HTTP_GET_EXEMPTED_ENDPOINTS"], Works),
    flag("external-backends", Value, &["LOCALAI_EXTERNAL_BACKENDS", "EXTERNAL_BACKENDS"], NoEffect(BACKENDS)),
    flag("backends-path", Value, &["LOCALAI_BACKENDS_PATH", "BACKENDS_PATH"], NoEffect(BACKENDS)),
    flag("backends-system-path", Value, &["LOCALAI_BACKENDS_SYSTEM_PATH", "BACKEND_SYSTEM_PATH"], NoEffect(BACKENDS)),
    flag("backend-galleries", Value, &["LOCALAI_BACKEND_GALLERIES", "BACKEND_GALLERIES"], NoEffect(BACKENDS)),
    flag(
        "autoload-backend-galleries",
        Switch,
        &["LOCALAI_AUTOLOAD_BACKEND_GALLERIES", "AUTOLOAD_BACKEND_GALLERIES"],
        NoEffect(BACKENDS),
    ),
    flag(
        "backend-images-release-tag",
        Value,
        &["LOCALAI_BACKEND_IMAGES_RELEASE_TAG", "BACKEND_IMAGES_RELEASE_TAG"],
        NoEffect(BACKENDS),
    ),
    flag(
        "backend-images-branch-tag",
        Value,
        &["LOCALAI_BACKEND_IMAGES_BRANCH_TAG", "BACKEND_IMAGES_BRANCH_TAG"],
        NoEffect(BACKENDS),
    ),
    flag("backend-dev-suffix", Value, &["LOCALAI_BACKEND_DEV_SUFFIX", "BACKEND_DEV_SUFFIX"], NoEffect(BACKENDS)),
    flag(
        "auto-upgrade-backends",
        Switch,
        &["LOCALAI_AUTO_UPGRADE_BACKENDS", "AUTO_UPGRADE_BACKENDS"],
        NoEffect(BACKENDS),
    ),
    flag(
        "prefer-development-backends",
        Switch,
        &["LOCALAI_PREFER_DEV_BACKENDS", "PREFER_DEV_BACKENDS"],
        NoEffect(BACKENDS),
    ),
    flag("single-active-backend", Switch, &["LOCALAI_SINGLE_ACTIVE_BACKEND", "SINGLE_ACTIVE_BACKEND"], Works),
    flag("max-active-backends", Value, &["LOCALAI_MAX_ACTIVE_BACKENDS", "MAX_ACTIVE_BACKENDS"], Works),
    flag("preload-backend-only", Switch, &["LOCALAI_PRELOAD_BACKEND_ONLY", "PRELOAD_BACKEND_ONLY"], Works),
    flag(
        "external-grpc-backends",
        Value,
        &["LOCALAI_EXTERNAL_GRPC_BACKENDS", "EXTERNAL_GRPC_BACKENDS"],
        NoEffect(BACKENDS),
    ),
    flag("enable-watchdog-idle", Switch, &["LOCALAI_WATCHDOG_IDLE", "WATCHDOG_IDLE"], Works),
    flag("watchdog-idle-timeout", Value, &["LOCALAI_WATCHDOG_IDLE_TIMEOUT", "WATCHDOG_IDLE_TIMEOUT"], Works),
    flag("enable-watchdog-busy", Switch, &["LOCALAI_WATCHDOG_BUSY", "WATCHDOG_BUSY"], Works),
    flag("watchdog-busy-timeout", Value, &["LOCALAI_WATCHDOG_BUSY_TIMEOUT", "WATCHDOG_BUSY_TIMEOUT"], Works),
    flag("watchdog-interval", Value, &["LOCALAI_WATCHDOG_INTERVAL", "WATCHDOG_INTERVAL"], Works),
    flag(
        "enable-memory-reclaimer",
        Switch,
        &["LOCALAI_MEMORY_RECLAIMER", "MEMORY_RECLAIMER", "LOCALAI_GPU_RECLAIMER", "GPU_RECLAIMER"],
        Works,
    ),
    flag(
        "memory-reclaimer-threshold",
        Value,
        &[
            "LOCALAI_MEMORY_RECLAIMER_THRESHOLD",
            "MEMORY_RECLAIMER_THRESHOLD",
            "LOCALAI_GPU_RECLAIMER_THRESHOLD",
            "GPU_RECLAIMER_THRESHOLD",
        ],
        Works,
    ),
    flag("vram-budget", Value, &["LOCALAI_VRAM_BUDGET"], Works),
    flag("force-eviction-when-busy", Switch, &["LOCALAI_FORCE_EVICTION_WHEN_BUSY", "FORCE_EVICTION_WHEN_BUSY"], Works),
    flag("size-aware-eviction", Switch, &["LOCALAI_SIZE_AWARE_EVICTION", "SIZE_AWARE_EVICTION"], Works),
    flag("lru-eviction-max-retries", Value, &["LOCALAI_LRU_EVICTION_MAX_RETRIES", "LRU_EVICTION_MAX_RETRIES"], Works),
    flag(
        "lru-eviction-retry-interval",
        Value,
        &["LOCALAI_LRU_EVICTION_RETRY_INTERVAL", "LRU_EVICTION_RETRY_INTERVAL"],
        Works,
    ),
    flag(
        "model-load-failure-cooldown",
        Value,
        &["LOCALAI_MODEL_LOAD_FAILURE_COOLDOWN", "MODEL_LOAD_FAILURE_COOLDOWN"],
        Works,
    ),
    flag(
        "max-concurrent-backend-requests",
        Value,
        &["LOCALAI_MAX_CONCURRENT_BACKEND_REQUESTS", "MAX_CONCURRENT_BACKEND_REQUESTS"],
        Works,
    ),
    flag("p2p", Switch, &["LOCALAI_P2P", "P2P"], NoEffect(ONE_MACHINE)),
    flag("p2p-dht-interval", Value, &["LOCALAI_P2P_DHT_INTERVAL", "P2P_DHT_INTERVAL"], NoEffect(ONE_MACHINE)),
    flag("p2p-otp-interval", Value, &["LOCALAI_P2P_OTP_INTERVAL", "P2P_OTP_INTERVAL"], NoEffect(ONE_MACHINE)),
    flag("p2p-token", Value, &["LOCALAI_P2P_TOKEN", "P2P_TOKEN", "TOKEN"], NoEffect(ONE_MACHINE)),
    flag("peer-2-peer-network-id", Value, &["LOCALAI_P2P_NETWORK_ID", "P2P_NETWORK_ID"], NoEffect(ONE_MACHINE)),
    flag("federated", Switch, &["LOCALAI_FEDERATED", "FEDERATED"], NoEffect(ONE_MACHINE)),
    flag("distributed", Switch, &["LOCALAI_DISTRIBUTED"], NoEffect(ONE_MACHINE)),
    flag("instance-id", Value, &["LOCALAI_INSTANCE_ID"], NoEffect(ONE_MACHINE)),
    flag("nats-url", Value, &["LOCALAI_NATS_URL"], NoEffect(ONE_MACHINE)),
    flag("storage-url", Value, &["LOCALAI_STORAGE_URL"], NoEffect(ONE_MACHINE)),
    flag("storage-bucket", Value, &["LOCALAI_STORAGE_BUCKET"], NoEffect(ONE_MACHINE)),
    flag("storage-region", Value, &["LOCALAI_STORAGE_REGION"], NoEffect(ONE_MACHINE)),
    flag("storage-access-key", Value, &["LOCALAI_STORAGE_ACCESS_KEY"], NoEffect(ONE_MACHINE)),
    flag("storage-secret-key", Value, &["LOCALAI_STORAGE_SECRET_KEY"], NoEffect(ONE_MACHINE)),
    flag("registration-token", Value, &["LOCALAI_REGISTRATION_TOKEN"], NoEffect(ONE_MACHINE)),
    flag("registration-require-auth", Switch, &["LOCALAI_REGISTRATION_REQUIRE_AUTH"], NoEffect(ONE_MACHINE)),
    flag("distributed-require-auth", Switch, &["LOCALAI_DISTRIBUTED_REQUIRE_AUTH"], NoEffect(ONE_MACHINE)),
    flag("auto-approve-nodes", Switch, &["LOCALAI_AUTO_APPROVE_NODES"], NoEffect(ONE_MACHINE)),
    flag("distributed-shared-models", Switch, &["LOCALAI_DISTRIBUTED_SHARED_MODELS"], NoEffect(ONE_MACHINE)),
    flag("distributed-prefix-cache", Switch, &["LOCALAI_DISTRIBUTED_PREFIX_CACHE"], NoEffect(ONE_MACHINE)),
    flag(
        "distributed-disk-headroom-check",
        Switch,
        &["LOCALAI_DISTRIBUTED_DISK_HEADROOM_CHECK"],
        NoEffect(ONE_MACHINE),
    ),
    flag("distributed-prefix-cache-ttl", Value, &["LOCALAI_DISTRIBUTED_PREFIX_CACHE_TTL"], NoEffect(ONE_MACHINE)),
    flag("backend-install-timeout", Value, &["LOCALAI_NATS_BACKEND_INSTALL_TIMEOUT"], NoEffect(ONE_MACHINE)),
    flag("backend-upgrade-timeout", Value, &["LOCALAI_NATS_BACKEND_UPGRADE_TIMEOUT"], NoEffect(ONE_MACHINE)),
    flag("model-load-timeout", Value, &["LOCALAI_NATS_MODEL_LOAD_TIMEOUT"], NoEffect(ONE_MACHINE)),
    flag("model-load-wait", Value, &["LOCALAI_MODEL_LOAD_WAIT"], NoEffect(ONE_MACHINE)),
    flag("nats-account-seed", Value, &["LOCALAI_NATS_ACCOUNT_SEED"], NoEffect(ONE_MACHINE)),
    flag("nats-service-jwt", Value, &["LOCALAI_NATS_SERVICE_JWT"], NoEffect(ONE_MACHINE)),
    flag("nats-service-seed", Value, &["LOCALAI_NATS_SERVICE_SEED"], NoEffect(ONE_MACHINE)),
    flag("nats-worker-jwtttl", Value, &["LOCALAI_NATS_WORKER_JWT_TTL"], NoEffect(ONE_MACHINE)),
    flag("nats-require-auth", Switch, &["LOCALAI_NATS_REQUIRE_AUTH"], NoEffect(ONE_MACHINE)),
    flag("nats-tlsca", Value, &["LOCALAI_NATS_TLS_CA"], NoEffect(ONE_MACHINE)),
    flag("nats-tls-cert", Value, &["LOCALAI_NATS_TLS_CERT"], NoEffect(ONE_MACHINE)),
    flag("nats-tls-key", Value, &["LOCALAI_NATS_TLS_KEY"], NoEffect(ONE_MACHINE)),
    flag("expose-node-header", Switch, &["LOCALAI_EXPOSE_NODE_HEADER"], NoEffect(ONE_MACHINE)),
    flag("model-scheduling", Value, &["LOCALAI_MODEL_SCHEDULING"], NoEffect(ONE_MACHINE)),
    flag("model-scheduling-config", Value, &["LOCALAI_MODEL_SCHEDULING_CONFIG"], NoEffect(ONE_MACHINE)),
    flag("disable-agents", Switch, &["LOCALAI_DISABLE_AGENTS"], NoEffect(AGENTS)),
    flag("agent-pool-apiurl", Value, &["LOCALAI_AGENT_POOL_API_URL"], NoEffect(AGENTS)),
    flag("agent-pool-api-key", Value, &["LOCALAI_AGENT_POOL_API_KEY"], NoEffect(AGENTS)),
    flag("agent-pool-default-model", Value, &["LOCALAI_AGENT_POOL_DEFAULT_MODEL"], NoEffect(AGENTS)),
    flag("agent-pool-multimodal-model", Value, &["LOCALAI_AGENT_POOL_MULTIMODAL_MODEL"], NoEffect(AGENTS)),
    flag("agent-pool-transcription-model", Value, &["LOCALAI_AGENT_POOL_TRANSCRIPTION_MODEL"], NoEffect(AGENTS)),
    flag("agent-pool-transcription-language", Value, &["LOCALAI_AGENT_POOL_TRANSCRIPTION_LANGUAGE"], NoEffect(AGENTS)),
    flag("agent-pool-tts-model", Value, &["LOCALAI_AGENT_POOL_TTS_MODEL"], NoEffect(AGENTS)),
    flag("agent-pool-state-dir", Value, &["LOCALAI_AGENT_POOL_STATE_DIR"], NoEffect(AGENTS)),
    flag("agent-pool-timeout", Value, &["LOCALAI_AGENT_POOL_TIMEOUT"], NoEffect(AGENTS)),
    flag("agent-pool-enable-skills", Switch, &["LOCALAI_AGENT_POOL_ENABLE_SKILLS"], NoEffect(AGENTS)),
    flag("agent-pool-vector-engine", Value, &["LOCALAI_AGENT_POOL_VECTOR_ENGINE"], NoEffect(AGENTS)),
    flag("agent-pool-embedding-model", Value, &["LOCALAI_AGENT_POOL_EMBEDDING_MODEL"], NoEffect(AGENTS)),
    flag("agent-pool-custom-actions-dir", Value, &["LOCALAI_AGENT_POOL_CUSTOM_ACTIONS_DIR"], NoEffect(AGENTS)),
    flag("agent-pool-database-url", Value, &["LOCALAI_AGENT_POOL_DATABASE_URL"], NoEffect(AGENTS)),
    flag("agent-pool-max-chunking-size", Value, &["LOCALAI_AGENT_POOL_MAX_CHUNKING_SIZE"], NoEffect(AGENTS)),
    flag("agent-pool-chunk-overlap", Value, &["LOCALAI_AGENT_POOL_CHUNK_OVERLAP"], NoEffect(AGENTS)),
    flag("agent-pool-enable-logs", Switch, &["LOCALAI_AGENT_POOL_ENABLE_LOGS"], NoEffect(AGENTS)),
    flag("agent-pool-collection-db-path", Value, &["LOCALAI_AGENT_POOL_COLLECTION_DB_PATH"], NoEffect(AGENTS)),
    flag("agent-hub-url", Value, &["LOCALAI_AGENT_HUB_URL"], NoEffect(AGENTS)),
    flag("disable-local-ai-assistant", Switch, &["LOCALAI_DISABLE_ASSISTANT"], NoEffect(AGENTS)),
    flag("auth-enabled", Switch, &["LOCALAI_AUTH"], NoEffect(ACCOUNTS)),
    flag("auth-database-url", Value, &["LOCALAI_AUTH_DATABASE_URL", "DATABASE_URL"], NoEffect(ACCOUNTS)),
    flag("git-hub-client-id", Value, &["GITHUB_CLIENT_ID"], NoEffect(ACCOUNTS)),
    flag("git-hub-client-secret", Value, &["GITHUB_CLIENT_SECRET"], NoEffect(ACCOUNTS)),
    flag("oidc-issuer", Value, &["LOCALAI_OIDC_ISSUER"], NoEffect(ACCOUNTS)),
    flag("oidc-client-id", Value, &["LOCALAI_OIDC_CLIENT_ID"], NoEffect(ACCOUNTS)),
    flag("oidc-client-secret", Value, &["LOCALAI_OIDC_CLIENT_SECRET"], NoEffect(ACCOUNTS)),
    flag("auth-admin-email", Value, &["LOCALAI_ADMIN_EMAIL"], NoEffect(ACCOUNTS)),
    flag("auth-registration-mode", Value, &["LOCALAI_REGISTRATION_MODE"], NoEffect(ACCOUNTS)),
    flag("disable-local-auth", Switch, &["LOCALAI_DISABLE_LOCAL_AUTH"], NoEffect(ACCOUNTS)),
    flag("auth-api-key-hmac-secret", Value, &["LOCALAI_AUTH_HMAC_SECRET"], NoEffect(ACCOUNTS)),
    flag("default-api-key-expiry", Value, &["LOCALAI_DEFAULT_API_KEY_EXPIRY"], NoEffect(ACCOUNTS)),
    flag("mitm-listen", Value, &["LOCALAI_MITM_LISTEN"], NoEffect(MIDDLEWARE)),
    flag("mitmca-dir", Value, &["LOCALAI_MITM_CA_DIR"], NoEffect(MIDDLEWARE)),
    flag("pii-default-detectors", Value, &["LOCALAI_PII_DEFAULT_DETECTORS"], NoEffect(MIDDLEWARE)),
];

/// Variables that have no flag in LocalAI.
pub(crate) const VARIABLES: &[(&str, Standing)] = &[
    ("HF_TOKEN", Works),
    ("HF_ENDPOINT", Works),
    ("HF_MIRROR", NoEffect("set HF_ENDPOINT")),
    ("LLAMACPP_PARALLEL", Works),
    ("PROFILE", Works),
    ("LLAMACPP_GRPC_SERVERS", NoEffect(ONE_MACHINE)),
    ("PYTHON_GRPC_MAX_WORKERS", NoEffect(BACKENDS)),
    ("LOCALAI_DISABLE_GUESSING", NoEffect("nothing is guessed that a configuration says")),
    ("LOCALAI_DISABLE_HARDWARE_DEFAULTS", NoEffect("nothing is guessed that a configuration says")),
    ("LOCALAI_FORCE_META_BACKEND_CAPABILITY", NoEffect("the hardware is looked at; --gpu-layers 0 keeps it unused")),
    ("LOCALAI_FORCE_BACKEND_SHUTDOWN", NoEffect("answers on a model that is shut down go on to their end")),
    ("XPU", NoEffect(BACKENDS)),
    ("COMPEL", NoEffect(BACKENDS)),
    ("REBUILD", NoEffect(BACKENDS)),
    ("BUILD_TYPE", NoEffect(BACKENDS)),
];

/// Adds the flags without effect to `run`, out of sight.
pub(super) fn with_idle_flags(run: Command) -> Command {
    FLAGS.iter().filter(|flag| flag.standing != Works).fold(run, |run, flag| {
        let arg = Arg::new(flag.name).long(flag.name).hide(true).action(ArgAction::Append);
        // A bare switch is one that is on.
        run.arg(match flag.kind {
            Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Value => arg.num_args(1).allow_hyphen_values(true),
        })
    })
}

/// A line for each flag and variable that was given and has no effect.
pub(super) fn idle_lines(matches: &ArgMatches, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_set = |name: &&&str| variable(name).is_some_and(|value| !value.is_empty());
    for flag in FLAGS.iter().filter(|flag| flag.standing != Works) {
        let is_given = matches.value_source(flag.name) == Some(ValueSource::CommandLine);
        let variable = flag.variables.iter().find(is_set);
        let told = match (is_given, variable) {
            (true, _) => format!("--{}", flag.name),
            (false, Some(variable)) => (*variable).to_owned(),
            (false, None) => continue,
        };
        lines.extend(line(&told, flag.standing));
    }
    for (name, standing) in VARIABLES {
        if is_set(&name) {
            lines.extend(line(name, *standing));
        }
    }
    lines
}

fn line(told: &str, standing: Standing) -> Option<String> {
    match standing {
        Works => None,
        NoEffect(why) => Some(format!("{told} has no effect: {why}")),
        Planned(what) => Some(format!("{told} has no effect yet: it belongs to {what}, which is not there yet")),
        Standing::Refused(instead) => Some(format!("{told} is refused: {instead}")),
    }
}
