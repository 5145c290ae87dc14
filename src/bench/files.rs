//! Reports on their way to and from disk.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::report::{self, FORMAT, Report, Subject};
use crate::cli::ReportArgs;
use crate::output;

/// Prints the table and writes the files that were asked for; then fails if a part of the measurement did.
pub(crate) fn deliver(mut report: Report, args: &ReportArgs) -> anyhow::Result<()> {
    let failure = report.failure.take();
    write_files(&report, args)?;
    output::print(&report::to_text(&report))?;
    failure.map_or(Ok(()), |failure| Err(failure.context("not everything was measured")))
}

fn write_files(report: &Report, args: &ReportArgs) -> anyhow::Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("the report cannot be written to {}", path.display()))
    };
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(report)? + "\n")?;
    }
    if let Some(path) = &args.csv {
        write(path, report::to_csv(report)?)?;
    }
    if let Some(path) = &args.markdown {
        write(path, report::to_markdown(report))?;
    }
    if let Some(path) = &args.html {
        write(path, report::to_html(report))?;
    }
    Ok(())
}

/// Fails where a report could not be written: nobody wants to learn that after an hour.
pub(crate) fn check_places(args: &ReportArgs) -> anyhow::Result<()> {
    for path in [&args.json, &args.csv, &args.markdown, &args.html].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() || !folder.is_dir() {
            bail!(
                "no report can be written to {}: its folder does not exist, or it is a folder itself",
                path.display()
            );
        }
    }
    Ok(())
}

/// Reads a report in JSON.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => bail!("{} has form {format}; this program reads form {FORMAT}", path.display()),
        None => bail!("{} is no report of ingle bench (its `format` is missing)", path.display()),
    }
    serde_json::from_value(value).with_context(|| format!("{} is no report of ingle bench", path.display()))
}

/// Names of the weights of a folder, in the order in which they are looked for.
const WEIGHTS: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "model.bin"];

/// A model's file, or the weights of a model's folder, with its size and hash.
pub(crate) fn model_subject(name: &str, path: &Path) -> anyhow::Result<Subject> {
    let inner = WEIGHTS.iter().map(|name| path.join(name)).find(|inner| inner.is_file());
    let path = inner.as_deref().unwrap_or(path);
    let (n_bytes, digest) = digest(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let facts = [("file", json!(file_name)), ("bytes", json!(n_bytes)), ("sha256", json!(digest))];
    let facts: Map<String, Value> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Subject { name: name.to_owned(), facts })
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut n_bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n_read => {
                hash.update(&buffer[..n_read]);
                n_bytes += n_read as u64;
            }
        }
    }
    Ok((n_bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
