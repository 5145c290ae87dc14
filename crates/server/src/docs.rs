//! The OpenAPI document and a page that shows it, both without anything from elsewhere.
use axum::Json;
use axum::response::Html;
use ingle_api::openai::ErrorEnvelope;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::routes::{Answer, Route, Verb, routes};

/// `GET /swagger`
pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("../ui/swagger.html"))
}

/// `GET /swagger/doc.json`
pub(crate) async fn document_json() -> Json<Value> {
    Json(document())
}

/// The OpenAPI document of all endpoints.
pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes() {
        let (path, parameters) = documented_path(route.path);
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[verb] = operation(&route, parameters, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ingle",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs AI models in one process; speaks OpenAI's and LocalAI's API. \
                            Paths below /v1 exist without it too.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    })
}

/// The path without the router's star, and its parameters.
fn documented_path(path: &str) -> (String, Vec<Value>) {
    let path = path.replace("{*", "{");
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameters =
        names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect();
    (path.clone(), parameters)
}

fn operation(route: &Route, parameters: Vec<Value>, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({"summary": route.summary, "responses": responses(route, generator)});
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(request) = route.request {
        let schema = request(generator);
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if let Some(example) = route.example {
        operation["x-example"] = serde_json::from_str(example).unwrap_or_default();
    }
    operation
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let error = generator.subschema_for::<ErrorEnvelope>();
    let failure = json!({"description": "What went wrong", "content": {"application/json": {"schema": error}}});
    let mut responses = json!({"200": {"description": "The answer"}, "default": failure});
    match route.answer {
        Answer::Json(schema) => {
            responses["200"]["content"] = json!({"application/json": {"schema": schema(generator)}});
        }
        Answer::JsonOrEvents(schema) => {
            responses["200"]["content"] = json!({
                "application/json": {"schema": schema(generator)},
                "text/event-stream": {"schema": {"type": "string"}},
            });
        }
        Answer::Text(media_type) => {
            responses["200"]["content"] = json!({media_type: {"schema": {"type": "string"}}});
        }
        Answer::EmptyOr503(schema) => {
            let content = json!({"application/json": {"schema": schema(generator)}});
            responses["503"] = json!({"description": "Not now", "content": content});
        }
        Answer::Empty => {}
    }
    responses
}
