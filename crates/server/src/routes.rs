//! The table of endpoints: what is routed is what is documented.
use axum::Router;
use axum::routing::{MethodRouter, get, post};
use ingle_api::localai::{
    DetokenizeRequest, DetokenizeResponse, NotReady, System, TokenizeRequest, TokenizeResponse, Version,
};
use ingle_api::openai::{ChatCompletion, ChatRequest, Completion, CompletionRequest, Model, ModelList};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::state::ServerState;
use crate::{docs, localai, openai};

/// Makes the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the body of an answer is.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// JSON of this type.
    Json(SchemaOf),
    /// JSON of this type, or a stream of events when the request says so.
    JsonOrEvents(SchemaOf),
    /// Text of this media type.
    Text(&'static str),
    /// Nothing; a server that is not ready answers 503 with this type.
    EmptyOr503(SchemaOf),
    /// Nothing.
    Empty,
}

/// The verb of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `GET` (and `HEAD`).
    Get,
    /// `POST`.
    Post,
}

/// One endpoint.
pub(crate) struct Route {
    /// The path in the documentation.
    pub(crate) path: &'static str,
    /// Other paths of the same endpoint.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) verb: Verb,
    pub(crate) summary: &'static str,
    pub(crate) request: Option<SchemaOf>,
    /// A request that works, as JSON text.
    pub(crate) example: Option<&'static str>,
    pub(crate) answer: Answer,
    handler: MethodRouter<ServerState>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// All endpoints.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = text_routes();
    routes.extend(model_routes());
    routes.extend(system_routes());
    routes
}

fn text_routes() -> Vec<Route> {
    vec![
        Route {
            path: "/v1/chat/completions",
            aliases: &["/chat/completions"],
            verb: Verb::Post,
            summary: "Answers a conversation",
            request: Some(schema::<ChatRequest>),
            example: Some(r#"{"messages": [{"role": "user", "content": "Hello!"}], "stream": true}"#),
            answer: Answer::JsonOrEvents(schema::<ChatCompletion>),
            handler: post(openai::chat),
        },
        Route {
            path: "/v1/completions",
            aliases: &["/completions"],
            verb: Verb::Post,
            summary: "Continues a text",
            request: Some(schema::<CompletionRequest>),
            example: Some(r#"{"prompt": "Once upon a time", "max_tokens": 32}"#),
            answer: Answer::JsonOrEvents(schema::<Completion>),
            handler: post(openai::completions),
        },
        Route {
            path: "/v1/engines/{model}/completions",
            aliases: &["/engines/{model}/completions"],
            verb: Verb::Post,
            summary: "Continues a text with the model that the path names",
            request: Some(schema::<CompletionRequest>),
            example: Some(r#"{"prompt": "Once upon a time", "max_tokens": 32}"#),
            answer: Answer::JsonOrEvents(schema::<Completion>),
            handler: post(openai::engine_completions),
        },
        Route {
            path: "/v1/tokenize",
            aliases: &["/tokenize"],
            verb: Verb::Post,
            summary: "Takes a text apart into token ids",
            request: Some(schema::<TokenizeRequest>),
            example: Some(r#"{"content": "Hello!"}"#),
            answer: Answer::Json(schema::<TokenizeResponse>),
            handler: post(localai::tokenize),
        },
        Route {
            path: "/v1/detokenize",
            aliases: &["/detokenize"],
            verb: Verb::Post,
            summary: "Puts token ids together into a text",
            request: Some(schema::<DetokenizeRequest>),
            example: Some(r#"{"tokens": [1, 2, 3]}"#),
            answer: Answer::Json(schema::<DetokenizeResponse>),
            handler: post(localai::detokenize),
        },
    ]
}

fn model_routes() -> Vec<Route> {
    vec![
        read(
            "/v1/models",
            &["/models"],
            "Lists the models",
            Answer::Json(schema::<ModelList>),
            get(openai::models::list),
        ),
        read(
            "/v1/models/{*id}",
            &["/models/{*id}"],
            "Describes one model; the id may hold slashes",
            Answer::Json(schema::<Model>),
            get(openai::models::get),
        ),
    ]
}

fn system_routes() -> Vec<Route> {
    const METRICS: &str = "application/openmetrics-text";
    vec![
        read("/healthz", &[], "Is the process alive?", Answer::Empty, get(localai::healthz)),
        read("/readyz", &[], "Can requests be answered?", Answer::EmptyOr503(schema::<NotReady>), get(localai::readyz)),
        read("/version", &["/v1/version"], "The version", Answer::Json(schema::<Version>), get(localai::version)),
        read(
            "/system",
            &[],
            "Backends, models in memory, hardware",
            Answer::Json(schema::<System>),
            get(localai::system),
        ),
        read("/metrics", &[], "Counters for Prometheus", Answer::Text(METRICS), get(localai::metrics)),
        read("/swagger/doc.json", &[], "This description", Answer::Text("application/json"), get(docs::document_json)),
        read(
            "/swagger",
            &["/swagger/index.html"],
            "This description as a page",
            Answer::Text("text/html"),
            get(docs::page),
        ),
    ]
}

fn read(
    path: &'static str,
    aliases: &'static [&'static str],
    summary: &'static str,
    answer: Answer,
    handler: MethodRouter<ServerState>,
) -> Route {
    Route { path, aliases, verb: Verb::Get, summary, request: None, example: None, answer, handler }
}

/// A router of all endpoints, without anything in front.
pub(crate) fn endpoints(with_metrics: bool) -> Router<ServerState> {
    let mut router = Router::new();
    for route in routes() {
        if route.path == "/metrics" && !with_metrics {
            continue;
        }
        for alias in route.aliases {
            router = router.route(alias, route.handler.clone());
        }
        router = router.route(route.path, route.handler);
    }
    router
}
