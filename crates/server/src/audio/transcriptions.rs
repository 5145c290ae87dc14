//! `POST /v1/audio/transcriptions` and `/translations`.
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use ingle_api::openai::{Transcript, TranscriptEvent, TranscriptSegment, TranscriptWord};
use ingle_runtime::{HeardSegment, HearingTask, TranscribeCall, TranscriptForm, Transcription};

use super::filter::voice_filter;
use super::form::AudioForm;
use crate::body::model_in_query;
use crate::error::ApiError;
use crate::metrics::FinishedCall;
use crate::sse::{self, Frames, write_frame};
use crate::state::ServerState;

/// `seek` counts hundredths of a second.
const HUNDREDTHS: f64 = 100.0;

/// What the answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The text, in an object.
    Json,
    /// Everything, in an object.
    Verbose,
    /// Text.
    Text(TranscriptForm),
}

/// What the client asked for.
struct Asked {
    form: Form,
    has_words: bool,
    has_segments: bool,
    is_streamed: bool,
}

/// `POST /v1/audio/transcriptions`
pub(crate) async fn transcriptions(State(state): State<ServerState>, request: Request) -> Result<Response, ApiError> {
    answer(state, request, None).await
}

/// `POST /v1/audio/translations`
pub(crate) async fn translations(State(state): State<ServerState>, request: Request) -> Result<Response, ApiError> {
    answer(state, request, Some(HearingTask::Translate)).await
}

async fn answer(state: ServerState, request: Request, task: Option<HearingTask>) -> Result<Response, ApiError> {
    let in_query = model_in_query(request.uri());
    let form = AudioForm::read(request, &state).await?;
    let asked = asked(&form)?;
    let call = call(form, in_query, task, asked.has_words)?;
    let begun = Instant::now();
    let runtime = state.runtime().clone();
    let work = async move { Ok(runtime.transcribe(call).await?) };
    let transcription = state.lifecycle().unless_cancelled(work).await?;
    let answer = Answer {
        state: state.clone(),
        transcription,
        asked,
        transcript: Transcript::default(),
        text: String::new(),
        begun,
    };
    if answer.asked.is_streamed {
        return sse::respond(answer.frames(), state.lifecycle().cancelled(), state.pace()).await;
    }
    state.lifecycle().unless_cancelled(answer.whole()).await
}

fn asked(form: &AudioForm) -> Result<Asked, ApiError> {
    let format = match form.text("response_format") {
        // LocalAI tells everything when it is not asked.
        None | Some("verbose_json") => Form::Verbose,
        Some("json") => Form::Json,
        Some(name) => Form::Text(TranscriptForm::find(name).ok_or_else(|| {
            let message = format!("`response_format` is {name:?}; use json, verbose_json, text, srt, vtt or lrc");
            ApiError::invalid_value("response_format", message)
        })?),
    };
    let granularities = form.list("timestamp_granularities");
    if let Some(other) = granularities.iter().find(|name| !["word", "segment", ""].contains(*name)) {
        let message = format!("`timestamp_granularities` has {other:?}; use word or segment");
        return Err(ApiError::invalid_value("timestamp_granularities", message));
    }
    Ok(Asked {
        form: format,
        has_words: granularities.contains(&"word"),
        has_segments: granularities.contains(&"segment") || !granularities.contains(&"word"),
        is_streamed: form.flag("stream")?,
    })
}

fn call(
    form: AudioForm,
    in_query: Option<String>,
    task: Option<HearingTask>,
    word_times: bool,
) -> Result<TranscribeCall, ApiError> {
    let task = match form.flag("translate")? {
        true => Some(HearingTask::Translate),
        false => task,
    };
    let owned = |name: &str| form.text(name).map(str::to_owned);
    Ok(TranscribeCall {
        model: in_query.or_else(|| owned("model")),
        // A translation's language is English; what is spoken is heard.
        language: owned("language"),
        task,
        prompt: owned("prompt").unwrap_or_default(),
        temperature: form.number("temperature")?,
        n_beams: None,
        word_times,
        voice_filter: voice_filter(&form)?,
        audio: Box::new(form.file),
    })
}

/// An answer on its way.
struct Answer {
    state: ServerState,
    transcription: Transcription,
    asked: Asked,
    transcript: Transcript,
    /// The transcript so far in the form of text that was asked for.
    text: String,
    begun: Instant,
}

impl Answer {
    /// The next segment, which is also kept.
    async fn next(&mut self) -> Result<Option<TranscriptSegment>, ApiError> {
        let Some(heard) = self.transcription.next().await? else { return Ok(None) };
        let seek = (self.transcription.window_secs() * HUNDREDTHS).round() as u64;
        let words = heard.words.iter().map(|word| TranscriptWord {
            word: word.text.trim().to_owned(),
            start: rounded(word.start_secs),
            end: rounded(word.end_secs),
        });
        self.transcript.words.get_or_insert_default().extend(words);
        let segments = self.transcript.segments.get_or_insert_default();
        if let Form::Text(form) = self.asked.form {
            if segments.is_empty() {
                self.text.push_str(form.head());
            }
            self.text.push_str(&form.segment(segments.len(), &heard));
        }
        let segment = segment(segments.len(), seek, heard);
        segments.push(segment.clone());
        self.transcript.text.push_str(&segment.text);
        Ok(Some(segment))
    }

    /// Everything at once.
    async fn whole(mut self) -> Result<Response, ApiError> {
        while self.next().await?.is_some() {}
        if let Form::Text(form) = self.asked.form
            && self.text.is_empty()
        {
            // Silence: an empty file of its kind.
            self.text.push_str(form.head());
        }
        let form = self.asked.form;
        let transcript = self.finish();
        let Form::Text(form) = form else { return Ok(Json(transcript).into_response()) };
        Ok(([(header::CONTENT_TYPE, form.media_type())], self.text).into_response())
    }

    /// Takes what was written, as far as it was asked for.
    fn finish(&mut self) -> Transcript {
        self.state.metrics().record_call(&FinishedCall {
            model: self.transcription.model().to_owned(),
            task: "transcribe",
            inputs: 1,
            tokens: self.transcription.n_tokens(),
            waited: Duration::ZERO,
            took: self.begun.elapsed(),
        });
        let mut transcript = std::mem::take(&mut self.transcript);
        transcript.text = transcript.text.trim().to_owned();
        if self.asked.form == Form::Json {
            return Transcript { text: transcript.text, ..Transcript::default() };
        }
        let task = if self.transcription.task() == HearingTask::Translate { "translate" } else { "transcribe" };
        transcript.task = Some(task.to_owned());
        transcript.language = self.transcription.language().map(|(_, name)| name.to_owned());
        transcript.duration = Some(rounded(self.transcription.done_secs()));
        transcript.words = self.asked.has_words.then(|| transcript.words.unwrap_or_default());
        transcript.segments = self.asked.has_segments.then(|| transcript.segments.unwrap_or_default());
        transcript
    }

    /// One event a segment, and one with everything.
    fn frames(self) -> Frames {
        stream::unfold(Some(self), |answer| async {
            let mut answer = answer?;
            let event = match answer.next().await {
                Ok(Some(segment)) => TranscriptEvent::Delta { delta: segment.text },
                Ok(None) => {
                    let transcript = answer.finish();
                    return Some((Ok(frame(&TranscriptEvent::Done { transcript })), None));
                }
                Err(error) => return Some((Err(error), None)),
            };
            Some((Ok(frame(&event)), Some(answer)))
        })
        .boxed()
    }
}

fn frame(event: &TranscriptEvent) -> Bytes {
    let mut buffer = BytesMut::new();
    write_frame(&mut buffer, event);
    buffer.freeze()
}

fn segment(id: usize, seek: u64, heard: HeardSegment) -> TranscriptSegment {
    TranscriptSegment {
        id,
        seek,
        start: rounded(heard.start_secs),
        end: rounded(heard.end_secs),
        text: heard.text,
        tokens: heard.tokens,
        temperature: heard.temperature,
        avg_logprob: heard.avg_logprob,
        compression_ratio: heard.compression_ratio,
        no_speech_prob: heard.no_speech_prob,
    }
}

/// Milliseconds are all that is known of a time.
fn rounded(secs: f64) -> f64 {
    (secs * 1000.0).round() / 1000.0
}
