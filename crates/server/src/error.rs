//! Failures as HTTP answers.
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingle_api::openai::{ErrorBody, ErrorEnvelope};

/// A failure with everything an answer needs: status, headers and the body of the dialect.
///
/// OpenAI's SDKs repeat requests that end with 408, 409, 429 or a 5xx, so a fault that will not go away by itself must
/// carry another 4xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The class, such as `invalid_request_error`.
    pub kind: &'static str,
    /// The exact reason.
    pub code: Option<&'static str>,
    /// The request parameter at fault.
    pub param: Option<String>,
    /// What is wrong and what to change.
    pub message: String,
    /// When to try again, in seconds.
    pub retry_after_secs: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after_secs: None }
    }

    /// 400: the request is wrong as a whole.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some(code), message)
    }

    /// 400: one parameter has a value that cannot be honoured.
    pub fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::bad_request("invalid_value", message) }
    }

    /// 400: one parameter asks for something this server cannot do.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::bad_request("unsupported_value", message) }
    }

    /// 401: the key is missing or wrong.
    pub fn unauthorized() -> Self {
        let message = "an API key is needed: send it as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message)
    }

    /// 403: a web page of another site asks in its visitor's name.
    pub fn cross_site() -> Self {
        let message = "a web page of another site may not do this without a key; send `Authorization: Bearer KEY`, or \
                       start the server with --disable-csrf";
        Self::new(StatusCode::FORBIDDEN, INVALID, Some("cross_site_request"), message)
    }

    /// 429: too many requests of one caller.
    pub fn too_many_requests(retry_after_secs: u64) -> Self {
        let message = format!("too many requests; try again in {retry_after_secs} s");
        let code = Some("rate_limit_exceeded");
        Self {
            retry_after_secs: Some(retry_after_secs),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message)
        }
    }

    /// 403: the model exists and is not served.
    pub fn model_disabled(message: impl Into<String>) -> Self {
        Self {
            param: Some("model".into()),
            ..Self::new(StatusCode::FORBIDDEN, INVALID, Some("model_disabled"), message)
        }
    }

    /// 404: no such model.
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self {
            param: Some("model".into()),
            ..Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message)
        }
    }

    /// 404: no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("not_found"), message)
    }

    /// 501: an endpoint whose engine is not there yet.
    pub fn not_implemented(path: &str, what: &str) -> Self {
        let message = format!("{path} belongs to {what}, which is not there yet");
        Self::new(StatusCode::NOT_IMPLEMENTED, INVALID, Some("not_implemented"), message)
    }

    /// 404: no such path.
    pub fn path_not_found(path: &str) -> Self {
        let message = format!("nothing is at {path}; /swagger lists what is");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("not_found"), message)
    }

    /// 405: the path exists, the method does not.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{path} does not answer {method}; the header Allow lists what it answers");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), message)
    }

    /// 413: the body is larger than the server takes.
    pub fn body_too_large(limit_bytes: usize) -> Self {
        let message = format!("the body is larger than {limit_bytes} bytes, the most this server takes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("body_too_large"), message)
    }

    /// 500: something failed that the caller has no part in.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("internal_error"), message)
    }

    /// 503: not now; try again.
    pub fn unavailable(code: &'static str, message: impl Into<String>, retry_after_secs: u64) -> Self {
        Self {
            retry_after_secs: Some(retry_after_secs),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some(code), message)
        }
    }

    /// The same failure in the words of an endpoint where the parameter `from` is called `to`.
    #[must_use]
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.param.as_deref() == Some(from) {
            self.param = Some(to.to_owned());
        }
        self
    }

    /// The body.
    pub fn envelope(&self) -> ErrorEnvelope {
        ErrorEnvelope {
            error: ErrorBody {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope())).into_response();
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
