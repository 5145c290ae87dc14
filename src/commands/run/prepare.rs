//! What start-up does while the server already listens: installs and loads the models that were named.

use std::time::Duration;

use anyhow::{Context, bail};
use ingle::Runtime;
use ingle::catalog::{ApplyRequest, DownloadFile, JobBoard, ModelConfig, Usecase};

use super::hints::Hints;
use super::signals::Stop;
use crate::commands::locate::{ON_THE_WAY, installer, locate};
use crate::commands::progress::Downloads;

/// How often an installation is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is to be done.
pub(super) struct Plan {
    /// Installed first; a failure ends the program.
    pub(super) first: Vec<ApplyRequest>,
    /// Installed where needed, and loaded.
    pub(super) models: Vec<String>,
    /// Nothing is served afterwards.
    pub(super) ends: bool,
}

/// What comes after the preparations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The server goes on.
    Serve,
    /// The program ends.
    End,
}

/// Brings every model into memory, one after the other; `/readyz` says what is going on. Ends early when asked to stop.
pub(super) async fn prepare(
    runtime: Runtime,
    board: JobBoard,
    plan: Plan,
    stop: Stop,
    hints: Option<Hints>,
) -> anyhow::Result<Next> {
    let work = async {
        for request in &plan.first {
            install(&runtime, &board, request).await?;
        }
        download_files(&runtime, &stop).await;
        let mut first = None;
        for what in plan.models.iter().filter(|what| !what.is_empty()) {
            let name = bring(&runtime, what, &stop).await?;
            first.get_or_insert(name);
        }
        runtime.set_starting(None);
        anyhow::Ok(first)
    };
    // What is to come is declared before the first request can ask.
    if let Some(what) = plan.models.first() {
        runtime.set_starting(Some(format!("preparing {what}")));
    }
    let first = tokio::select! {
        outcome = work => outcome?,
        () = stop.clone().requested() => return Ok(Next::End),
    };
    if plan.ends {
        tracing::info!("every model is installed and was loaded; the program ends");
        return Ok(Next::End);
    }
    tracing::info!("ready");
    if let Some(hints) = hints {
        hints.print(&runtime, first.as_deref())?;
    }
    Ok(Next::Serve)
}

/// Installs one model, as a client would.
async fn install(runtime: &Runtime, board: &JobBoard, request: &ApplyRequest) -> anyhow::Result<()> {
    let id = board.apply(request.clone())?;
    loop {
        let status = board.job(&id).context("an installation was forgotten; this is a bug")?;
        if let Some(error) = status.error {
            bail!("model {} could not be installed: {error}", status.gallery_element_name);
        }
        if status.processed {
            tracing::info!(model = status.gallery_element_name, "installed");
            return Ok(());
        }
        runtime.set_starting(Some(format!("installing {}: {}", status.gallery_element_name, status.message)));
        tokio::time::sleep(LOOK).await;
    }
}

/// Fetches the files that configurations list under `download_files`, and models that they name by an address. One that
/// fails is logged; the others go on.
async fn download_files(runtime: &Runtime, stop: &Stop) {
    for entry in runtime.catalog().list() {
        let models_path = runtime.catalog().models_path().to_owned();
        let mut files = entry.config.download_files.clone();
        files.extend(entry.config.model.as_deref().and_then(DownloadFile::of_uri));
        files.retain(|file| !models_path.join(&file.filename).is_file());
        if files.is_empty() {
            continue;
        }
        runtime.set_starting(Some(format!("downloading files of {}", entry.name)));
        let downloads = Downloads::new(stop.flag());
        let work = tokio::task::spawn_blocking(move || {
            installer(&models_path)?.install_files(&files, ON_THE_WAY, &downloads)?;
            anyhow::Ok(())
        });
        match work.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(model = entry.name, "download_files: {error:#}"),
            Err(error) => tracing::warn!(model = entry.name, "download_files: {error}"),
        }
    }
}

/// Installs and loads one model; its name.
async fn bring(runtime: &Runtime, what: &str, stop: &Stop) -> anyhow::Result<String> {
    runtime.set_starting(Some(format!("getting model {what}")));
    let finder = runtime.clone();
    let (wanted, downloads) = (what.to_owned(), Downloads::new(stop.flag()));
    let search = tokio::task::spawn_blocking(move || locate(finder.catalog(), &wanted, ON_THE_WAY, &downloads));
    let name = search.await.context("the search for a model panicked")??;
    runtime.set_starting(Some(format!("loading model {name}")));
    let entry = runtime.catalog().get(&name)?;
    runtime.lease(Some(&name), usecase_of(&entry.config)).await?;
    Ok(name)
}

/// Something the model does, so that it may be asked for.
fn usecase_of(config: &ModelConfig) -> Usecase {
    let preferred = [Usecase::Chat, Usecase::Completion];
    let known = preferred.iter().chain(Usecase::ALL).copied();
    known.into_iter().find(|usecase| config.suits(*usecase)).unwrap_or(Usecase::Chat)
}
