//! Which models there are.
use axum::Json;
use axum::extract::{Path, State};
use ingle_api::openai::{Model, ModelList};
use ingle_runtime::catalog::{ModelEntry, ModelState};

use crate::error::ApiError;
use crate::state::ServerState;

/// `GET /v1/models`
pub(crate) async fn list(State(state): State<ServerState>) -> Json<ModelList> {
    Json(ModelList::new(served(&state).iter().map(model).collect()))
}

/// `GET /v1/models/{id}`; the id may hold slashes.
pub(crate) async fn get(State(state): State<ServerState>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let missing =
        || ApiError::model_not_found(format!("model {id:?} does not exist; GET /v1/models lists the models there are"));
    // As requests do, so that whatever name a request may use is found here too.
    let found = state.runtime().catalog().get(&id).ok().filter(|entry| entry.state != ModelState::Disabled);
    let entry = found.ok_or_else(missing)?;
    Ok(Json(Model { id, ..model(&entry) }))
}

/// The models that requests may name.
fn served(state: &ServerState) -> Vec<ModelEntry> {
    let mut models = state.runtime().models();
    models.retain(|entry| entry.state != ModelState::Disabled);
    models
}

fn model(entry: &ModelEntry) -> Model {
    Model {
        id: entry.name.clone(),
        object: "model".into(),
        created: entry.created().unwrap_or(0),
        owned_by: "ingle".into(),
    }
}
