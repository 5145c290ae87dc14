//! Sloppy base URLs: doubled and trailing slashes; and the prefix under which a proxy shows this server.
use axum::http::{Request, Uri, uri::PathAndQuery};

/// Paths below this hold a model's id, which may hold `//` itself (`huggingface://…`).
const IDS: &str = "/models/";

/// Where a proxy tells the prefix that it may have left in the path.
const PREFIX: &str = "x-forwarded-prefix";

/// Removes a proxy's prefix, trailing slashes and doubles from a request's path.
pub(crate) fn normalise<B>(mut request: Request<B>) -> Request<B> {
    let prefix = request.headers().get(PREFIX).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let prefix = prefix.trim().trim_end_matches('/');
    let path = request.uri().path();
    let inner =
        path.strip_prefix(prefix).filter(|rest| !prefix.is_empty() && (rest.is_empty() || rest.starts_with('/')));
    let inner = inner.map(|rest| if rest.is_empty() { "/" } else { rest });
    let changed = cleaned(inner.unwrap_or(path)).or_else(|| inner.map(str::to_owned));
    if let Some(path) = changed {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        // A path that was valid with more slashes is valid with fewer; if not, the original one is kept.
        if let Ok(path_and_query) = PathAndQuery::try_from(format!("{path}{query}")) {
            parts.path_and_query = Some(path_and_query);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

/// The path without superfluous slashes; `None` when it has none.
fn cleaned(path: &str) -> Option<String> {
    let (head, id) = match path.find(IDS) {
        Some(start) => path.split_at(start + IDS.len()),
        None => (path, ""),
    };
    let mut cleaned = String::with_capacity(path.len());
    for c in head.chars() {
        if c != '/' || !cleaned.ends_with('/') {
            cleaned.push(c);
        }
    }
    cleaned.push_str(id);
    while cleaned.len() > 1 && cleaned.ends_with('/') {
        cleaned.pop();
    }
    (cleaned != path).then_some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use axum::http::Request;

    #[test]
    fn superfluous_slashes_go() {
        let cases = [
            ("/", "/"),
            ("//", "/"),
            ("/v1/models", "/v1/models"),
            ("/v1/models/", "/v1/models"),
            ("//v1/models?a=b//", "/v1/models?a=b//"),
            ("/v1//chat/completions///", "/v1/chat/completions"),
            ("/v1/models/huggingface://a/b/", "/v1/models/huggingface://a/b"),
            ("//v1//models/a%2Fb:c", "/v1/models/a%2Fb:c"),
        ];
        for (path, expected) in cases {
            // With a host in front, as a path that begins with `//` would otherwise be read as one.
            let request = Request::builder().uri(format!("http://host{path}")).body(()).expect("a valid path");
            let cleaned = normalise(request);
            assert_eq!(cleaned.uri().path_and_query().map(|path| path.as_str()), Some(expected), "{path}");
        }
        for (prefix, path, expected) in [
            ("/ai", "/ai/v1/models", "/v1/models"),
            ("/ai/", "/ai/v1/models/?x=1", "/v1/models?x=1"),
            ("/ai", "/ai", "/"),
            ("/ai", "/aim", "/aim"),
            ("/ai", "/v1/models", "/v1/models"),
            ("", "/v1/models", "/v1/models"),
        ] {
            let request = Request::builder().uri(path).header("x-forwarded-prefix", prefix);
            let cleaned = normalise(request.body(()).expect("a valid path"));
            assert_eq!(cleaned.uri().path_and_query().map(|path| path.as_str()), Some(expected), "{prefix} {path}");
        }
    }
}
