//! Names and relative paths that cannot lead out of the models folder.

use crate::CatalogError;
#[cfg(feature = "download")]
use std::path::PathBuf;
use std::path::{Component, Path};

const MAX_NAME_BYTES: usize = 255;

/// Refuses what is no model name: `:`, `/` and `.` are fine, leading `/`, `..` and control characters are not.
pub fn check_model_name(name: &str) -> Result<(), CatalogError> {
    check("model name", name)
}

pub(crate) fn check(what: &'static str, value: &str) -> Result<(), CatalogError> {
    let refuse = |reason| Err(CatalogError::UnsafeName { what, value: value.to_owned(), reason });
    if value.trim().is_empty() {
        return refuse("it is empty");
    }
    if value.len() > MAX_NAME_BYTES {
        return refuse("it is longer than 255 bytes");
    }
    if value.chars().any(char::is_control) {
        return refuse("it has control characters");
    }
    if value.contains('\\') {
        return refuse("it has a backslash");
    }
    let plain = Path::new(value).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain {
        return refuse("it must stay inside the models folder: no leading / and no ..");
    }
    Ok(())
}

/// `folder/relative`, when `relative` stays inside `folder`. Symbolic links on the way are the owner's business.
#[cfg(feature = "download")]
pub(crate) fn inside(folder: &Path, what: &'static str, relative: &str) -> Result<PathBuf, CatalogError> {
    check(what, relative)?;
    Ok(folder.join(relative))
}

/// The file name of a model's YAML: `/` becomes `__`.
#[cfg(feature = "download")]
pub(crate) fn config_file_name(model_name: &str) -> String {
    format!("{}.yaml", model_name.replace('/', "__"))
}

/// A name without the ending of a GGUF file.
pub(crate) fn without_gguf(name: &str) -> &str {
    match name.len().checked_sub(5).and_then(|at| name.split_at_checked(at)) {
        Some((stem, ending)) if !stem.is_empty() && ending.eq_ignore_ascii_case(".gguf") => stem,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["a", "llama3:8b", "org/model", "a.b-c_d.gguf", "Ünïcode", "a..b", "./a"] {
            assert!(check_model_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", " ", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a\\..\\b", "a\nb", "a\0", &long] {
            assert!(check_model_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gguf_endings() {
        for (name, stem) in [("a.gguf", "a"), ("a.GGUF", "a"), (".gguf", ".gguf"), ("é", "é"), ("a.gguf.x", "a.gguf.x")]
        {
            assert_eq!(without_gguf(name), stem);
        }
    }
}
