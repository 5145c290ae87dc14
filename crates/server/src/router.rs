//! Endpoints with everything that stands in front of them.
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tower::Layer;
use tower::util::MapRequestLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::error::ApiError;
use crate::layers::{add_headers, cors, hide_errors, normalise, panicked, require_key};
use crate::metrics::FinishedRequest;
use crate::routes::{Offered, endpoints};
use crate::state::ServerState;

/// Name of requests that no route matches, in the metrics.
const UNMATCHED: &str = "unmatched";

/// The whole HTTP surface as a service, without a socket.
///
/// From the outside in: superfluous slashes go; ids and other headers are added; CORS preflights are answered; large
/// answers are compressed; failures lose their bodies if the options say so; requests are counted; keys, sites and rates
/// are checked; panics become a 500.
pub fn router(state: ServerState) -> Router {
    let options = state.options();
    let offered = Offered { metrics: options.metrics, jobs: state.jobs().is_some() };
    let mut router = endpoints(offered)
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), require_key))
        .layer(from_fn_with_state(state.clone(), count))
        .layer(from_fn_with_state(state.clone(), hide_errors));
    if let Some(least_bytes) = options.compress_from_bytes {
        // Events and lines must leave at once.
        let is_worth_it = SizeAbove::new(u64::from(least_bytes))
            .and(NotForContentType::SSE)
            .and(NotForContentType::const_new("application/x-ndjson"))
            .and(NotForContentType::IMAGES)
            // Sound is compressed by itself, or sent while it is made.
            .and(NotForContentType::const_new("audio/"));
        router = router.layer(CompressionLayer::new().compress_when(is_worth_it));
    }
    if let Some(cors) = cors(&options.cors) {
        router = router.layer(cors);
    }
    let router = router.layer(from_fn_with_state(state.clone(), add_headers)).with_state(state);
    // Routing happens before layers, so the path is cleaned in front of a router of its own.
    Router::new().fallback_service(MapRequestLayer::new(normalise::<axum::body::Body>).layer(router))
}

async fn no_path(uri: Uri) -> ApiError {
    ApiError::path_not_found(uri.path())
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}

/// Counts every request by its route.
async fn count(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = known(request.method()).to_owned();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or(UNMATCHED, |path| path.as_str()).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    state.metrics().record_request(FinishedRequest { method, route, status, took: begun.elapsed() });
    response
}

/// Methods are free text; only usual ones get a counter of their own.
fn known(method: &Method) -> &str {
    let is_usual =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH].contains(method);
    if is_usual || method == Method::OPTIONS { method.as_str() } else { "other" }
}
