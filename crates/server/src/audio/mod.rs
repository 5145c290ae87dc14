//! Endpoints that hear and speak.
mod filter;
mod form;
mod speech;
mod transcriptions;

use axum::Json;
use axum::extract::State;
use ingle_api::localai::{VadRequest, VadResponse, VadSegment};
use ingle_runtime::VoiceCall;

pub(crate) use speech::{speech, text_to_speech};
pub(crate) use transcriptions::{transcriptions, translations};

use crate::aside::named;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::state::ServerState;

/// `POST /v1/vad`
pub(crate) async fn vad(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<VadRequest>,
) -> Result<Json<VadResponse>, ApiError> {
    let missing = || ApiError::invalid_value("audio", "`audio` is missing; send samples at 16 kHz from -1 to 1");
    let samples = request.audio.ok_or_else(missing)?;
    if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
        return Err(ApiError::invalid_value("audio", format!("sample {at} of `audio` is no number")));
    }
    let call = VoiceCall { model: named(request.model), samples };
    let work = async { Ok(state.runtime().voice_activity(call).await?) };
    let found = state.lifecycle().unless_cancelled(work).await?;
    let segment = |found: ingle_runtime::VoiceSegment| VadSegment { start: found.start_secs, end: found.end_secs };
    Ok(Json(VadResponse { segments: found.into_iter().map(segment).collect() }))
}
