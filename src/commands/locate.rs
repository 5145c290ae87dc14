//! From MODEL, as people write it, to the name of a model in the folder; installs it where needed.

use std::path::Path;

use anyhow::{Context, anyhow};
use ingle::catalog::{
    Catalog, CatalogError, CatalogOptions, FetchPolicy, FetchSettings, Fetcher, Installer, LocalFiles, ModelState,
    PipUse, Progress, Reach,
};

use crate::cli::FolderArgs;

/// The person at the keyboard asks, for a model that is wanted now: no Python is started for it.
pub(crate) const ON_THE_WAY: FetchPolicy =
    FetchPolicy { pip: PipUse::Never, local_files: LocalFiles::Allow, reach: Reach::Anywhere };

/// The person at the keyboard asks for nothing else than this.
pub(crate) const INSTALL: FetchPolicy =
    FetchPolicy { pip: PipUse::LastResort, local_files: LocalFiles::Allow, reach: Reach::Anywhere };

/// Opens the models folder.
pub(crate) fn open(folder: &FolderArgs) -> anyhow::Result<Catalog> {
    let options = CatalogOptions { config_file: folder.models_config_file.clone(), ..CatalogOptions::default() };
    Ok(Catalog::open(&folder.models_path, options)?)
}

/// An installer into a folder, with the settings of the environment.
pub(crate) fn installer(models_path: &Path) -> anyhow::Result<Installer> {
    let hardware = ingle::hardware_in_use();
    let gpu_bytes: u64 = hardware.gpus().map(|gpu| gpu.total_bytes).sum();
    // A model that is wholly on the GPUs is several times faster, so these decide where there are any.
    let memory_bytes = if gpu_bytes > 0 { gpu_bytes } else { hardware.cpu().map_or(0, |cpu| cpu.free_bytes) };
    Ok(Installer::new(models_path, Fetcher::new(FetchSettings::from_env()?)).with_memory(memory_bytes))
}

/// The name under which the catalog knows `what`, after installing it if it is not in the folder.
pub(crate) fn locate(
    catalog: &Catalog,
    what: &str,
    policy: FetchPolicy,
    progress: &dyn Progress,
) -> anyhow::Result<String> {
    // What looks like an address or an existing file is never a name.
    let is_place = what.contains("://") || Path::new(what).is_file();
    let here = catalog.get(what);
    match &here {
        Ok(entry) if !matches!(entry.state, ModelState::MissingFile(_)) => return Ok(entry.name.clone()),
        Ok(_) | Err(CatalogError::NotFound { .. }) => {}
        Err(_) if is_place => {}
        Err(_) => return Ok(here?.name),
    }
    match installer(catalog.models_path())?.install(what, policy, progress) {
        Ok(installed) => Ok(installed.name),
        Err(CatalogError::UnknownInstall { known, .. }) => match here {
            Err(CatalogError::NotFound { known: names, .. }) => Err(unknown(catalog, what, &names, &known)),
            // Its file is missing and nobody offers it.
            here => Ok(here?.weights().map(|_| what.to_owned())?),
        },
        Err(error) => Err(error).with_context(|| format!("model {what:?} could not be installed")),
    }
}

fn unknown(catalog: &Catalog, what: &str, names: &[String], gallery: &[String]) -> anyhow::Error {
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let all: Vec<String> = names.iter().chain(gallery).cloned().collect();
    anyhow!(
        "there is no model {what:?}{}: the folder {} has {}; the gallery has {}; and it is no URI and no file",
        ingle::catalog::meant(what, &all).replace(": is", ", is"),
        catalog.models_path().display(),
        list(names),
        list(gallery)
    )
}
