//! `POST /v1/audio/speech` and its relatives.
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use ingle_api::openai::{SpeechEvent, SpeechRequest, SpeechUsage, TextToSpeechRequest, Voice};
use ingle_runtime::media::{EncodeError, SoundEncoder, SoundFormat, complete_wav};
use ingle_runtime::{SpeakCall, Speech};

use crate::aside::named;
use crate::body::{JsonAny, JsonBody};
use crate::error::ApiError;
use crate::metrics::FinishedCall;
use crate::sse::{self, write_frame};
use crate::state::ServerState;

/// A WAV file says how long it is at its beginning. Up to this size it is sent when it is whole, so that every reader
/// understands it; about ten minutes at 22 kHz.
const MAX_WHOLE_BYTES: usize = 32 << 20;
/// Rates that can be asked for.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;

/// `POST /v1/audio/speech`
pub(crate) async fn speech(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<SpeechRequest>,
) -> Result<Response, ApiError> {
    answer(&state, request).await
}

/// `POST /v1/text-to-speech/{voice}`
pub(crate) async fn text_to_speech(
    State(state): State<ServerState>,
    Path(voice): Path<String>,
    JsonAny(request): JsonAny<TextToSpeechRequest>,
) -> Result<Response, ApiError> {
    let model = named(request.model_id);
    // Without a model the path names one, as every voice here is a model.
    let is_model = |name: &String| state.runtime().catalog().get(name).is_ok();
    let model = model.or_else(|| Some(voice.clone()).filter(is_model));
    let voice = (model.as_ref() != Some(&voice)).then_some(Voice::Name(voice));
    let request = SpeechRequest { model, input: request.text, voice, ..SpeechRequest::default() };
    answer(&state, request).await.map_err(|error| error.renamed("input", "text"))
}

async fn answer(state: &ServerState, request: SpeechRequest) -> Result<Response, ApiError> {
    let format = format(request.response_format.as_deref())?;
    let is_events = match request.stream_format.as_deref().unwrap_or_default() {
        "" | "audio" => false,
        "sse" => true,
        other => {
            let message = format!("`stream_format` is {other:?}; use audio or sse");
            return Err(ApiError::invalid_value("stream_format", message));
        }
    };
    if let Some(rate) = request.sample_rate.filter(|rate| !RATES.contains(rate)) {
        let message = format!("`sample_rate` is {rate}; use a number from {} to {}", RATES.start(), RATES.end());
        return Err(ApiError::invalid_value("sample_rate", message));
    }
    let text = request.input.filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| ApiError::invalid_value("input", "`input` is missing; send the text to speak"))?;
    let n_bytes = text.len();
    let call =
        SpeakCall { model: named(request.model), text, voice: request.voice.map(Voice::name), speed: request.speed };
    let begun = Instant::now();
    let runtime = state.runtime().clone();
    let work = async move {
        let mut speech = runtime.speak(call).await?;
        // The first sentence is waited for: until then a failure has a status.
        let first = speech.next().await?;
        Ok((speech, first.unwrap_or_default()))
    };
    let (speech, first) = state.lifecycle().unless_cancelled(work).await?;
    let encoder = SoundEncoder::new(format, speech.sample_rate(), request.sample_rate).map_err(fault)?;
    let is_streamed = is_events || request.stream == Some(true);
    let state = state.clone();
    let sound = Sound { encoder: Some(encoder), speech, first: Some(first), n_samples: 0, n_bytes, begun, state };
    if is_events {
        let (cancelled, pace) = (sound.state.lifecycle().cancelled(), sound.state.pace());
        return sse::respond(events(sound), cancelled, pace).await;
    }
    if format != SoundFormat::Wav || is_streamed {
        return Ok(respond(Vec::new(), Some(sound), format));
    }
    let lifecycle = sound.state.clone();
    let (start, rest) = lifecycle.lifecycle().unless_cancelled(start_of_wav(sound)).await?;
    Ok(respond(start, rest, format))
}

/// The whole file, or the beginning of a long one and what is still on its way.
async fn start_of_wav(mut sound: Sound) -> Result<(Vec<u8>, Option<Sound>), ApiError> {
    let mut start = Vec::new();
    while let Some(bytes) = sound.next().await? {
        start.extend(bytes);
        if start.len() > MAX_WHOLE_BYTES {
            return Ok((start, Some(sound)));
        }
    }
    complete_wav(&mut start);
    Ok((start, None))
}

fn format(asked: Option<&str>) -> Result<SoundFormat, ApiError> {
    let name = asked.map(str::trim).filter(|name| !name.is_empty()).unwrap_or("wav");
    SoundFormat::find(name).ok_or_else(|| {
        let what =
            if name == "aac" { "aac cannot be written here".to_owned() } else { format!("{name:?} is no format") };
        ApiError::invalid_value(
            "response_format",
            format!("`response_format`: {what}; use wav, mp3, opus, flac or pcm"),
        )
    })
}

fn fault(error: EncodeError) -> ApiError {
    tracing::error!(%error, "an answer failed");
    ApiError::internal(error.to_string())
}

/// Sound on its way.
struct Sound {
    /// None: everything is sent.
    encoder: Option<SoundEncoder>,
    speech: Speech,
    first: Option<Vec<f32>>,
    n_samples: usize,
    n_bytes: usize,
    begun: Instant,
    state: ServerState,
}

impl Sound {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(encoder) = self.encoder.as_mut() else { return Ok(None) };
        let samples = match self.first.take() {
            Some(first) => Some(first),
            None => self.speech.next().await?,
        };
        if let Some(samples) = samples {
            self.n_samples += samples.len();
            return Ok(Some(encoder.push(&samples).map_err(fault)?));
        }
        let rest = self.encoder.take().map(|encoder| encoder.finish().map_err(fault)).transpose()?;
        self.record();
        Ok(rest)
    }

    fn record(&self) {
        self.state.metrics().record_call(&FinishedCall {
            model: self.speech.model().to_owned(),
            task: "speak",
            inputs: 1,
            tokens: self.n_bytes,
            waited: Duration::ZERO,
            took: self.begun.elapsed(),
        });
    }

    fn usage(&self) -> SpeechUsage {
        let output_tokens = 10 * self.n_samples / self.speech.sample_rate().max(1) as usize;
        SpeechUsage { input_tokens: self.n_bytes, output_tokens, total_tokens: self.n_bytes + output_tokens }
    }
}

/// `start`, and the rest as it comes.
fn respond(start: Vec<u8>, rest: Option<Sound>, format: SoundFormat) -> Response {
    let body = match rest {
        None => Body::from(start),
        Some(sound) => {
            let start = stream::iter((!start.is_empty()).then(|| Ok(Bytes::from(start))));
            Body::from_stream(start.chain(bytes_of(sound)))
        }
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let name = format!("attachment; filename=\"speech.{}\"", format.extension());
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}

/// A failure in the middle breaks the connection: a file that just ends would look whole.
fn bytes_of(sound: Sound) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold(Some(sound), |sound| async {
        let mut sound = sound?;
        match sound.next().await {
            Ok(Some(bytes)) => Some((Ok(Bytes::from(bytes)), Some(sound))),
            Ok(None) => None,
            Err(error) => Some((Err(std::io::Error::other(error.message)), None)),
        }
    })
    .filter(|piece: &Result<Bytes, _>| {
        let is_kept = piece.as_ref().map_or(true, |bytes| !bytes.is_empty());
        std::future::ready(is_kept)
    })
}

fn events(sound: Sound) -> sse::Frames {
    stream::unfold(Some(sound), |sound| async {
        let mut sound = sound?;
        match sound.next().await {
            Ok(Some(bytes)) => {
                let event = SpeechEvent::Delta { audio: STANDARD.encode(bytes) };
                Some((Ok(frame(&event)), Some(sound)))
            }
            Ok(None) => Some((Ok(frame(&SpeechEvent::Done { usage: sound.usage() })), None)),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

fn frame(event: &SpeechEvent) -> Bytes {
    let mut buffer = BytesMut::new();
    write_frame(&mut buffer, event);
    buffer.freeze()
}
