//! Reading `multipart/form-data`: fields in any order, the file on disk, so that an hour of sound takes no memory.
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::BodyExt;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::body::{announced_bytes, discard, slow_body};
use crate::error::ApiError;
use crate::state::ServerState;

/// Most bytes of a field that is no file.
const MAX_TEXT_BYTES: u64 = 64 << 10;
/// Most fields of a form.
const MAX_FIELDS: usize = 100;

/// A form with a recording.
pub(super) struct AudioForm {
    /// The recording.
    pub(super) file: File,
    /// The other fields, in order.
    fields: Vec<(String, String)>,
}

impl AudioForm {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is no form, has no file, or is larger than the server takes.
    pub(super) async fn read(request: Request, state: &ServerState) -> Result<Self, ApiError> {
        let options = state.options();
        let limit = options.audio_limit_bytes;
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|_| {
            let message = "the body must be a form with a file: send `Content-Type: multipart/form-data`";
            ApiError::bad_request("unsupported_content_type", message)
        })?;
        let is_too_large = announced_bytes(request.headers()).is_some_and(|bytes| bytes > limit as u64);
        let waits = request.headers().contains_key(header::EXPECT);
        // A form that is given up is read on to its end, and the form's reader would keep the body for itself.
        let body = Arc::new(Mutex::new(request.into_body()));
        let read = if is_too_large {
            Err(Fault { error: ApiError::body_too_large(limit), is_over: waits })
        } else {
            let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(limit as u64));
            let chunks = chunks(Arc::clone(&body), options.body_timeout);
            read_fields(Multipart::with_constraints(chunks, boundary, constraints), limit).await
        };
        match read {
            Ok(form) => Ok(form),
            Err(Fault { error, is_over }) => {
                if !is_over {
                    // Whoever sends it slower sees a broken connection.
                    let _ = timeout(options.body_timeout, discard(&mut *body.lock().await, limit)).await;
                }
                Err(error)
            }
        }
    }

    /// The first value of a field; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.trim());
        values.find(|value| !value.is_empty())
    }

    /// A field that is a number.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, ApiError> {
        let parse = |text: &str| {
            let wrong = || ApiError::invalid_value(name, format!("`{name}` is {text:?}; send a number"));
            text.parse::<f32>().ok().filter(|number| number.is_finite()).ok_or_else(wrong)
        };
        self.text(name).map(parse).transpose()
    }

    /// A field that is yes or no.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.choice(name)?.unwrap_or(false))
    }

    /// A field that is yes or no, or that is not there.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn choice(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("false" | "0" | "no") => Ok(Some(false)),
            Some("true" | "1" | "yes") => Ok(Some(true)),
            Some(other) => Err(ApiError::invalid_value(name, format!("`{name}` is {other:?}; send true or false"))),
        }
    }

    /// Fields `name[member]`, as clients spell the members of an object.
    pub(super) fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let member = move |(field, value): &'a (String, String)| {
            let member = field.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((member, value.trim()))
        };
        self.fields.iter().filter_map(member)
    }

    /// A form of these fields and an empty file.
    #[cfg(test)]
    pub(super) fn of(fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { file: tempfile::tempfile().expect("a temporary file"), fields }
    }

    /// All values of a list, whose fields may end with brackets.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let is_named = |field: &str| field.strip_suffix("[]").unwrap_or(field) == name;
        self.fields.iter().filter(|(field, _)| is_named(field)).map(|(_, value)| value.trim()).collect()
    }
}

/// Why a form is not read.
struct Fault {
    error: ApiError,
    /// Nothing more comes, or nothing more is waited for.
    is_over: bool,
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self { error, is_over: false }
    }
}

/// The bytes of a body; the client may take `patience` for each next piece.
fn chunks(body: Arc<Mutex<Body>>, patience: Duration) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(body, move |body| async move {
        loop {
            let frame = timeout(patience, async { body.lock().await.frame().await }).await;
            let chunk = match frame {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    // Trailers.
                    Err(_) => continue,
                },
                Ok(Some(Err(_))) => Err(io::Error::from(ErrorKind::ConnectionAborted)),
                Err(_) => Err(io::Error::from(ErrorKind::TimedOut)),
            };
            return Some((chunk, body));
        }
    })
}

fn fault(error: multer::Error, limit: usize) -> Fault {
    let error = match error {
        multer::Error::StreamSizeExceeded { .. } => return ApiError::body_too_large(limit).into(),
        multer::Error::StreamReadFailed(error) => {
            let is_slow = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::TimedOut);
            let early = || ApiError::bad_request("incomplete_body", "the body ended early");
            return Fault { error: if is_slow { slow_body() } else { early() }, is_over: true };
        }
        other => other,
    };
    ApiError::bad_request("invalid_form", format!("the form could not be read: {error}")).into()
}

async fn read_fields(mut form: Multipart<'_>, limit: usize) -> Result<AudioForm, Fault> {
    let mut file = None;
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| fault(error, limit))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            file = Some(spool(field, limit).await?);
            continue;
        }
        if fields.len() == MAX_FIELDS {
            let message = format!("the form has more than {MAX_FIELDS} fields");
            return Err(ApiError::bad_request("invalid_form", message).into());
        }
        fields.push((name.clone(), text(field, &name, limit).await?));
    }
    let missing = || ApiError::invalid_value("file", "`file` is missing; send the recording as a form field `file`");
    Ok(AudioForm { file: file.ok_or_else(missing)?, fields })
}

/// Writes a file to a place that is gone when it is closed.
async fn spool(mut field: Field<'_>, limit: usize) -> Result<File, Fault> {
    let broken = |error: io::Error| {
        tracing::error!(%error, "a recording could not be kept in the folder for temporary files");
        ApiError::internal("the recording could not be kept; the server's log says more")
    };
    let mut file = tempfile::tempfile().map_err(broken)?;
    while let Some(chunk) = field.chunk().await.map_err(|error| fault(error, limit))? {
        file.write_all(&chunk).map_err(broken)?;
    }
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    Ok(file)
}

async fn text(mut field: Field<'_>, name: &str, limit: usize) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| fault(error, limit))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_TEXT_BYTES {
            let message = format!("`{name}` is longer than {MAX_TEXT_BYTES} bytes");
            return Err(ApiError::invalid_value(name, message).into());
        }
    }
    let text = String::from_utf8(bytes);
    Ok(text.map_err(|_| ApiError::invalid_value(name, format!("`{name}` is not UTF-8")))?)
}
