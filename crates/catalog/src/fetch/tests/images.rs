//! Container registries, imitated from the distribution specification.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use tiny_http::{Header, Response, StatusCode};

use super::*;
use crate::uri::ImageRef;

/// A path and what was given as authorization.
type Seen = (String, Option<String>);

/// What the registry has: path to media type and body. Everything under a path in `closed` wants a token.
struct Registry {
    port: u16,
    http: Arc<tiny_http::Server>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    fn new(entries: Vec<(&str, Vec<u8>)>, wants_token: bool) -> Self {
        let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let port = http.server_addr().to_ip().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let entries: HashMap<String, Vec<u8>> =
            entries.into_iter().map(|(path, body)| (path.to_owned(), body)).collect();
        let (serving, shared) = (Arc::clone(&http), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            for request in serving.incoming_requests() {
                let given = request.headers().iter().find(|header| header.field.equiv("authorization"));
                let given = given.map(|header| header.value.to_string());
                let path = request.url().to_owned();
                shared.lock().unwrap().push((path.clone(), given.clone()));
                let is_token = path.starts_with("/token");
                let response = if is_token {
                    Response::from_string(r#"{"token": "t0ken"}"#)
                } else if wants_token && given.as_deref() != Some("Bearer t0ken") {
                    let challenge = format!(
                        "Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"test\",scope=\"repository:a/b:pull\""
                    );
                    let header = Header::from_bytes("WWW-Authenticate", challenge.as_bytes()).unwrap();
                    Response::from_string("{}").with_status_code(StatusCode(401)).with_header(header)
                } else {
                    match entries.get(&path) {
                        Some(body) => Response::from_data(body.clone()),
                        None => Response::from_string("{}").with_status_code(StatusCode(404)),
                    }
                };
                let _ = request.respond(response);
            }
        });
        Self { port, http, seen, thread: Some(thread) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.http.unblock();
        let _ = self.thread.take().unwrap().join();
    }
}

fn manifest(layers: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, body, title)| {
            serde_json::json!({
                "mediaType": media_type,
                "digest": format!("sha256:{}", sha256(body)),
                "size": body.len(),
                "annotations": {"org.opencontainers.image.title": title},
            })
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string().into_bytes()
}

fn image(text: &str) -> SourcePlace {
    SourcePlace::Uri(FileUri::parse(text).unwrap().unwrap())
}

fn archive(name: &str, compressed: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in [("README.md", b"hello".to_vec()), (name, body())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    let plain = builder.into_inner().unwrap();
    if !compressed {
        return plain;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn ollama_models_are_pulled_by_their_weights() {
    let weights = body();
    let manifest = manifest(&[
        ("application/vnd.ollama.image.template", b"{{ .Prompt }}", ""),
        ("application/vnd.ollama.image.model", &weights, ""),
    ]);
    let blob = format!("/v2/library/tiny/blobs/sha256:{}", sha256(&weights));
    let registry = Registry::new(vec![("/v2/library/tiny/manifests/1b", manifest), (&blob, weights)], false);
    let mut bench = Bench::new("http://127.0.0.1:9");
    bench.settings.ollama_registry = format!("http://127.0.0.1:{}", registry.port);
    let fetched = bench.fetch(&file(vec![image("ollama://tiny:1b")], None)).unwrap();
    assert_eq!(stored(&fetched), body());
    assert_eq!(fetched.outcome, Outcome::Downloaded(Verification::Declared));
    let missing = bench.fetch(&file(vec![image("ollama://tiny:70b")], None)).unwrap_err().to_string();
    assert!(missing.contains("no such image"), "{missing}");
}

#[test]
fn images_are_pulled_with_a_token_and_unpacked() {
    for (media_type, layer) in [
        ("application/vnd.oci.image.layer.v1.tar", archive("models/m.gguf", false)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", archive("m.GGUF", true)),
        ("application/octet-stream", body()),
    ] {
        let manifest = manifest(&[("application/json", b"{}", "config.json"), (media_type, &layer, "m.gguf")]);
        let inner = format!("sha256:{}", sha256(&manifest));
        let index = serde_json::json!({"manifests": [
            {"digest": "sha256:0", "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": inner, "platform": {"os": "linux", "architecture": "amd64"}},
        ]});
        let (blob, by_digest) =
            (format!("/v2/a/b/blobs/sha256:{}", sha256(&layer)), format!("/v2/a/b/manifests/{inner}"));
        let entries = vec![
            ("/v2/a/b/manifests/v1", index.to_string().into_bytes()),
            (by_digest.as_str(), manifest),
            (blob.as_str(), layer),
        ];
        let registry = Registry::new(entries, true);
        let bench = Bench::new("http://127.0.0.1:9");
        let place = image(&format!("oci://127.0.0.1:{}/a/b:v1", registry.port));
        let fetched = bench.fetch(&file(vec![place], None)).unwrap();
        assert_eq!(stored(&fetched), body(), "{media_type}");
        let seen = registry.seen.lock().unwrap();
        assert!(seen.iter().any(|(path, _)| path == "/token?service=test&scope=repository%3Aa%2Fb%3Apull"), "{seen:?}");
    }
}

#[test]
fn wrong_digests_and_empty_images_are_refused() {
    let weights = body();
    let digest = sha256(&weights);
    let blob = format!("/v2/a/b/blobs/sha256:{digest}");
    let changed = [&weights[..weights.len() - 1], b"x"].concat();
    let layer = |media_type| manifest(&[(media_type, &weights, "m.gguf")]);
    for (manifest, body, expected) in [
        (layer("application/octet-stream"), changed.clone(), "sha256"),
        (layer("application/vnd.oci.image.layer.v1.tar"), changed, "sha256"),
        (layer("application/vnd.oci.image.layer.v1.tar"), weights.clone(), ""),
        (manifest(&[("application/json", b"{}", "a.json")]), weights.clone(), "holds no GGUF"),
        (layer("application/vnd.oci.image.layer.v1.tar+zstd"), weights.clone(), "zstd"),
        (b"not JSON".to_vec(), weights.clone(), "manifest"),
    ] {
        let registry = Registry::new(vec![("/v2/a/b/manifests/latest", manifest), (&blob, body)], false);
        let bench = Bench::new("http://127.0.0.1:9");
        let place = image(&format!("oci://127.0.0.1:{}/a/b", registry.port));
        let error = bench.fetch(&file(vec![place], None)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        let cache = bench.settings.models_cache();
        let files: Vec<_> = fs::read_dir(&cache)
            .into_iter()
            .flatten()
            .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        assert_eq!(files, Vec::<String>::new(), "nothing of it is left: {expected}");
    }
}

#[test]
fn clients_may_not_name_private_addresses() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let policy = FetchPolicy { reach: Reach::PublicOnly, ..POLICY };
    let fetcher = Fetcher::new(bench.settings.clone());
    let fetch = |place| fetcher.fetch(&file(vec![place], None), policy, &NoProgress);
    for place in [
        url(server.url("/cdn")),
        url(server.url("/cdn").replace("127.0.0.1", "localhost")),
        image("oci://127.0.0.1:1/a/b"),
    ] {
        let error = fetch(place).unwrap_err().to_string();
        assert!(error.contains("private network"), "{error}");
    }
    assert!(server.seen().is_empty(), "it was not contacted");
    fetch(hub("m.gguf")).expect("the hub's address is the operator's");
}

#[test]
fn images_and_their_names() {
    for (text, shown, file) in [
        ("ollama://gemma", "ollama://gemma:latest", "gemma-latest.gguf"),
        ("ollama://owner/gemma:2b", "ollama://owner/gemma:2b", "gemma-2b.gguf"),
        ("oci://quay.io/a/b:v1", "oci://quay.io/a/b:v1", "b-v1.gguf"),
        ("ghcr.io/a/b", "oci://ghcr.io/a/b:latest", "b-latest.gguf"),
        ("oci://gemma:2", "oci://docker.io/library/gemma:2", "gemma-2.gguf"),
        ("oci://localhost:5000/a", "oci://localhost:5000/a:latest", "a-latest.gguf"),
        ("oci://h.org/a@sha256:0123456789abcdef", "oci://h.org/a@sha256:0123456789abcdef", "a-0123456789ab.gguf"),
    ] {
        let uri = FileUri::parse(text).unwrap().unwrap();
        assert_eq!((uri.to_string().as_str(), uri.file_name().unwrap().as_str()), (shown, file));
    }
    for text in ["ollama://", "ollama://a:b:c", "oci://h.org/", "oci://h.org/../a", "oci://h org/a", "ollama://a/../b"]
    {
        assert!(FileUri::parse(text).unwrap().is_err(), "{text}");
    }
    let here = |host: &str| ImageRef {
        kind: crate::uri::RegistryKind::Oci,
        host: host.into(),
        repository: "a".into(),
        reference: "b".into(),
    };
    assert_eq!(here("localhost:1").endpoint(), "http://localhost:1");
    assert_eq!(here("quay.io").endpoint(), "https://quay.io");
}
