//! The URIs that name a file: where it can be fetched, and what it is called on disk.

use crate::{CatalogError, names};
use std::fmt;
use std::path::PathBuf;

/// A place to fetch one file from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUri {
    /// A file of a repository on the model hub.
    Hub(HubFile),
    /// `http://` or `https://`.
    Http(String),
    /// `file://` or a path.
    Local(PathBuf),
}

/// A file of a repository on the model hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// Path inside the repository.
    pub path: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl fmt::Display for HubFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "huggingface://{}/{}", self.repo, self.path)?;
        if self.revision == MAIN { Ok(()) } else { write!(formatter, "@{}", self.revision) }
    }
}

impl fmt::Display for FileUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(file) => file.fmt(formatter),
            Self::Http(url) => formatter.write_str(without_query(url)),
            Self::Local(path) => write!(formatter, "file://{}", path.display()),
        }
    }
}

const MAIN: &str = "main";
const NOT_YET: [&str; 3] = ["ollama", "oci", "ocifile"];

impl FileUri {
    /// Reads a URI; `None` when `text` has no scheme (and may be a name or a path).
    pub fn parse(text: &str) -> Option<Result<Self, CatalogError>> {
        if let Some(rest) = text.strip_prefix("hf.co/") {
            return Some(hub_file(text, rest));
        }
        if let Some(rest) = text.strip_prefix("github:") {
            return Some(github_url(text, rest.trim_start_matches("//")).map(Self::Http));
        }
        let (scheme, rest) = text.split_once("://")?;
        Some(match scheme.to_ascii_lowercase().as_str() {
            "huggingface" | "hf" => hub_file(text, rest),
            "http" | "https" => Ok(Self::Http(text.to_owned())),
            "file" => Ok(Self::Local(PathBuf::from(rest))),
            other if NOT_YET.contains(&other) => {
                Err(CatalogError::UnsupportedScheme { scheme: other.to_owned(), uri: text.to_owned() })
            }
            _ => Err(bad(text, "the scheme is not one of huggingface, hf, https, http, file, github")),
        })
    }

    /// The last part of the path, which the file is called on disk.
    pub fn file_name(&self) -> Result<String, CatalogError> {
        let name = match self {
            Self::Hub(file) => file.path.rsplit('/').next().map(str::to_owned),
            Self::Http(url) => without_query(url).rsplit('/').next().map(str::to_owned),
            Self::Local(path) => path.file_name().and_then(|name| name.to_str()).map(str::to_owned),
        };
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| bad(&self.to_string(), "it names no file"))?;
        names::check("file name", &name)?;
        Ok(name)
    }
}

/// The name on disk of the file that `text` refers to; `None` when it is no URI.
pub(crate) fn file_name_of_uri(text: &str) -> Option<Result<String, CatalogError>> {
    FileUri::parse(text).map(|uri| uri?.file_name())
}

fn bad(uri: &str, reason: &'static str) -> CatalogError {
    CatalogError::BadUri { uri: uri.to_owned(), reason }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn hub_file(text: &str, rest: &str) -> Result<FileUri, CatalogError> {
    let (rest, revision) = match rest.rsplit_once('@') {
        Some((rest, revision)) if !revision.is_empty() => (rest, revision),
        Some(_) => return Err(bad(text, "there is nothing after the @")),
        None => (rest, MAIN),
    };
    let mut parts = rest.splitn(3, '/');
    let (Some(owner), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad(text, "expected huggingface://owner/repo/file[@revision]"));
    };
    if owner.is_empty() || name.is_empty() || path.is_empty() || path.ends_with('/') {
        return Err(bad(text, "expected huggingface://owner/repo/file[@revision]"));
    }
    for part in [owner, name, path, revision] {
        names::check("part of a hub URI", part)?;
    }
    // The hub's own page addresses come with this in between.
    let path = path.strip_prefix("resolve/main/").or_else(|| path.strip_prefix("blob/main/")).unwrap_or(path);
    Ok(FileUri::Hub(HubFile { repo: format!("{owner}/{name}"), path: path.to_owned(), revision: revision.to_owned() }))
}

/// `org/repo/path[@branch]` to the address of the raw file.
fn github_url(text: &str, rest: &str) -> Result<String, CatalogError> {
    let (rest, branch) = rest.rsplit_once('@').unwrap_or((rest, MAIN));
    let mut parts = rest.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(org), Some(repo), Some(path)) if !org.is_empty() && !repo.is_empty() && !path.is_empty() => {
            Ok(format!("https://raw.githubusercontent.com/{org}/{repo}/{branch}/{path}"))
        }
        _ => Err(bad(text, "expected github:org/repo/path[@branch]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_their_files() {
        let cases = [
            ("huggingface://o/r/f.gguf", "huggingface://o/r/f.gguf", "f.gguf"),
            ("hf://o/r/d/f.gguf@v1", "huggingface://o/r/d/f.gguf@v1", "f.gguf"),
            ("hf.co/o/r/f.gguf", "huggingface://o/r/f.gguf", "f.gguf"),
            ("hf://o/r/resolve/main/f.gguf", "huggingface://o/r/f.gguf", "f.gguf"),
            ("https://x.org/a/f.gguf?download=true", "https://x.org/a/f.gguf", "f.gguf"),
            ("file:///a/f.gguf", "file:///a/f.gguf", "f.gguf"),
            ("github:o/r/d/f.yaml@b", "https://raw.githubusercontent.com/o/r/b/d/f.yaml", "f.yaml"),
        ];
        for (text, shown, file) in cases {
            let uri = FileUri::parse(text).unwrap().unwrap();
            assert_eq!(uri.to_string(), shown);
            assert_eq!(uri.file_name().unwrap(), file);
        }
        assert!(FileUri::parse("smollm2").is_none());
        assert!(FileUri::parse("a/b.gguf").is_none());
    }

    #[test]
    fn bad_uris_are_refused() {
        for text in [
            "hf://",
            "hf://o/r",
            "hf://o/r/",
            "hf://o/../f",
            "hf://o/r/f@",
            "ollama://a",
            "oci://a",
            "ftp://a/b",
            "github:a/b",
        ] {
            assert!(FileUri::parse(text).unwrap().is_err(), "{text}");
        }
        for text in ["https://x.org/", "file:///"] {
            assert!(FileUri::parse(text).unwrap().unwrap().file_name().is_err(), "{text}");
        }
        let error = FileUri::parse("ollama://gemma").unwrap().unwrap_err();
        assert!(error.to_string().contains("not supported yet") && error.to_string().contains("huggingface://"));
    }
}
