//! Keys on every path, other sites, rates, sizes, proxies and what is in front of answers.

use std::num::NonZeroU32;

use axum::http::Method;

use super::*;
use crate::options::Regex;
use crate::routes::{Verb, routes};

fn guarded(options: ServerOptions) -> Server {
    let options = ServerOptions { api_keys: vec!["secret".into()], ..options };
    Setup { options, ..Setup::default() }.build()
}

/// A path that the router knows, with something in place of its parameters.
fn concrete(path: &str) -> String {
    let mut out = String::new();
    for piece in path.split('/').skip(1) {
        out.push('/');
        out.push_str(if piece.starts_with('{') { "m" } else { piece });
    }
    out
}

/// The table of every path and every way to give a key.
#[tokio::test]
async fn every_path_is_guarded_and_every_header_opens_it() {
    let server = guarded(ServerOptions::default());
    let ways: [(&str, &str, bool); 9] = [
        ("none", "", false),
        ("authorization", "Bearer wrong", false),
        ("authorization", "Bearer secret", true),
        ("authorization", "secret", true),
        ("x-api-key", "secret", true),
        ("xi-api-key", "secret", true),
        ("api-key", "secret", true),
        ("cookie", "token=secret", true),
        ("cookie", "token=wrong", false),
    ];
    let mut rows = Vec::new();
    for route in routes() {
        for path in [route.path].iter().chain(route.aliases) {
            let is_public = ["/healthz", "/readyz"].contains(path) || path.starts_with("/swagger");
            let method = if route.verb == Verb::Get { Method::GET } else { Method::POST };
            let mut row = format!("{method} {path}:");
            for (header, value, opens) in ways {
                let mut request = Request::builder().method(method.clone()).uri(concrete(path));
                if header != "none" {
                    request = request.header(header, value);
                }
                // A body that no endpoint takes: what is guarded answers before it is read.
                let answered = server.send(request.body(Body::from("x")).expect("a request")).await;
                let status = answered.status.as_u16();
                assert_eq!(status == 401, !opens && !is_public, "{method} {path} with {header}: {value}: {status}");
                if status == 401 {
                    assert_eq!(answered.header("www-authenticate"), "Bearer");
                    assert_eq!(answered.json()["error"]["code"], "invalid_api_key");
                }
                row.push_str(&format!(" {header}={status}"));
            }
            rows.push(row);
        }
    }
    println!("{}", rows.join("\n"));
}

#[tokio::test]
async fn reading_can_be_exempt() {
    let open_to_get = vec![Regex::new("^/v1/models$").expect("it parses")];
    let server = guarded(ServerOptions { open_to_get, ..ServerOptions::default() });
    assert_eq!(server.get("/v1/models").await.status, 200);
    assert_eq!(server.get("/models").await.status, 401);
    assert_eq!(server.post("/v1/chat/completions", "{}").await.status, 401);
}

#[tokio::test]
async fn other_sites_need_a_key_for_what_changes_or_costs() {
    let body = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
    let ask = |site: &'static str, key: bool, method: Method| {
        let mut request = Request::builder().method(method).uri("/v1/chat/completions").header("sec-fetch-site", site);
        if key {
            request = request.header("authorization", "Bearer anything");
        }
        request.header("content-type", "application/json").body(Body::from(body)).expect("a request")
    };
    let server = Setup::default().build();
    for (site, key, expected) in [
        ("cross-site", false, 403),
        ("cross-site", true, 200),
        ("same-site", false, 200),
        ("same-origin", false, 200),
        ("none", false, 200),
    ] {
        let answered = server.send(ask(site, key, Method::POST)).await;
        assert_eq!(answered.status, expected, "{site} {key}");
    }
    assert_eq!(server.send(ask("cross-site", false, Method::OPTIONS)).await.status, 200);
    let options = ServerOptions { allow_cross_site: true, ..ServerOptions::default() };
    let open = Setup { options, ..Setup::default() }.build();
    assert_eq!(open.send(ask("cross-site", false, Method::POST)).await.status, 200);
}

#[tokio::test]
async fn rates_are_counted_by_key() {
    let rate_limit = NonZeroU32::new(2);
    let options = ServerOptions { rate_limit, api_keys: vec!["a".into(), "b".into()], ..ServerOptions::default() };
    let server = Setup { options, ..Setup::default() }.build();
    let ask = |key: &str| Request::get("/v1/models").header("x-api-key", key).body(Body::empty()).expect("a request");
    for (key, expected) in [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("wrong", 401)] {
        let answered = server.send(ask(key)).await;
        assert_eq!(answered.status, expected, "{key}");
        if expected == 429 {
            assert!(answered.header("retry-after").parse::<u64>().is_ok_and(|secs| (1..=31).contains(&secs)));
            assert_eq!(answered.json()["error"]["code"], "rate_limit_exceeded");
        }
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn text_has_a_smaller_limit_than_media() {
    let options = ServerOptions { text_limit_bytes: 20_000, body_limit_bytes: 200_000, ..ServerOptions::default() };
    let server = Setup { options, context_size: 100_000, ..Setup::default() }.build();
    let ask = |content: &str| format!(r#"{{"model": "m", "content": "{content}"}}"#);
    assert_eq!(server.post("/v1/tokenize", &ask("short")).await.status, 200);
    let prose = server.post("/v1/tokenize", &ask(&"word ".repeat(5_000))).await;
    assert_eq!((prose.status.as_u16(), prose.json()["error"]["code"].as_str()), (413, Some("body_too_large")));
    assert_eq!(server.post("/v1/tokenize", &ask(&"QUJD".repeat(6_000))).await.status, 200, "base64 is no text");
    assert_eq!(server.post("/v1/tokenize", &ask(&"QUJD".repeat(60_000))).await.status, 413);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_want_it() {
    let server = Setup::default().build();
    let ask = |path: &str| Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).expect("a request");
    let document = server.send(ask("/swagger/doc.json")).await;
    assert_eq!(document.header("content-encoding"), "gzip");
    assert_eq!(&document.body[..2], b"\x1f\x8b");
    assert_eq!(server.send(ask("/version")).await.header("content-encoding"), "", "it is short");
    assert_eq!(server.get("/swagger/doc.json").await.header("content-encoding"), "");
    let stream = Request::post("/v1/chat/completions").header("accept-encoding", "gzip");
    let body = r#"{"stream": true, "messages": [{"role": "user", "content": "hi"}]}"#;
    let answered =
        server.send(stream.header("content-type", "application/json").body(Body::from(body)).expect("ok")).await;
    assert_eq!(answered.header("content-encoding"), "", "events leave at once");
    let options = ServerOptions { compress_from_bytes: None, ..ServerOptions::default() };
    let plain = Setup { options, ..Setup::default() }.build();
    assert_eq!(plain.send(ask("/swagger/doc.json")).await.header("content-encoding"), "");
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_is() {
    let server = Setup::default().build();
    for path in ["/v1/models", "/nothing", "/swagger"] {
        let answered = server.get(path).await;
        for header in ["x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"] {
            assert!(!answered.header(header).is_empty(), "{path}: {header}");
        }
    }
}

#[tokio::test]
async fn links_are_as_the_client_sees_the_server() {
    let server = Setup::default().build();
    let link = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/models/apply").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Body::from(r#"{"config_file": {"name": "linked", "backend": "llama-cpp"}}"#);
        let answer = server.send(request.body(body).expect("a request")).await.json();
        let uuid = answer["uuid"].as_str().expect("a job").to_owned();
        answer["status"].as_str().expect("a link").replace(&uuid, "ID")
    };
    for (headers, expected) in [
        (&[("host", "h:1")][..], "http://h:1/models/jobs/ID"),
        (
            &[("host", "h"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "ai.org, inner")],
            "https://ai.org/models/jobs/ID",
        ),
        (&[("host", "h"), ("x-forwarded-prefix", "/ai/")], "http://h/ai/models/jobs/ID"),
        (&[("host", "h"), ("forwarded", "for=1;proto=https;host=\"ai.org\"")], "https://ai.org/models/jobs/ID"),
        (&[("host", "h"), ("x-forwarded-host", "a b<script>")], "http://localhost/models/jobs/ID"),
        (&[("host", "h"), ("x-forwarded-proto", "javascript")], "http://h/models/jobs/ID"),
    ] {
        assert_eq!(link(headers).await, expected, "{headers:?}");
    }
    let options = ServerOptions { base_url: Some("https://x.org/ai/".into()), ..ServerOptions::default() };
    let fixed = Setup { options, ..Setup::default() }.build();
    let answer = fixed.post("/models/apply", r#"{"config_file": {"name": "a"}}"#).await.json();
    assert!(
        answer["status"].as_str().is_some_and(|link| link.starts_with("https://x.org/ai/models/jobs/")),
        "{answer}"
    );
}
