//! `ingle models`: list, install, show.

mod show;

use ingle::catalog::{ConfigOutcome, ModelEntry, ModelState, Outcome};

use super::locate::{INSTALL, installer, open};
use super::progress::Downloads;
use crate::cli::{FolderArgs, ModelsCommand};
use crate::output::{self, bytes, table};

/// Runs one of them.
pub(crate) fn run(command: ModelsCommand) -> anyhow::Result<()> {
    match command {
        ModelsCommand::List { folder } => list(&folder),
        ModelsCommand::Install { models, folder } => models.iter().try_for_each(|model| install(model, &folder)),
        ModelsCommand::Show { model, folder } => show::run(&model, &folder),
    }
}

fn list(folder: &FolderArgs) -> anyhow::Result<()> {
    let catalog = open(folder)?;
    let entries = catalog.list();
    let rows: Vec<Vec<String>> = entries.iter().map(installed_row).collect();
    let mut text = if rows.is_empty() {
        format!("No model is in {}.\n", folder.models_path.display())
    } else {
        table(&["MODEL", "SIZE", "STATE"], &rows)
    };
    let offered = offered_rows(folder, &entries)?;
    if !offered.is_empty() {
        text.push_str("\nTo be installed with `ingle models install NAME`:\n");
        text.push_str(&table(&["NAME", "SIZE", "DESCRIPTION"], &offered));
    }
    output::print(&text)?;
    catalog.problems().iter().for_each(|problem| eprintln!("{problem}"));
    Ok(())
}

fn installed_row(entry: &ModelEntry) -> Vec<String> {
    let (size, state) = match &entry.state {
        ModelState::Ready(weights) => (bytes(weights.bytes), "ready".to_owned()),
        ModelState::NoFile => ("-".to_owned(), "names no file of the folder".to_owned()),
        ModelState::MissingFile(path) => ("-".to_owned(), format!("{} is missing", path.display())),
        ModelState::Alias(target) => ("-".to_owned(), format!("another name of {target}")),
        ModelState::Disabled => ("-".to_owned(), "disabled".to_owned()),
    };
    vec![entry.name.clone(), size, state]
}

fn offered_rows(folder: &FolderArgs, installed: &[ModelEntry]) -> anyhow::Result<Vec<Vec<String>>> {
    let installer = installer(&folder.models_path)?;
    let entries = installer.galleries().iter().flat_map(|gallery| &gallery.entries);
    let is_new = |name: &str| installed.iter().all(|model| model.name != name);
    let row = |entry: &ingle::catalog::GalleryEntry| {
        let size = entry.total_bytes().map_or_else(|| "-".to_owned(), bytes);
        vec![entry.name.clone(), size, entry.description.clone().unwrap_or_default().trim().replace('\n', " ")]
    };
    Ok(entries.filter(|entry| is_new(&entry.name)).map(row).collect())
}

fn install(model: &str, folder: &FolderArgs) -> anyhow::Result<()> {
    let installed = installer(&folder.models_path)?.install(model, INSTALL, &Downloads::default())?;
    let is_old = installed.config_outcome == ConfigOutcome::Kept
        && installed.files.iter().all(|file| file.fetched.outcome == Outcome::AlreadyThere);
    let verb = if is_old { "was there already" } else { "is installed" };
    output::print(&format!("{} {verb}: {}\n", installed.name, installed.config_path.display()))
}
