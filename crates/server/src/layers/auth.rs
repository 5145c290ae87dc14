//! Who may ask: API keys, how often, and web pages of other sites.
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::serve::Peer;
use crate::state::ServerState;

/// Headers whose whole value is a key.
const KEY_HEADERS: [&str; 3] = ["x-api-key", "xi-api-key", "api-key"];

/// What anybody may read.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];
const PUBLIC_TREE: &str = "/swagger";

/// Callers whose rates are remembered before the list is looked through.
const MOST_CALLERS: usize = 10_000;

/// What browsers say about where a request comes from.
const FETCH_SITE: &str = "sec-fetch-site";

/// Lets a request pass when no keys are set, its path is public, or it carries one of the keys.
///
/// Decided before a byte of the body is read.
pub(crate) async fn require_key(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let keys = state.keys();
    let path = request.uri().path();
    let is_free = is_public(path) || request.method() == Method::OPTIONS || is_exempt(&state, &request);
    if !is_free && !keys.is_open() && !keys.knows(&given_keys(request.headers())) {
        return ApiError::unauthorized().into_response();
    }
    if !state.options().allow_cross_site && is_cross_site(&request) {
        return ApiError::cross_site().into_response();
    }
    if !is_free && let Some(wait_secs) = over_rate(&state, &request) {
        return ApiError::too_many_requests(wait_secs).into_response();
    }
    next.run(request).await
}

/// Reading requests on paths that the options exempt.
fn is_exempt(state: &ServerState, request: &Request) -> bool {
    let is_reading = [Method::GET, Method::HEAD].contains(request.method());
    is_reading && state.options().open_to_get.iter().any(|pattern| pattern.is_match(request.uri().path()))
}

/// Does a web page of another site make a request that changes or costs something, without a key of its own? A page
/// cannot add a header that its visitor does not have; without one, it uses nothing but the visitor's network.
fn is_cross_site(request: &Request) -> bool {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let site = request.headers().get(FETCH_SITE).map(|value| value.as_bytes());
    let headers = request.headers();
    let has_key =
        headers.contains_key(header::AUTHORIZATION) || KEY_HEADERS.iter().any(|name| headers.contains_key(*name));
    !is_safe && site == Some(b"cross-site") && !has_key
}

/// Seconds to wait, for a caller that has sent too many requests.
fn over_rate(state: &ServerState, request: &Request) -> Option<u64> {
    let limiter = state.rate_limiter()?;
    let caller = match given_keys(request.headers()).first() {
        Some(key) if !state.keys().is_open() => key.to_vec(),
        _ => request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string().into_bytes()).unwrap_or_default(),
    };
    // Callers that have not come back for a while are forgotten.
    if limiter.len() > MOST_CALLERS {
        limiter.retain_recent();
    }
    let clock = governor::clock::DefaultClock::default();
    let refused = limiter.check_key(&caller).err()?;
    Some(refused.wait_time_from(governor::clock::Clock::now(&clock)).as_secs() + 1)
}

fn is_public(path: &str) -> bool {
    let in_tree = path.strip_prefix(PUBLIC_TREE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    PUBLIC.contains(&path) || in_tree
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
    use super::{given_keys, is_public};
    use crate::layers::KeyRing;
    use axum::http::HeaderMap;

    fn check(name: &'static str, value: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        let keys = KeyRing::new(vec!["k1".into(), "secret".into()], None);
        assert_eq!(keys.knows(&given_keys(&headers)), expected, "{name}: {value}");
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
