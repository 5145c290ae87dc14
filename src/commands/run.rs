//! `ingle run`: binds, serves at once, and brings in the models that were named meanwhile.

mod hints;
mod listen;
mod prepare;
mod signals;

use std::time::Duration;

use anyhow::{Context, bail};
use ingle::server::{Cors, ServerOptions, ServerState};
use ingle::{Runtime, Setup, hardware};
use tokio::net::TcpListener;

use crate::cli::{HttpArgs, RunArgs};
use signals::Stop;

/// Threads for connections; the cores are for the models.
const WORKERS: usize = 2;

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
    let listener = listen::bind(&args.address).await?;
    let stop = Stop::on_signals()?;
    let runtime = open(&args)?;
    let options = server_options(&args.http);
    let hints = hints::wanted().then(|| hints::Hints::new(&listener, &args)).transpose()?;
    // Whoever connected since the port was bound is told the truth too.
    if let Some(model) = args.models.first() {
        runtime.set_starting(Some(format!("preparing {model}")));
    }
    let preparing = prepare::prepare(runtime.clone(), args.models, stop.clone(), hints);
    let outcome = serve_while(listener, ServerState::new(runtime.clone(), options), stop, preparing).await;
    runtime.unload_all();
    outcome
}

/// Serves while `preparing` works; its failure ends the server.
async fn serve_while(
    listener: TcpListener,
    state: ServerState,
    stop: Stop,
    preparing: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let server = ingle::server::serve(listener, state, stop.clone().requested());
    let preparing = async {
        let outcome = preparing.await;
        if outcome.is_err() {
            stop.request();
        }
        outcome
    };
    let (served, prepared) = tokio::join!(server, preparing);
    prepared?;
    served.context("the server cannot go on")
}

fn open(args: &RunArgs) -> anyhow::Result<Runtime> {
    let models_path = &args.folder.models_path;
    std::fs::create_dir_all(models_path).with_context(|| {
        format!("the models folder {} cannot be created; name another one with --models-path", models_path.display())
    })?;
    let setup = Setup {
        models_path: models_path.clone(),
        config_file: args.folder.models_config_file.clone(),
        defaults: args.load.defaults(),
        residency: ingle::ResidencyOptions::default(),
    };
    let runtime = setup.runtime()?;
    let found = runtime.hardware();
    tracing::info!("{}", hardware::summary(&found));
    if args.require_gpu && found.gpus().next().is_none() {
        bail!("--require-gpu is set and no GPU can be used: {}", found.notes.join("; "));
    }
    runtime.catalog().tell();
    Ok(runtime)
}

fn server_options(args: &HttpArgs) -> ServerOptions {
    let origins: Vec<String> = args.cors_allow_origins.iter().filter(|origin| !origin.is_empty()).cloned().collect();
    let allows_all = origins.is_empty() || origins.iter().any(|origin| origin == "*");
    ServerOptions {
        api_keys: args.api_keys.iter().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect(),
        body_limit_bytes: (args.upload_limit as usize) << 20,
        cors: if allows_all { Cors::AnyOrigin } else { Cors::Origins(origins) },
        machine_tag: args.machine_tag.clone(),
        opaque_errors: args.opaque_errors,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        metrics: !args.disable_metrics_endpoint,
        backends: ingle::backends().iter().map(|backend| backend.name().to_owned()).collect(),
        ..ServerOptions::default()
    }
}
