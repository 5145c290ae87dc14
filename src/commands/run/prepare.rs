//! What start-up does while the server already listens: installs and loads the models that were named.

use anyhow::Context;
use ingle::Runtime;
use ingle::catalog::{ModelConfig, Usecase};

use super::hints::Hints;
use super::signals::Stop;
use crate::commands::locate::{ON_THE_WAY, locate};
use crate::commands::progress::Downloads;

/// Brings every model into memory, one after the other; `/readyz` says what is going on. Ends early when asked to stop.
pub(super) async fn prepare(
    runtime: Runtime,
    models: Vec<String>,
    stop: Stop,
    hints: Option<Hints>,
) -> anyhow::Result<()> {
    let work = async {
        let mut first = None;
        for what in models.iter().filter(|what| !what.is_empty()) {
            let name = bring(&runtime, what, &stop).await?;
            first.get_or_insert(name);
        }
        runtime.set_starting(None);
        anyhow::Ok(first)
    };
    // What is to come is declared before the first request can ask.
    if let Some(what) = models.first() {
        runtime.set_starting(Some(format!("preparing {what}")));
    }
    let first = tokio::select! {
        outcome = work => outcome?,
        () = stop.clone().requested() => return Ok(()),
    };
    tracing::info!("ready");
    match hints {
        Some(hints) => hints.print(&runtime, first.as_deref()),
        None => Ok(()),
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
