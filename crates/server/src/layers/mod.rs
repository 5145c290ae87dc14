//! What stands in front of every endpoint, from the outside in: path, request id, panic, CORS, key.
mod auth;
mod headers;
mod keys;
mod path;

pub(crate) use auth::require_key;
pub(crate) use headers::{add_headers, hide_errors};
pub(crate) use keys::KeyRing;
pub(crate) use path::normalise;

use std::any::Any;

use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::error::ApiError;
use crate::options::Cors;

/// Turns a panic of a handler into an answer.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("unknown"), "a request handler panicked; this is a bug");
    ApiError::internal("the server has a fault; its log says more").into_response()
}

/// The CORS layer that the options ask for.
pub(crate) fn cors(options: &Cors) -> Option<CorsLayer> {
    let origins = match options {
        Cors::Off => return None,
        Cors::AnyOrigin => AllowOrigin::any(),
        Cors::Origins(origins) => AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok())),
    };
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(AllowMethods::any())
            // Browsers do not count `authorization` as part of `*`.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(ExposeHeaders::any()),
    )
}
