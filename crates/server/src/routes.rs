//! The table of endpoints: what is routed is what is documented.
use axum::Router;
use axum::routing::{MethodRouter, get, post};
use ingle_api::localai::{
    Alias, BackendStatus, CapabilitiesList, DetokenizeRequest, DetokenizeResponse, GalleryInfo, JobStarted, Message,
    ModelRequest, ModelsLoaded, NotReady, OfferedModel, System, TokenizeRequest, TokenizeResponse, VadRequest,
    VadResponse, Version,
};
use ingle_api::openai::{
    ChatCompletion, ChatRequest, Completion, CompletionRequest, EditRequest, EmbeddingList, EmbeddingRequest, Model,
    ModelList, SpeechRequest, TextToSpeechRequest, Transcript,
};
use ingle_api::rerank::{RerankRequest, RerankResponse};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::error::ApiError;
use crate::state::ServerState;
use crate::{audio, backend, docs, gallery, localai, openai, rerank};

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
    routes.extend(encoder_routes());
    routes.extend(audio_routes());
    routes.extend(model_routes());
    routes.extend(gallery_routes());
    routes.extend(planned_routes());
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
            path: "/v1/edits",
            aliases: &["/edits"],
            verb: Verb::Post,
            summary: "Changes a text as an instruction says",
            request: Some(schema::<EditRequest>),
            example: Some(r#"{"input": "Teh cat", "instruction": "Fix the spelling."}"#),
            answer: Answer::Json(schema::<Completion>),
            handler: post(openai::edits),
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

/// Texts to vectors and scores.
fn encoder_routes() -> Vec<Route> {
    const EMBED: &str = r#"{"input": ["A text", "Another text"]}"#;
    let embeddings = |path, aliases, summary, handler| Route {
        path,
        aliases,
        verb: Verb::Post,
        summary,
        request: Some(schema::<EmbeddingRequest>),
        example: Some(EMBED),
        answer: Answer::Json(schema::<EmbeddingList>),
        handler,
    };
    vec![
        embeddings("/v1/embeddings", &["/embeddings"], "Turns texts into vectors", post(openai::embeddings)),
        embeddings(
            "/v1/engines/{model}/embeddings",
            &["/engines/{model}/embeddings"],
            "Turns texts into vectors with the model that the path names",
            post(openai::engine_embeddings),
        ),
        Route {
            path: "/v1/rerank",
            aliases: &["/rerank", "/v2/rerank"],
            verb: Verb::Post,
            summary: "Orders documents by their relevance to a query",
            request: Some(schema::<RerankRequest>),
            example: Some(r#"{"query": "What is a panda?", "documents": ["A bear of China.", "A kind of car."]}"#),
            answer: Answer::Json(schema::<RerankResponse>),
            handler: post(rerank::rerank),
        },
    ]
}

fn model_routes() -> Vec<Route> {
    const MODEL: &str = r#"{"model": "NAME"}"#;
    vec![
        read(
            "/v1/models/capabilities",
            &["/models/capabilities"],
            "Lists the models and what they can do",
            Answer::Json(schema::<CapabilitiesList>),
            get(backend::capabilities),
        ),
        read(
            "/api/aliases",
            &[],
            "Lists the other names of models",
            Answer::Json(schema::<Vec<Alias>>),
            get(backend::aliases),
        ),
        read(
            "/backend/monitor",
            &["/v1/backend/monitor"],
            "State and memory of the model that the query `model` names",
            Answer::Json(schema::<BackendStatus>),
            get(backend::monitor),
        ),
        Route {
            path: "/backend/load",
            aliases: &["/v1/backend/load"],
            verb: Verb::Post,
            summary: "Brings a model into memory",
            request: Some(schema::<ModelRequest>),
            example: Some(MODEL),
            answer: Answer::Json(schema::<ModelsLoaded>),
            handler: post(backend::load),
        },
        Route {
            path: "/backend/shutdown",
            aliases: &["/v1/backend/shutdown"],
            verb: Verb::Post,
            summary: "Takes a model out of memory; its running answers go on to their end",
            request: Some(schema::<ModelRequest>),
            example: Some(MODEL),
            answer: Answer::Json(schema::<Message>),
            handler: post(backend::shutdown),
        },
        Route {
            path: "/models/reload",
            aliases: &[],
            verb: Verb::Post,
            summary: "Reads the model configurations again",
            request: None,
            example: None,
            answer: Answer::Json(schema::<Message>),
            handler: post(backend::reload),
        },
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

fn audio_routes() -> Vec<Route> {
    let heard = |path, aliases, summary, handler| Route {
        path,
        aliases,
        verb: Verb::Post,
        summary,
        request: None,
        example: None,
        answer: Answer::JsonOrEvents(schema::<Transcript>),
        handler,
    };
    let spoken = Answer::Text("audio/wav");
    vec![
        heard(
            "/v1/audio/transcriptions",
            &["/audio/transcriptions"],
            "Writes down the recording in the form field `file`",
            post(audio::transcriptions),
        ),
        heard(
            "/v1/audio/translations",
            &["/audio/translations"],
            "Writes down the recording in the form field `file`, in English",
            post(audio::translations),
        ),
        Route {
            request: Some(schema::<SpeechRequest>),
            example: Some(r#"{"input": "Hello!"}"#),
            answer: spoken,
            ..heard("/v1/audio/speech", &["/audio/speech", "/tts"], "Speaks a text", post(audio::speech))
        },
        Route {
            request: Some(schema::<TextToSpeechRequest>),
            example: Some(r#"{"text": "Hello!"}"#),
            answer: spoken,
            ..heard(
                "/v1/text-to-speech/{voice}",
                &[],
                "Speaks a text, as ElevenLabs has it",
                post(audio::text_to_speech),
            )
        },
        Route {
            request: Some(schema::<VadRequest>),
            example: Some(r#"{"audio": [0.0, 0.1, 0.0]}"#),
            answer: Answer::Json(schema::<VadResponse>),
            ..heard("/v1/vad", &["/vad"], "Finds speech in samples at 16 kHz", post(audio::vad))
        },
    ]
}

/// Routes that are there only where the server installs models.
fn gallery_routes() -> Vec<Route> {
    let write = |path, summary, example, handler| Route {
        path,
        aliases: &[],
        verb: Verb::Post,
        summary,
        request: None,
        example,
        answer: Answer::Json(schema::<JobStarted>),
        handler,
    };
    let of_jobs = Answer::Text("application/json");
    vec![
        read(
            "/models/available",
            &[],
            "Models that can be installed",
            Answer::Json(schema::<Vec<OfferedModel>>),
            get(gallery::available),
        ),
        read(
            "/models/galleries",
            &[],
            "Where they come from",
            Answer::Json(schema::<Vec<GalleryInfo>>),
            get(gallery::galleries),
        ),
        read("/models/jobs", &[], "Installations and their states", of_jobs, get(gallery::jobs)),
        Route {
            handler: get(gallery::job).delete(gallery::cancel),
            ..read("/models/jobs/{uuid}", &[], "One installation; DELETE ends it", of_jobs, get(gallery::job))
        },
        write(
            "/models/apply",
            "Begins to install a model: by `id` of a gallery, `url`, or `config_file` and `files`",
            Some(r#"{"id": "smollm2-135m-instruct"}"#),
            post(gallery::apply),
        ),
        write(
            "/models/import-uri",
            "Begins to install a model file",
            Some(r#"{"uri": "huggingface://owner/repository/model.gguf"}"#),
            post(gallery::import_uri),
        ),
        write("/models/delete/{*name}", "Begins to delete a model", None, post(gallery::delete)),
        Route {
            answer: Answer::Json(schema::<Message>),
            ..write("/models/jobs/{uuid}/cancel", "Ends an installation", None, post(gallery::cancel))
        },
    ]
}

/// LocalAI's endpoints whose engines are not there yet: they answer 501.
fn planned_routes() -> Vec<Route> {
    let planned = |path, aliases, what: &'static str| Route {
        path,
        aliases,
        verb: Verb::Post,
        summary: "Planned; answers 501",
        request: None,
        example: None,
        answer: Answer::Empty,
        handler: post(move |uri: axum::http::Uri| async move { ApiError::not_implemented(uri.path(), what) }),
    };
    const IMAGES: &str = "image generation";
    vec![
        planned("/v1/images/generations", &["/images/generations"], IMAGES),
        planned("/v1/images/inpainting", &["/images/inpainting"], IMAGES),
        planned("/v1/images/upscale", &["/images/upscale"], IMAGES),
        planned("/v1/images/edits", &["/images/edits"], IMAGES),
        planned("/v1/images/variations", &["/images/variations"], IMAGES),
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

/// An endpoint as the router knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its path, parameters in braces.
    pub path: String,
    /// Does it answer 501?
    pub is_planned: bool,
}

/// Every endpoint, other paths of the same one apart.
pub fn all_endpoints() -> Vec<Endpoint> {
    let planned: Vec<&str> = planned_routes().iter().map(|route| route.path).collect();
    let of = |route: &Route| {
        let method = if route.verb == Verb::Get { "GET" } else { "POST" };
        let is_planned = planned.contains(&route.path);
        let paths = std::iter::once(&route.path).chain(route.aliases);
        paths.map(|path| Endpoint { method, path: (*path).to_owned(), is_planned }).collect::<Vec<_>>()
    };
    routes().iter().flat_map(of).collect()
}

/// Which endpoints there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    /// `/metrics`.
    pub(crate) metrics: bool,
    /// Those that install and delete models.
    pub(crate) jobs: bool,
}

/// A router of all endpoints, without anything in front.
pub(crate) fn endpoints(offered: Offered) -> Router<ServerState> {
    let mut router = Router::new();
    let of_jobs: Vec<&str> = gallery_routes().iter().map(|route| route.path).collect();
    for route in routes() {
        if (route.path == "/metrics" && !offered.metrics) || (of_jobs.contains(&route.path) && !offered.jobs) {
            continue;
        }
        for alias in route.aliases {
            router = router.route(alias, route.handler.clone());
        }
        router = router.route(route.path, route.handler);
    }
    router
}
