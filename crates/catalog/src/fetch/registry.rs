//! Models in container registries: `ollama://` and `oci://`, after the OCI distribution specification.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::http::{Http, Reply};
use crate::uri::{ImageRef, RegistryKind};
use crate::{CatalogError, Retry};

/// Manifests that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

/// The layer of an Ollama model that holds the weights.
const OLLAMA_WEIGHTS: &str = "application/vnd.ollama.image.model";

/// How the weights lie in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// The blob is the file.
    Plain,
    /// A tar archive with the file in it.
    Tar,
    /// The same, compressed with gzip.
    TarGzip,
}

/// The blob of an image that holds the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub url: String,
    pub token: Option<String>,
    /// 64 hex digits.
    pub sha256: String,
    pub packing: Packing,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Listed {
    digest: String,
    #[serde(default)]
    platform: Platform,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

fn wrong(image: &ImageRef, message: impl Into<String>) -> CatalogError {
    CatalogError::Transport { url: image.to_string(), message: message.into(), retry: Retry::Useless }
}

/// Finds the weights of an image. `ollama` is the address of Ollama's registry.
pub(super) fn find(http: &Http, image: &ImageRef, ollama: &str) -> Result<Blob, CatalogError> {
    let root = match image.kind {
        RegistryKind::Ollama => format!("{}/v2/{}", ollama.trim_end_matches('/'), image.repository),
        RegistryKind::Oci => format!("{}/v2/{}", image.endpoint(), image.repository),
    };
    let mut token = None;
    let mut manifest = manifest(http, image, &root, &image.reference, &mut token)?;
    if manifest.layers.is_empty() && !manifest.manifests.is_empty() {
        let is_here = |listed: &&Listed| listed.platform.os == "linux" && listed.platform.architecture == "amd64";
        let listed = manifest.manifests.iter().find(is_here).or(manifest.manifests.first());
        let digest = listed.map(|listed| listed.digest.clone()).unwrap_or_default();
        manifest = self::manifest(http, image, &root, &digest, &mut token)?;
    }
    let (layer, packing) = weights(&manifest.layers, image)?;
    let sha256 = layer.digest.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    let is_digest = |digest: &String| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sha256 = sha256.filter(is_digest).ok_or_else(|| wrong(image, "its layer has no sha256 digest"))?;
    Ok(Blob { url: format!("{root}/blobs/{}", layer.digest), token, sha256, packing })
}

/// The layer with the weights: of Ollama's kind, one that is called `*.gguf`, or else the largest archive.
fn weights<'a>(layers: &'a [Layer], image: &ImageRef) -> Result<(&'a Layer, Packing), CatalogError> {
    if let Some(layer) = layers.iter().find(|layer| layer.media_type == OLLAMA_WEIGHTS) {
        return Ok((layer, Packing::Plain));
    }
    let title = |layer: &Layer| {
        let title = layer.annotations.get("org.opencontainers.image.title").and_then(Value::as_str);
        title.unwrap_or_default().to_ascii_lowercase()
    };
    let is_archive = |layer: &&Layer| layer.media_type.contains("tar");
    let named = layers.iter().filter(|layer| !is_archive(layer) && title(layer).ends_with(".gguf"));
    if let Some(layer) = named.max_by_key(|layer| layer.size) {
        return Ok((layer, Packing::Plain));
    }
    let layer = layers.iter().filter(is_archive).max_by_key(|layer| layer.size);
    let layer = layer.ok_or_else(|| wrong(image, "the image holds no GGUF file"))?;
    let is_compressed = layer.media_type.contains("gzip");
    if layer.media_type.contains("zstd") {
        return Err(wrong(image, "its layers are compressed with zstd, which is not understood"));
    }
    Ok((layer, if is_compressed { Packing::TarGzip } else { Packing::Tar }))
}

fn manifest(
    http: &Http,
    image: &ImageRef,
    root: &str,
    reference: &str,
    token: &mut Option<String>,
) -> Result<Manifest, CatalogError> {
    let url = format!("{root}/manifests/{reference}");
    let mut reply = http.get_reply(&url, token.as_deref(), MANIFESTS)?;
    if reply.status == 401 && token.is_none() {
        *token = Some(ask_for_token(http, image, &reply)?);
        reply = http.get_reply(&url, token.as_deref(), MANIFESTS)?;
    }
    match reply.status {
        200 => serde_json::from_str(&reply.text).map_err(|error| wrong(image, format!("its manifest: {error}"))),
        404 => Err(wrong(image, "there is no such image; look at its name and tag")),
        status => Err(CatalogError::HttpStatus { url, status, retry_after: None }),
    }
}

/// Gets an anonymous token, as the registry's challenge says (distribution specification, token authentication).
fn ask_for_token(http: &Http, image: &ImageRef, refused: &Reply) -> Result<String, CatalogError> {
    let challenge = refused.challenge.as_deref().and_then(|text| text.strip_prefix("Bearer "));
    let challenge = challenge.ok_or_else(|| wrong(image, "the registry wants a login, which is not supported"))?;
    let part = |name: &str| {
        let start = challenge.find(&format!("{name}=\""))? + name.len() + 2;
        challenge[start..].split('"').next()
    };
    let realm = part("realm").ok_or_else(|| wrong(image, "the registry does not say where to log in"))?;
    let mut url = realm.to_owned();
    for (name, mark) in [("service", '?'), ("scope", '&')] {
        if let Some(value) = part(name) {
            url.push(if url.contains('?') { '&' } else { mark });
            url.push_str(&format!("{name}={}", value.replace('/', "%2F").replace(':', "%3A")));
        }
    }
    let reply = http.get_reply(&url, None, "application/json")?;
    let answer: Value = serde_json::from_str(&reply.text).unwrap_or_default();
    let token = answer.get("token").or_else(|| answer.get("access_token")).and_then(Value::as_str);
    token
        .map(str::to_owned)
        .ok_or_else(|| wrong(image, format!("the registry gave no token (status {})", reply.status)))
}

/// Takes the GGUF file out of a layer.
pub(super) fn unpack(layer: &Path, packing: Packing, to: &Path) -> Result<(), CatalogError> {
    let file = BufReader::new(File::open(layer).map_err(CatalogError::io("open", layer))?);
    let reader: Box<dyn io::Read> = match packing {
        Packing::TarGzip => Box::new(flate2::read::GzDecoder::new(file)),
        Packing::Tar | Packing::Plain => Box::new(file),
    };
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries().map_err(CatalogError::io("read", layer))?;
    for entry in entries {
        let mut entry = entry.map_err(CatalogError::io("read", layer))?;
        let is_weights = entry.header().entry_type().is_file()
            && entry
                .path()
                .is_ok_and(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")));
        if is_weights {
            let mut out = File::create(to).map_err(CatalogError::io("create", to))?;
            io::copy(&mut entry, &mut out).map_err(CatalogError::io("write", to))?;
            return out.sync_all().map_err(CatalogError::io("write", to));
        }
    }
    let message = "the image's layer holds no .gguf file".to_owned();
    Err(CatalogError::NotAModel { path: layer.to_owned(), message })
}
