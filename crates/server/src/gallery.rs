//! LocalAI's endpoints that install and delete models in the background.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use ingle_api::localai::{GalleryInfo, ImportRequest, JobStarted, Message, OfferedModel, StoredFile};
use ingle_runtime::RuntimeError;
use ingle_runtime::catalog::{ApplyRequest, CatalogError, JobBoard, JobStatus, Offer, SourcePlace};
use std::collections::BTreeMap;

use crate::body::JsonAny;
use crate::error::ApiError;
use crate::state::ServerState;

fn board(state: &ServerState) -> Result<JobBoard, ApiError> {
    state.jobs().cloned().ok_or_else(|| ApiError::internal("this server installs no models"))
}

/// `POST /models/apply`
pub(crate) async fn apply(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonAny(request): JsonAny<ApplyRequest>,
) -> Result<Json<JobStarted>, ApiError> {
    let id = board(&state)?.apply(request).map_err(refused)?;
    Ok(Json(started(&state, &headers, id)))
}

/// `POST /models/import-uri`
pub(crate) async fn import_uri(
    State(state): State<ServerState>,
    headers: HeaderMap,
    JsonAny(request): JsonAny<ImportRequest>,
) -> Result<Json<JobStarted>, ApiError> {
    let Some(uri) = request.uri.filter(|uri| !uri.trim().is_empty()) else {
        return Err(ApiError::invalid_value("uri", "`uri` is missing; send the address of a model file"));
    };
    let preference = |key: &str| request.preferences.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let name = preference("name");
    let overrides = preference("description").map(|description| serde_json::json!({ "description": description }));
    let apply = ApplyRequest { url: Some(uri), name, overrides, ..ApplyRequest::default() };
    let id = board(&state)?.apply(apply).map_err(refused)?;
    Ok(Json(started(&state, &headers, id)))
}

/// `POST /models/delete/{name}`
pub(crate) async fn delete(
    State(state): State<ServerState>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<JobStarted>, ApiError> {
    let id = board(&state)?.delete(&name).map_err(refused)?;
    state.runtime().unload(&name);
    Ok(Json(started(&state, &headers, id)))
}

/// `GET /models/jobs`
pub(crate) async fn jobs(State(state): State<ServerState>) -> Result<Json<BTreeMap<String, JobStatus>>, ApiError> {
    Ok(Json(board(&state)?.jobs()))
}

/// `GET /models/jobs/{uuid}`
pub(crate) async fn job(State(state): State<ServerState>, Path(id): Path<String>) -> Result<Json<JobStatus>, ApiError> {
    board(&state)?.job(&id).map(Json).ok_or_else(|| unknown_job(&id))
}

/// `POST /models/jobs/{uuid}/cancel`, `DELETE /models/jobs/{uuid}`
pub(crate) async fn cancel(
    State(state): State<ServerState>,
    Path(id): Path<String>,
) -> Result<Json<Message>, ApiError> {
    match board(&state)?.cancel(&id) {
        true => Ok(Json(Message { message: "cancelled; what has arrived is kept for another try".into() })),
        false => Err(unknown_job(&id)),
    }
}

fn unknown_job(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no job {id:?}; GET /models/jobs lists them"))
}

/// `GET /models/galleries`
pub(crate) async fn galleries(State(state): State<ServerState>) -> Result<Json<Vec<GalleryInfo>>, ApiError> {
    let galleries = board(&state)?.galleries().into_iter();
    Ok(Json(galleries.map(|gallery| GalleryInfo { name: gallery.name, url: gallery.url }).collect()))
}

/// `GET /models/available`
pub(crate) async fn available(State(state): State<ServerState>) -> Result<Json<Vec<OfferedModel>>, ApiError> {
    let board = board(&state)?;
    // Remote galleries are read.
    let offers = tokio::task::spawn_blocking(move || board.available()).await;
    let offers = offers.map_err(|_| ApiError::internal("the server has a fault; its log says more"))?;
    Ok(Json(offers.into_iter().map(offered).collect()))
}

fn offered(offer: Offer) -> OfferedModel {
    let Offer { entry, gallery, is_installed } = offer;
    let files = entry.files.iter().map(|file| {
        let first = file.sources.first();
        StoredFile {
            filename: file.filename.clone(),
            sha256: first.and_then(|source| source.sha256.clone()).unwrap_or_default(),
            uri: match first.map(|source| &source.place) {
                Some(SourcePlace::Uri(uri)) => uri.to_string(),
                Some(SourcePlace::Pip(_)) | None => String::new(),
            },
        }
    });
    OfferedModel {
        size: entry.total_bytes(),
        backend: entry.config.get("backend").and_then(|backend| backend.as_str()).unwrap_or_default().to_owned(),
        files: files.collect(),
        name: entry.name,
        description: entry.description.unwrap_or_default(),
        license: entry.license.unwrap_or_default(),
        urls: entry.urls,
        tags: entry.tags,
        installed: is_installed,
        gallery: GalleryInfo { name: gallery.name, url: gallery.url },
    }
}

fn refused(error: CatalogError) -> ApiError {
    let message = error.to_string();
    match error {
        CatalogError::TooManyJobs { .. } => ApiError::unavailable("too_many_jobs", message, 30),
        CatalogError::BadRequest { .. }
        | CatalogError::UnsafeName { .. }
        | CatalogError::BadUri { .. }
        | CatalogError::UnsupportedScheme { .. }
        | CatalogError::SourceSkipped { .. } => ApiError::bad_request("invalid_value", message),
        other => ApiError::from(RuntimeError::from(other)),
    }
}

fn started(state: &ServerState, headers: &HeaderMap, uuid: String) -> JobStarted {
    let status = format!("{}/models/jobs/{uuid}", base_url(state, headers));
    JobStarted { uuid, status }
}

/// The server's address as the client sees it: what the operator says, what proxies say, or the request's host.
pub(crate) fn base_url(state: &ServerState, headers: &HeaderMap) -> String {
    if let Some(url) = &state.options().base_url {
        return url.trim_end_matches('/').to_owned();
    }
    let value = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        // A chain of proxies writes a list; the first one talked to the client.
        Some(text.split(',').next().unwrap_or_default().trim().to_owned()).filter(|text| !text.is_empty())
    };
    let forwarded = |key: &str| {
        let text = value("forwarded")?;
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(key));
        found.next().map(|(_, value)| value.trim_matches('"').to_owned())
    };
    let scheme = value("x-forwarded-proto").or_else(|| forwarded("proto"));
    let scheme = scheme.filter(|scheme| scheme == "https" || scheme == "http").unwrap_or_else(|| "http".into());
    let host = value("x-forwarded-host").or_else(|| forwarded("host")).or_else(|| value(header::HOST.as_str()));
    // What is no host must not end up in a link.
    let host = host.filter(|host| format!("http://{host}/").parse::<Uri>().is_ok_and(|uri| uri.authority().is_some()));
    let prefix =
        value("x-forwarded-prefix").filter(|prefix| prefix.starts_with('/') && !prefix.contains([' ', '"', '<']));
    let prefix = prefix.map(|prefix| prefix.trim_end_matches('/').to_owned()).unwrap_or_default();
    format!("{scheme}://{}{prefix}", host.unwrap_or_else(|| "localhost".into()))
}
