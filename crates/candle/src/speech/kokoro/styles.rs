//! Where the voices lie, and what they are.

use std::path::{Path, PathBuf};

use candle_core::npy::NpzTensors;
use candle_core::{DType, Device};

use super::super::VoiceError;
use super::symbols::Language;

/// Numbers of a style.
pub(super) const STYLE_LEN: usize = 256;
/// Most styles of a voice that is taken for one. The networks take 510 symbols; some packs have a style or two more.
const MAX_STYLES: usize = 1024;

/// A voice.
#[derive(Debug, Clone)]
pub struct Style {
    /// Such as `af_heart`: a letter for the language, one for the sex.
    pub name: String,
    /// What it speaks.
    pub language: Language,
    /// A style of [`STYLE_LEN`] numbers for each number of symbols from 1.
    rows: Vec<f32>,
}

impl Style {
    /// The style of something with `n_symbols` symbols.
    pub fn row(&self, n_symbols: usize) -> &[f32] {
        let at = n_symbols.clamp(1, self.rows.len() / STYLE_LEN) - 1;
        &self.rows[at * STYLE_LEN..][..STYLE_LEN]
    }
}

/// Whether the network at `path`, a file or in a folder, has voices of Kokoro's beside it, or a name that says what it
/// should be: then the loader says what is missing.
pub(in super::super) fn is_kokoro(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().contains("kokoro"));
    network_of(path).is_some_and(|network| named || place_of(&network).is_some())
}

/// The network of a folder, or the file itself.
pub(in super::super) fn network_of(path: &Path) -> Option<PathBuf> {
    if !path.is_dir() {
        return has_ending(path, &["onnx"]).then(|| path.to_owned());
    }
    let networks = [path.join("onnx"), path.to_owned()].iter().flat_map(|folder| files(folder, &["onnx"])).collect();
    // Of several the exact one.
    let mut networks: Vec<PathBuf> = networks;
    networks.sort_by_key(|file| (file.file_stem().is_none_or(|stem| stem != "model"), file.clone()));
    let with_voices = networks.iter().position(|network| place_of(network).is_some());
    (!networks.is_empty()).then(|| networks.swap_remove(with_voices.unwrap_or(0)))
}

/// The folder or file with the voices of a network: beside it, or beside a folder `onnx` that it is in.
fn place_of(network: &Path) -> Option<PathBuf> {
    let folder = network.parent()?;
    let around = folder.parent().filter(|_| folder.file_name().is_some_and(|name| name == "onnx"));
    let folders = [Some(folder), around].into_iter().flatten();
    folders.into_iter().find_map(|folder: &Path| {
        let voices = folder.join("voices");
        let archive = || {
            let named =
                |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("voices"));
            files(folder, &["bin", "npz"]).into_iter().find(named)
        };
        if !files(&voices, &["bin"]).is_empty() { Some(voices) } else { archive() }
    })
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending.eq_ignore_ascii_case(wanted)))
}

/// Files of a folder by name.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| has_ending(path, endings) && path.is_file()).collect();
    files.sort();
    files
}

/// The voices of a network, by name; those of languages that espeak-ng cannot read well are left out.
///
/// # Errors
/// When there are none, or one is not valid.
pub(super) fn read(network: &Path) -> Result<Vec<Style>, VoiceError> {
    let Some(place) = place_of(network) else {
        let reason = "there is no folder voices/ and no voices*.bin or voices*.npz beside the network";
        return Err(VoiceError::Config { path: network.to_owned(), reason: reason.into() });
    };
    let wrong = |reason: String| VoiceError::Config { path: place.clone(), reason };
    let tables = if place.is_dir() { of_folder(&place) } else { of_archive(&place) };
    let mut styles = Vec::new();
    let mut silent = Vec::new();
    for (name, rows) in tables.map_err(wrong)? {
        let n_styles = rows.len() / STYLE_LEN;
        let reason = if rows.len() % STYLE_LEN != 0 || n_styles == 0 {
            Some(format!("the voice {name} has {} numbers and not some styles of {STYLE_LEN}", rows.len()))
        } else {
            let is_broken = rows.iter().any(|value| !value.is_finite());
            is_broken.then(|| format!("a number of the voice {name} is not finite"))
        };
        if let Some(reason) = reason {
            return Err(VoiceError::Config { path: place, reason });
        }
        match Language::of_voice(&name) {
            Some(language) => styles.push(Style { name, language, rows }),
            None => silent.push(name),
        }
    }
    if styles.is_empty() {
        return Err(wrong("it has no voice of a language that can be read here".into()));
    }
    if !silent.is_empty() {
        let voices = silent.join(", ");
        tracing::info!("voices whose language espeak-ng cannot read well enough are left out: {voices}");
    }
    styles.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(styles)
}

/// Tables of numbers by name.
type Tables = Vec<(String, Vec<f32>)>;

fn of_folder(folder: &Path) -> Result<Tables, String> {
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let len = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if len > (MAX_STYLES * STYLE_LEN * 4) as u64 || len % 4 != 0 {
            return Err(format!("{} has {len} bytes and is no table of styles", path.display()));
        }
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok((name, words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
    };
    files(folder, &["bin"]).into_iter().map(read).collect()
}

fn of_archive(path: &Path) -> Result<Tables, String> {
    let said = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let archive = NpzTensors::new(path).map_err(said)?;
    let read = |name: &String| {
        let (shape, dtype) = archive.get_shape_and_dtype(name).map_err(said)?;
        let len = shape.dims().iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim));
        if dtype != DType::F32 || len.is_none_or(|len| len > MAX_STYLES * STYLE_LEN) {
            return Err(format!("{name} is {dtype:?} of {shape:?} and no table of styles"));
        }
        let table = archive.get(name).map_err(said)?.ok_or_else(|| format!("{name} is missing"))?;
        let table = table.to_device(&Device::Cpu).and_then(|table| table.flatten_all()?.to_vec1());
        Ok((name.clone(), table.map_err(said)?))
    };
    archive.names().into_iter().map(read).collect()
}

#[cfg(test)]
mod tests;
