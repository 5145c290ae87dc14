//! `ingle run`: binds, serves at once, and brings in the models that were named meanwhile.

mod hints;
mod listen;
mod preload;
mod prepare;
mod public;
mod signals;

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context;
use ingle::catalog::{FetchSettings, Fetcher, GallerySource, JobBoard};
use ingle::server::{Cors, Regex, ServerOptions, ServerState};
use ingle::{Hardware, ResidencyOptions, Runtime, Setup, hardware};
use tokio::net::TcpListener;

use crate::cli::{Amount, HttpArgs, ResidencyArgs, RunArgs};
use prepare::{Next, Plan};
use signals::Stop;

/// Threads for connections; the cores are for the models.
const WORKERS: usize = 2;

/// How often the backends are asked whether they can still do anything.
const LOOK: Duration = Duration::from_millis(250);

/// How long the end of a poisoned program may take once its answers have ended.
const LONGEST_END: Duration = Duration::from_secs(10);

/// Serves until a signal, or until a model that was named cannot be had.
pub(crate) fn run(args: RunArgs) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("no threads could be started for the server")?;
    let outcome = executor.block_on(serve(args));
    // A load or a download that still runs must not hold up the end.
    executor.shutdown_background();
    outcome
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let listener = listen::take_or_bind(&args.address).await?;
    let stop = Stop::on_signals()?;
    let runtime = open(&args)?;
    let options = server_options(&args.http)?;
    let hints = hints::wanted().then(|| hints::Hints::new(&listener, &args)).transpose()?;
    let board = board(&args)?;
    let plan = Plan {
        first: preload::requests(&args.install, runtime.catalog())?,
        models: args.models.iter().chain(&args.install.load_to_memory).cloned().collect(),
        ends: args.install.preload_backend_only,
    };
    // Whoever connected since the port was bound is told the truth too.
    if let Some(model) = args.models.first() {
        runtime.set_starting(Some(format!("preparing {model}")));
    }
    let preparing = prepare::prepare(runtime.clone(), board.clone(), plan, stop.clone(), hints);
    let mut state = ServerState::new(runtime.clone(), options);
    if !args.http.disable_gallery_endpoint {
        state = state.with_jobs(board.clone());
    }
    if state.is_open() && !args.http.allow_insecure_public_bind {
        public::refuse(listener.local_addr()?.ip())?;
    }
    let outcome = serve_while(listener, state, stop, preparing).await;
    if runtime.poison().is_some() {
        end_in_any_case();
    }
    board.close();
    runtime.unload_all();
    outcome
}

/// Installations in the background.
fn board(args: &RunArgs) -> anyhow::Result<JobBoard> {
    let mut settings = FetchSettings::from_env()?;
    if let Some(token) = args.install.hf_token.clone().filter(|token| !token.is_empty()) {
        settings.hub.token = Some(token);
    }
    let galleries: Vec<GallerySource> = match args.install.galleries.as_deref().filter(|text| !text.trim().is_empty()) {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).context(
            "--galleries (LOCALAI_GALLERIES) is no JSON list such as [{\"name\": \"mine\", \"url\": \"https://...\"}]",
        )?,
    };
    let models_path = &args.folder.models_path;
    Ok(JobBoard::open(models_path, Fetcher::new(settings), galleries, args.install.allow_private_urls))
}

/// Serves while `preparing` works; its failure ends the server, and so does a backend that is poisoned: running answers
/// end in their time, and the failure makes the supervisor start the program again.
async fn serve_while(
    listener: TcpListener,
    state: ServerState,
    stop: Stop,
    preparing: impl Future<Output = anyhow::Result<Next>>,
) -> anyhow::Result<()> {
    let runtime = state.runtime().clone();
    let server = ingle::server::serve(listener, state, stop.clone().requested());
    // A supervisor that waits for this word may send clients now; /readyz says when the models are there. One that
    // cannot be reached has none to wait for.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the supervisor cannot be told that the server is up");
    }
    let preparing = async {
        let outcome = preparing.await;
        if !matches!(outcome, Ok(Next::Serve)) {
            stop.request();
        }
        outcome.map(drop)
    };
    let (served, prepared, poison) = tokio::join!(server, preparing, watch_poison(&runtime, &stop));
    if let Some(reason) = poison {
        anyhow::bail!("the server has ended to be started again: {reason}");
    }
    prepared?;
    served.context("the server cannot go on")
}

/// A driver whose device is broken may hold up the orderly end, and a program that hangs is not started again.
fn end_in_any_case() {
    let wait_and_abort = || {
        std::thread::sleep(LONGEST_END);
        std::process::abort();
    };
    if let Err(error) = std::thread::Builder::new().name("last resort".into()).spawn(wait_and_abort) {
        tracing::warn!(%error, "the end of the program is not watched");
    }
}

/// Asks for the end when a backend is poisoned, and tells why; `None` when the end comes otherwise.
async fn watch_poison(runtime: &Runtime, stop: &Stop) -> Option<String> {
    let poisoned = async {
        loop {
            if let Some(reason) = runtime.poison() {
                return reason;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        reason = poisoned => {
            tracing::error!("{reason}");
            stop.request();
            Some(reason)
        }
        () = stop.clone().requested() => runtime.poison(),
    }
}

fn open(args: &RunArgs) -> anyhow::Result<Runtime> {
    let models_path = &args.folder.models_path;
    std::fs::create_dir_all(models_path).with_context(|| {
        format!("the models folder {} cannot be created; name another one with --models-path", models_path.display())
    })?;
    let found = ingle::hardware_in_use();
    let setup = Setup {
        models_path: models_path.clone(),
        config_file: args.folder.models_config_file.clone(),
        defaults: args.load.defaults(),
        residency: residency(&args.residency, &found),
    };
    let runtime = setup.runtime()?;
    tracing::info!("{}", hardware::summary(&found));
    if args.require_gpu {
        hardware::require_gpu(&found)?;
    }
    runtime.catalog().tell();
    Ok(runtime)
}

fn residency(args: &ResidencyArgs, hardware: &Hardware) -> ResidencyOptions {
    let has_gpu = hardware.gpus().next().is_some();
    let gpu_bytes: u64 = hardware.gpus().map(|gpu| gpu.total_bytes).sum();
    let main_bytes = hardware.cpu().map_or(0, |cpu| cpu.total_bytes);
    if args.vram_budget.is_some() && !has_gpu {
        tracing::warn!("--vram-budget has no effect: no GPU is used; --memory-budget bounds the main memory");
    }
    let bytes = |amount: Amount, of: u64| match amount {
        Amount::Bytes(bytes) => bytes,
        Amount::Share(share) => (of as f64 * share) as u64,
    };
    let vram = args.vram_budget.filter(|_| has_gpu).map(|amount| bytes(amount, gpu_bytes));
    let main = args.memory_budget.map(|amount| bytes(amount, if has_gpu { gpu_bytes } else { main_bytes }));
    ResidencyOptions {
        max_models: match (args.single_active_backend, args.max_active_backends) {
            (true, _) => Some(1),
            (false, 0) => None,
            (false, most) => Some(most),
        },
        memory_budget_bytes: main,
        gpu_budget_bytes: vram,
        min_residence: args.min_residence,
        busy_wait: args.lru_eviction_retry_interval.saturating_mul(args.lru_eviction_max_retries),
        ends_busy_models: args.force_eviction_when_busy,
        evicts_largest: args.size_aware_eviction,
        idle_timeout: args.enable_watchdog_idle.then_some(args.watchdog_idle_timeout),
        busy_timeout: args.enable_watchdog_busy.then_some(args.watchdog_busy_timeout),
        reclaim_threshold: args.enable_memory_reclaimer.then_some(args.memory_reclaimer_threshold),
        check_interval: args.watchdog_interval,
        failure_cooldown: args.model_load_failure_cooldown,
        max_requests: args.max_concurrent_backend_requests,
    }
}

fn server_options(args: &HttpArgs) -> anyhow::Result<ServerOptions> {
    let defaults = ServerOptions::default();
    let origins: Vec<String> = args.cors_allow_origins.iter().filter(|origin| !origin.is_empty()).cloned().collect();
    let allows_all = origins.iter().any(|origin| origin == "*");
    let megabytes = args.upload_limit.map(|megabytes| (megabytes as usize) << 20);
    let patterns = args.http_get_exempted_endpoints.iter().filter(|pattern| !pattern.is_empty());
    let patterns: Result<Vec<Regex>, _> = patterns.map(|pattern| Regex::new(pattern)).collect();
    let patterns = patterns.context("--http-get-exempted-endpoints has an expression that cannot be used")?;
    if let Some(url) = args.external_base_url.as_deref().filter(|url| !url.is_empty()) {
        let is_url = url.starts_with("http://") || url.starts_with("https://");
        anyhow::ensure!(is_url, "--external-base-url is {url:?}; write a URL such as https://ai.example.com");
    }
    Ok(ServerOptions {
        api_keys: args.api_keys.iter().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect(),
        keys_file: Some(args.localai_config_dir.join("api_keys.json")),
        open_to_get: if args.disable_api_key_requirement_for_http_get { patterns } else { Vec::new() },
        allow_cross_site: args.disable_csrf,
        rate_limit: NonZeroU32::new(args.rate_limit),
        body_limit_bytes: megabytes.unwrap_or(defaults.body_limit_bytes),
        audio_limit_bytes: megabytes.unwrap_or(defaults.audio_limit_bytes),
        text_limit_bytes: megabytes.unwrap_or(defaults.text_limit_bytes),
        compress_from_bytes: (!args.disable_http_compression).then_some(args.http_compression_min_length),
        base_url: args.external_base_url.clone().filter(|url| !url.is_empty()),
        cors: match (allows_all, origins.is_empty(), args.cors) {
            (true, ..) | (false, true, false) => Cors::AnyOrigin,
            (false, true, true) => Cors::Off,
            (false, false, _) => Cors::Origins(origins),
        },
        machine_tag: args.machine_tag.clone(),
        opaque_errors: args.opaque_errors,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        metrics: !args.disable_metrics_endpoint,
        backends: ingle::backends().iter().map(|backend| backend.name().to_owned()).collect(),
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ingle::catalog::{Catalog, CatalogOptions};
    use ingle::{Backend, Engine, EngineError, LoadDefaults, LoadOptions, RuntimeConfig};
    use ingle_engine::MemoryEstimate;

    use super::*;

    /// Loads nothing, and is poisoned when told to.
    #[derive(Default)]
    struct Poisoned(Mutex<Option<String>>);

    impl Backend for Poisoned {
        fn name(&self) -> &str {
            "llama-cpp"
        }

        fn poison(&self) -> Option<String> {
            self.0.lock().expect("no test panics here").clone()
        }

        fn estimate(&self, _: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
            Ok(MemoryEstimate::default())
        }

        fn load(&self, _: &LoadOptions, _: &Hardware) -> Result<Engine, EngineError> {
            Ok(Engine::default())
        }
    }

    #[tokio::test]
    async fn a_poisoned_backend_ends_the_server_with_a_failure() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let backend = Arc::new(Poisoned::default());
        let runtime = Runtime::new(RuntimeConfig {
            catalog: Catalog::open(folder.path(), CatalogOptions::default()).expect("a models folder"),
            backends: vec![Arc::clone(&backend) as Arc<dyn Backend>],
            hardware: Arc::new(Hardware::default),
            defaults: LoadDefaults::default(),
            residency: ResidencyOptions::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stop = Stop::on_signals().expect("signals can be received");
        let state = ServerState::new(runtime, ServerOptions::default());
        let serving = serve_while(listener, state, stop, async { Ok(Next::Serve) });
        let poisoning = async {
            *backend.0.lock().expect("no test panics here") = Some("CUDA error: unspecified launch failure".into());
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = serving => outcome,
            () = poisoning => unreachable!("it never ends"),
        };
        let error = outcome.expect_err("a supervisor starts what failed").to_string();
        assert!(error.contains("started again") && error.contains("unspecified launch failure"), "{error}");
    }
}
