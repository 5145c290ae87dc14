//! LocalAI's endpoints that load, watch and unload models, and that tell what models can do.
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use ingle_api::localai::{
    Alias, BackendMemory, BackendStatus, CapabilitiesList, Message, ModelCapabilities, ModelRequest, ModelsLoaded,
};
use ingle_runtime::ModelState;
use ingle_runtime::catalog::{ModelConfig, ModelEntry, ModelState as EntryState, Usecase};

use crate::aside::named;
use crate::body::{JsonBody, model_in_query};
use crate::error::ApiError;
use crate::state::ServerState;

fn wanted(model: Option<String>) -> Result<String, ApiError> {
    named(model).ok_or_else(|| ApiError::invalid_value("model", "`model` is missing; name the model"))
}

/// `POST /backend/load`: brings a model into memory and answers when it is there.
pub(crate) async fn load(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<ModelRequest>,
) -> Result<Json<ModelsLoaded>, ApiError> {
    let model = wanted(request.model)?;
    let entry = state.runtime().catalog().get(&model).map_err(ingle_runtime::RuntimeError::from)?;
    let usecase = usecase_of(&target(&state, &entry).config);
    let lease = state
        .lifecycle()
        .unless_cancelled(async { Ok::<_, ApiError>(state.runtime().lease(Some(&model), usecase).await?) });
    let loaded = vec![lease.await?.model().to_owned()];
    Ok(Json(ModelsLoaded { message: format!("model {model} is in memory"), loaded }))
}

/// The entry that an alias stands for.
fn target(state: &ServerState, entry: &ModelEntry) -> ModelEntry {
    match &entry.state {
        EntryState::Alias(target) => state.runtime().catalog().get(target).unwrap_or_else(|_| entry.clone()),
        EntryState::Ready(_) | EntryState::NoFile | EntryState::MissingFile(_) | EntryState::Disabled => entry.clone(),
    }
}

/// Something the model does, so that it may be asked for.
fn usecase_of(config: &ModelConfig) -> Usecase {
    Usecase::ALL.iter().copied().find(|usecase| config.suits(*usecase)).unwrap_or(Usecase::Chat)
}

/// `POST /backend/shutdown`: takes a model out of memory; answers that run on it go on to their end.
pub(crate) async fn shutdown(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<ModelRequest>,
) -> Result<Json<Message>, ApiError> {
    let model = wanted(request.model)?;
    let name = match state.runtime().catalog().get(&model) {
        Ok(entry) => target(&state, &entry).name,
        Err(_) => model.clone(),
    };
    match state.runtime().unload(&name) {
        true => Ok(Json(Message { message: "model stopped".into() })),
        false => Err(ApiError::model_not_found(format!("model {model:?} is not in memory; GET /system lists what is"))),
    }
}

/// `GET /backend/monitor?model=NAME`
pub(crate) async fn monitor(State(state): State<ServerState>, uri: Uri) -> Result<Json<BackendStatus>, ApiError> {
    let model = wanted(model_in_query(&uri))?;
    let name = match state.runtime().catalog().get(&model) {
        Ok(entry) => target(&state, &entry).name,
        Err(_) => model.clone(),
    };
    let loaded = state.runtime().loaded().into_iter().find(|loaded| loaded.name == name);
    let loaded = loaded.ok_or_else(|| {
        ApiError::model_not_found(format!("model {model:?} is not in memory; POST /backend/load brings it there"))
    })?;
    let is_busy = loaded.stats.is_some_and(|stats| stats.occupancy.running > 0)
        || loaded.batched.iter().any(|task| task.stats.running > 0);
    let parts = [
        ("weights", loaded.memory.weight_bytes),
        ("cache", loaded.memory.cache_bytes),
        ("compute", loaded.memory.compute_bytes),
    ];
    Ok(Json(BackendStatus {
        state: match loaded.state {
            ModelState::Loading => 0,
            ModelState::Ready if is_busy => 1,
            ModelState::Ready => 2,
            ModelState::Dead { .. } => -1,
        },
        memory: BackendMemory {
            total: loaded.memory.total_bytes(),
            breakdown: parts.map(|(part, bytes)| (part.to_owned(), bytes)).into(),
        },
    }))
}

/// `POST /models/reload`: reads the configurations again. They are read when they change anyway.
pub(crate) async fn reload(State(state): State<ServerState>) -> Result<Json<Message>, ApiError> {
    let runtime = state.runtime().clone();
    let reloaded = tokio::task::spawn_blocking(move || runtime.catalog().reload()).await;
    let reloaded = reloaded.map_err(|_| ApiError::internal("the server has a fault; its log says more"))?;
    reloaded.map_err(ingle_runtime::RuntimeError::from)?;
    Ok(Json(Message { message: format!("{} models are there", state.runtime().models().len()) }))
}

/// `GET /v1/models/capabilities`
pub(crate) async fn capabilities(State(state): State<ServerState>) -> Json<CapabilitiesList> {
    let entries = state.runtime().models();
    let served = entries.iter().filter(|entry| entry.state != EntryState::Disabled);
    let data = served.map(|entry| capability(entry, &target(&state, entry))).collect();
    Json(CapabilitiesList { object: "list".into(), data })
}

fn capability(entry: &ModelEntry, target: &ModelEntry) -> ModelCapabilities {
    let config = &target.config;
    let media = |declared: &[String], guessed: &[(Usecase, &str)]| match declared.is_empty() {
        false => declared.to_vec(),
        true => {
            let mut media: Vec<String> = Vec::new();
            for (_, medium) in guessed.iter().filter(|(usecase, _)| config.suits(*usecase)) {
                if !media.iter().any(|known| known == medium) {
                    media.push((*medium).to_owned());
                }
            }
            media
        }
    };
    const TEXT: &str = "text";
    let inputs = [
        (Usecase::Chat, TEXT),
        (Usecase::Completion, TEXT),
        (Usecase::Embeddings, TEXT),
        (Usecase::Rerank, TEXT),
        (Usecase::Image, TEXT),
        (Usecase::Tts, TEXT),
        (Usecase::Vision, "image"),
        (Usecase::Transcript, "audio"),
        (Usecase::Vad, "audio"),
    ];
    let outputs = [
        (Usecase::Chat, TEXT),
        (Usecase::Completion, TEXT),
        (Usecase::Transcript, TEXT),
        (Usecase::Image, "image"),
        (Usecase::Tts, "audio"),
        (Usecase::Video, "video"),
    ];
    ModelCapabilities {
        id: entry.name.clone(),
        object: "model".into(),
        capabilities: config.usecases.iter().map(|usecase| usecase.word().to_owned()).collect(),
        input_modalities: media(&config.modalities.input, &inputs),
        output_modalities: media(&config.modalities.output, &outputs),
    }
}

/// `GET /api/aliases`
pub(crate) async fn aliases(State(state): State<ServerState>) -> Json<Vec<Alias>> {
    let alias = |entry: ModelEntry| match entry.state {
        EntryState::Alias(target) => Some(Alias { name: entry.name, target }),
        EntryState::Ready(_) | EntryState::NoFile | EntryState::MissingFile(_) | EntryState::Disabled => None,
    };
    Json(state.runtime().models().into_iter().filter_map(alias).collect())
}
