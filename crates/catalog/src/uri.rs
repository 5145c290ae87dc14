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
    /// `ollama://` or `oci://`: an image of a container registry.
    Registry(ImageRef),
}

/// An image of a container registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Whose registry.
    pub kind: RegistryKind,
    /// Host and port; empty for Ollama's, whose address is a setting.
    pub host: String,
    /// `owner/name`.
    pub repository: String,
    /// Tag or digest.
    pub reference: String,
}

/// Kinds of container registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryKind {
    /// Ollama's.
    Ollama,
    /// Any other.
    Oci,
}

impl ImageRef {
    /// `scheme://host[:port]`; a registry of this machine is not encrypted.
    pub(crate) fn endpoint(&self) -> String {
        let name = self.host.split(':').next().unwrap_or_default();
        let is_here = name == "localhost" || name.starts_with("127.");
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { self.host.as_str() };
        format!("{}://{host}", if is_here { "http" } else { "https" })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.reference.starts_with("sha256:") { '@' } else { ':' };
        match self.kind {
            RegistryKind::Ollama => {
                let name = self.repository.strip_prefix("library/").unwrap_or(&self.repository);
                write!(formatter, "ollama://{name}{mark}{}", self.reference)
            }
            RegistryKind::Oci => write!(formatter, "oci://{}/{}{mark}{}", self.host, self.repository, self.reference),
        }
    }
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
            Self::Registry(image) => image.fmt(formatter),
        }
    }
}

const MAIN: &str = "main";
const NOT_YET: [&str; 1] = ["ocifile"];
/// Registries whose images may be named without a scheme.
const REGISTRIES: [&str; 3] = ["quay.io/", "ghcr.io/", "docker.io/"];

impl FileUri {
    /// Reads a URI; `None` when `text` has no scheme (and may be a name or a path).
    pub fn parse(text: &str) -> Option<Result<Self, CatalogError>> {
        if let Some(rest) = text.strip_prefix("hf.co/") {
            return Some(hub_file(text, rest));
        }
        if let Some(rest) = text.strip_prefix("github:") {
            return Some(github_url(text, rest.trim_start_matches("//")).map(Self::Http));
        }
        if REGISTRIES.iter().any(|host| text.starts_with(host)) {
            return Some(oci_image(text, text));
        }
        let (scheme, rest) = text.split_once("://")?;
        Some(match scheme.to_ascii_lowercase().as_str() {
            "huggingface" | "hf" => hub_file(text, rest),
            "http" | "https" => Ok(Self::Http(text.to_owned())),
            "file" => Ok(Self::Local(PathBuf::from(rest))),
            "ollama" => ollama_image(text, rest),
            "oci" => oci_image(text, rest),
            other if NOT_YET.contains(&other) => {
                Err(CatalogError::UnsupportedScheme { scheme: other.to_owned(), uri: text.to_owned() })
            }
            _ => Err(bad(text, "the scheme is not one of huggingface, hf, https, http, file, github, ollama, oci")),
        })
    }

    /// The last part of the path, which the file is called on disk.
    pub fn file_name(&self) -> Result<String, CatalogError> {
        let name = match self {
            Self::Hub(file) => file.path.rsplit('/').next().map(str::to_owned),
            Self::Http(url) => without_query(url).rsplit('/').next().map(str::to_owned),
            Self::Local(path) => path.file_name().and_then(|name| name.to_str()).map(str::to_owned),
            Self::Registry(image) => {
                let name = image.repository.rsplit('/').next().unwrap_or_default();
                let reference = image
                    .reference
                    .strip_prefix("sha256:")
                    .map_or(image.reference.as_str(), |hex| &hex[..12.min(hex.len())]);
                Some(format!("{name}-{reference}.gguf"))
            }
        };
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| bad(&self.to_string(), "it names no file"))?;
        names::check("file name", &name)?;
        Ok(name)
    }
}

/// The repository of the model hub that `text` names without a file: `hf://owner/name[@revision]`; and the revision.
pub(crate) fn hub_repository(text: &str) -> Option<(String, String)> {
    let rest = ["huggingface://", "hf://", "hf.co/", "https://huggingface.co/"]
        .iter()
        .find_map(|prefix| text.trim().strip_prefix(prefix))?
        .trim_end_matches('/');
    let (name, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
    let parts: Vec<&str> = name.split('/').collect();
    let is_plain = |part: &&str| names::check("part of a hub URI", part).is_ok() && !part.contains(['?', '#']);
    (parts.len() == 2 && parts.iter().all(is_plain) && is_plain(&revision))
        .then(|| (name.to_owned(), revision.to_owned()))
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

/// `name[:tag]` or `name@digest`.
fn image(text: &str, kind: RegistryKind, host: &str, rest: &str) -> Result<FileUri, CatalogError> {
    let (repository, reference) = match rest.split_once('@') {
        Some((repository, digest)) => (repository, digest),
        None => match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            Some(_) | None => (rest, "latest"),
        },
    };
    let is_plain =
        |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !part.is_empty();
    let is_reference = reference.strip_prefix("sha256:").map_or(is_plain(reference), is_plain);
    if !repository.split('/').all(|part| is_plain(part) && part != "..") || !is_reference {
        return Err(bad(text, "expected name[:tag] or host/owner/name[:tag]"));
    }
    let (host, repository, reference) = (host.to_owned(), repository.to_owned(), reference.to_owned());
    Ok(FileUri::Registry(ImageRef { kind, host, repository, reference }))
}

fn ollama_image(text: &str, rest: &str) -> Result<FileUri, CatalogError> {
    let rest = if rest.contains('/') { rest.to_owned() } else { format!("library/{rest}") };
    image(text, RegistryKind::Ollama, "", &rest)
}

fn oci_image(text: &str, rest: &str) -> Result<FileUri, CatalogError> {
    const DOCKER: &str = "docker.io";
    let (host, name) = match rest.split_once('/') {
        Some((host, name)) if host.contains(['.', ':']) || host == "localhost" => (host, name.to_owned()),
        Some(_) => (DOCKER, rest.to_owned()),
        None => (DOCKER, format!("library/{rest}")),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    if !host.chars().all(is_host) {
        return Err(bad(text, "its host is not a host name"));
    }
    image(text, RegistryKind::Oci, host, &name)
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
    fn repositories_are_told_from_files() {
        let repository = |text: &str| hub_repository(text).map(|(name, revision)| format!("{name} {revision}"));
        assert_eq!(repository("hf://o/r").as_deref(), Some("o/r main"));
        assert_eq!(repository("huggingface://o/r-GGUF@v1").as_deref(), Some("o/r-GGUF v1"));
        assert_eq!(repository("https://huggingface.co/o/r/").as_deref(), Some("o/r main"));
        for text in ["hf://o", "hf://o/r/f.gguf", "hf://o/..", "hf://o/r@", "o/r", "https://h/o/r", "hf://o/r?x"] {
            assert_eq!(repository(text), None, "{text}");
        }
    }

    #[test]
    fn bad_uris_are_refused() {
        for text in
            ["hf://", "hf://o/r", "hf://o/r/", "hf://o/../f", "hf://o/r/f@", "ocifile:///a", "ftp://a/b", "github:a/b"]
        {
            assert!(FileUri::parse(text).unwrap().is_err(), "{text}");
        }
        for text in ["https://x.org/", "file:///"] {
            assert!(FileUri::parse(text).unwrap().unwrap().file_name().is_err(), "{text}");
        }
        let error = FileUri::parse("ocifile:///a.tar").unwrap().unwrap_err();
        assert!(error.to_string().contains("not supported yet") && error.to_string().contains("huggingface://"));
    }
}
