//! Reading `multipart/form-data`: fields in any order, the file on disk, so that an hour of sound takes no memory.
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use axum::extract::Request;
use axum::http::header;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::time::timeout;

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
        let limit = options.body_limit_bytes;
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|_| {
            let message = "the body must be a form with a file: send `Content-Type: multipart/form-data`";
            ApiError::bad_request("unsupported_content_type", message)
        })?;
        let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(limit as u64));
        let body = request.into_body().into_data_stream();
        let form = Multipart::with_constraints(body, boundary, constraints);
        let read = timeout(options.body_timeout, read_fields(form, limit));
        read.await
            .map_err(|_| ApiError::bad_request("body_timeout", "the body did not arrive in time; send it faster"))?
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
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0" | "no") => Ok(false),
            Some("true" | "1" | "yes") => Ok(true),
            Some(other) => Err(ApiError::invalid_value(name, format!("`{name}` is {other:?}; send true or false"))),
        }
    }

    /// All values of a list, whose fields may end with brackets.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let is_named = |field: &str| field.strip_suffix("[]").unwrap_or(field) == name;
        self.fields.iter().filter(|(field, _)| is_named(field)).map(|(_, value)| value.trim()).collect()
    }
}

async fn read_fields(mut form: Multipart<'_>, limit: usize) -> Result<AudioForm, ApiError> {
    let mut file = None;
    let mut fields = Vec::new();
    let fault = |error: multer::Error| match error {
        multer::Error::StreamSizeExceeded { .. } => ApiError::body_too_large(limit),
        other => ApiError::bad_request("invalid_form", format!("the form could not be read: {other}")),
    };
    while let Some(field) = form.next_field().await.map_err(fault)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            file = Some(spool(field, limit).await?);
            continue;
        }
        if fields.len() == MAX_FIELDS {
            let message = format!("the form has more than {MAX_FIELDS} fields");
            return Err(ApiError::bad_request("invalid_form", message));
        }
        fields.push((name.clone(), text(field, &name).await?));
    }
    let missing = || ApiError::invalid_value("file", "`file` is missing; send the recording as a form field `file`");
    Ok(AudioForm { file: file.ok_or_else(missing)?, fields })
}

/// Writes a file to a place that is gone when it is closed.
async fn spool(mut field: Field<'_>, limit: usize) -> Result<File, ApiError> {
    let broken = |error: std::io::Error| {
        tracing::error!(%error, "a recording could not be kept in the folder for temporary files");
        ApiError::internal("the recording could not be kept; the server's log says more")
    };
    let mut file = tempfile::tempfile().map_err(broken)?;
    loop {
        match field.chunk().await {
            Ok(Some(chunk)) => file.write_all(&chunk).map_err(broken)?,
            Ok(None) => break,
            Err(multer::Error::StreamSizeExceeded { .. }) => return Err(ApiError::body_too_large(limit)),
            Err(error) => {
                let message = format!("the form could not be read: {error}");
                return Err(ApiError::bad_request("invalid_form", message));
            }
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    Ok(file)
}

async fn text(mut field: Field<'_>, name: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    let broken =
        |error: multer::Error| ApiError::bad_request("invalid_form", format!("the form could not be read: {error}"));
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_TEXT_BYTES {
            let message = format!("`{name}` is longer than {MAX_TEXT_BYTES} bytes");
            return Err(ApiError::invalid_value(name, message));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid_value(name, format!("`{name}` is not UTF-8")))
}
