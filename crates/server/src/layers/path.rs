//! Sloppy base URLs: doubled and trailing slashes.
use axum::http::{Request, Uri, uri::PathAndQuery};

/// Paths below this hold a model's id, which may hold `//` itself (`huggingface://…`).
const IDS: &str = "/models/";

/// Removes trailing slashes and doubles from a request's path.
pub(crate) fn normalise<B>(mut request: Request<B>) -> Request<B> {
    if let Some(path) = cleaned(request.uri().path()) {
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
    }
}
