//! LocalAI's own endpoints: tokens, health, version, system, metrics.
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingle_api::localai::{
    DetokenizeRequest, DetokenizeResponse, LoadedModel, NotReady, System, TaskStatus, TokenizeRequest,
    TokenizeResponse, Version,
};
use ingle_runtime::{BatchedTask, ModelState, Readiness, Segment, Surround};
use serde_json::{Value, json};

use crate::aside::{aside, named};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::lifecycle::Stage;
use crate::metrics::ModelGauges;
use crate::state::ServerState;

/// `POST /v1/tokenize`
pub(crate) async fn tokenize(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<TokenizeRequest>,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let Some(content) = request.content else {
        return Err(ApiError::invalid_value("content", "`content` is missing; send the text to take apart"));
    };
    let segment = if request.parse_special == Some(false) { Segment::plain(content) } else { Segment::parse(content) };
    let surround = if request.add_special == Some(true) { Surround::AsModelWants } else { Surround::Nothing };
    let (runtime, model) = (state.runtime().clone(), named(request.model));
    let tokens = aside(async move { Ok(runtime.tokenize(model.as_deref(), segment, surround).await?) }).await;
    let tokens = tokens.map_err(|error| error.renamed("prompt", "content"))?;
    Ok(Json(TokenizeResponse { tokens }))
}

/// `POST /v1/detokenize`
pub(crate) async fn detokenize(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<DetokenizeRequest>,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let Some(tokens) = request.tokens else {
        return Err(ApiError::invalid_value("tokens", "`tokens` is missing; send a list of token ids"));
    };
    let content = state.runtime().detokenize(named(request.model).as_deref(), &tokens).await;
    let content = content.map_err(|error| ApiError::from(error).renamed("prompt", "tokens"))?;
    Ok(Json(DetokenizeResponse { content }))
}

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> StatusCode {
    StatusCode::OK
}

/// `GET /readyz`: requests can be answered.
pub(crate) async fn readyz(State(state): State<ServerState>) -> Response {
    let not_ready = |status: &str, reason: String| {
        let body = NotReady { status: status.to_owned(), reason };
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(body)).into_response()
    };
    if state.lifecycle().stage() != Stage::Running {
        return not_ready("stopping", "the server is stopping".into());
    }
    match state.runtime().readiness() {
        Readiness::Ready => StatusCode::OK.into_response(),
        Readiness::Starting { reason } => not_ready("starting", reason),
        Readiness::Degraded { reason } => not_ready("failed", reason),
    }
}

/// `GET /version`
pub(crate) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").into() })
}

/// `GET /system`
pub(crate) async fn system(State(state): State<ServerState>) -> Result<Json<System>, ApiError> {
    let runtime = state.runtime().clone();
    // Asking the driver may take a while.
    let hardware = tokio::task::spawn_blocking(move || hardware(&runtime.hardware()))
        .await
        .map_err(|_| ApiError::internal("the hardware could not be read; the server's log says more"))?;
    let loaded_models = state.runtime().loaded().into_iter().map(loaded_model).collect();
    Ok(Json(System { backends: state.options().backends.clone(), loaded_models, hardware: Some(hardware) }))
}

fn loaded_model(model: ingle_runtime::LoadedModel) -> LoadedModel {
    LoadedModel {
        id: model.name,
        backend: Some(model.backend).filter(|backend| !backend.is_empty()),
        state: Some(state_name(&model.state).into()),
        memory_bytes: Some(model.memory.total_bytes()).filter(|&bytes| bytes > 0),
        placement: Some(model.placement).filter(|placement| !placement.is_empty()),
        tasks: model.batched.into_iter().map(task_status).collect(),
    }
}

fn task_status(BatchedTask { task, unit, stats }: BatchedTask) -> TaskStatus {
    TaskStatus {
        task: task.to_owned(),
        waiting: stats.waiting,
        running: stats.running,
        done: stats.requests_done,
        cost: stats.cost_done,
        unit: unit.to_owned(),
    }
}

fn state_name(state: &ModelState) -> &'static str {
    match state {
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Dead { .. } => "failed",
    }
}

fn hardware(hardware: &ingle_runtime::Hardware) -> Value {
    let device = |device: &ingle_runtime::hardware::Device, used: bool| {
        json!({
            "used": used,
            "kind": device.kind.name(),
            "index": device.index,
            "name": device.name,
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes,
            "compute_capability": device.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
            "utilization_percent": device.load.utilization_percent,
            "power_watts": device.load.power_milliwatts.map(|power| power as f64 / 1000.0),
            "power_limit_watts": device.load.power_limit_milliwatts.map(|power| power as f64 / 1000.0),
            "numa_node": device.numa_node,
        })
    };
    let used = hardware.devices.iter().map(|found| device(found, true));
    let devices: Vec<Value> = used.chain(hardware.idle_gpus.iter().map(|found| device(found, false))).collect();
    json!({
        "devices": devices,
        "cores": hardware.n_cores,
        "numa_nodes": hardware.n_numa_nodes,
        "instruction_sets": hardware.instruction_sets,
        "driver_version": hardware.driver_version,
        "cuda_version": hardware.cuda_version.map(|(major, minor)| format!("{major}.{minor}")),
        "gpu_interfaces": hardware.gpu_interfaces,
        "notes": hardware.notes,
    })
}

/// `GET /metrics`
pub(crate) async fn metrics(State(state): State<ServerState>) -> Response {
    let runtime = state.runtime().clone();
    // Asking the driver may take a while.
    let hardware = tokio::task::spawn_blocking(move || runtime.hardware()).await.unwrap_or_default();
    let models: Vec<ModelGauges> = state.runtime().loaded().into_iter().map(gauges).collect();
    let text = state.metrics().render(&models, &hardware);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

fn gauges(model: ingle_runtime::LoadedModel) -> ModelGauges {
    let state = state_name(&model.state);
    let occupancy = model.stats.map(|stats| stats.occupancy).unwrap_or_default();
    ModelGauges {
        model: model.name,
        state,
        waiting: occupancy.waiting,
        running: occupancy.running,
        slots: occupancy.slots,
        cells: occupancy.cells,
        cells_used: occupancy.cells_running,
        cells_cached: occupancy.cells_cached,
        tasks: model.batched,
    }
}
