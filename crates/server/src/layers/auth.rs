//! API keys.
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;
use crate::state::ServerState;

/// Headers whose whole value is a key.
const KEY_HEADERS: [&str; 3] = ["x-api-key", "xi-api-key", "api-key"];

/// What anybody may read.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];
const PUBLIC_TREE: &str = "/swagger";

/// Lets a request pass when no keys are set, its path is public, or it carries one of the keys.
///
/// Decided before a byte of the body is read.
pub(crate) async fn require_key(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let keys = &state.options().api_keys;
    let is_open = keys.is_empty() || is_public(request.uri().path()) || request.method() == Method::OPTIONS;
    if is_open || is_known(keys, request.headers()) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn is_public(path: &str) -> bool {
    let in_tree = path.strip_prefix(PUBLIC_TREE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    PUBLIC.contains(&path) || in_tree
}

/// Every given key is compared with every set one, so that the time tells nothing.
fn is_known(keys: &[String], headers: &HeaderMap) -> bool {
    let mut found = Choice::from(0);
    for given in given_keys(headers) {
        for key in keys {
            found |= key.as_bytes().ct_eq(given);
        }
    }
    found.into()
}

fn given_keys(headers: &HeaderMap) -> Vec<&[u8]> {
    let mut given: Vec<&[u8]> = Vec::new();
    given.extend(headers.get_all(header::AUTHORIZATION).iter().map(|value| bearer(value.as_bytes())));
    given.extend(KEY_HEADERS.iter().filter_map(|name| headers.get(*name)).map(|value| value.as_bytes()));
    for cookies in headers.get_all(header::COOKIE) {
        let pairs = cookies.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        given.extend(pairs.filter_map(|pair| pair.strip_prefix(b"token=")));
    }
    given
}

/// The key in `Bearer KEY`, or a bare one.
fn bearer(value: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => key.trim_ascii(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_known, is_public};
    use axum::http::HeaderMap;

    fn check(name: &'static str, value: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        assert_eq!(is_known(&["k1".into(), "secret".into()], &headers), expected, "{name}: {value}");
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("authorization", "bearer  secret"),
            ("authorization", "secret"),
            ("x-api-key", "secret"),
            ("xi-api-key", "k1"),
            ("api-key", "secret"),
            ("cookie", "a=b; token=secret"),
        ] {
            check(name, value, true);
        }
        for (name, value) in [
            ("authorization", "Bearer secre"),
            ("authorization", "Bearer secrets"),
            ("authorization", "Basic secret"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
            ("cookie", "mytoken=secret"),
            ("cookie", "token=SECRET"),
            ("other", "secret"),
        ] {
            check(name, value, false);
        }
    }

    #[test]
    fn only_health_and_documentation_are_public() {
        for path in ["/healthz", "/readyz", "/swagger", "/swagger/doc.json"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/", "/metrics", "/v1/models", "/swaggerx", "/healthz/x", "/version"] {
            assert!(!is_public(path), "{path}");
        }
    }
}
