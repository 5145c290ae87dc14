//! A small async client: the requests and answers of this crate over plain http.
//!
//! It neither retries nor caches, so that what it measures is the server.
use std::collections::VecDeque;

use futures_util::stream::{self, Stream};
use futures_util::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::localai::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse, Version};
use crate::openai::{
    ChatChunk, ChatCompletion, ChatRequest, Completion, CompletionChunk, CompletionRequest, EmbeddingList,
    EmbeddingRequest, ErrorBody, ErrorEnvelope, ModelList, STREAM_END,
};
use crate::rerank::{RerankRequest, RerankResponse};

/// One line of a stream may have so many bytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached, or the connection broke.
    #[error("no answer from the server: {0}")]
    Transport(#[from] reqwest::Error),
    /// The server refused, or failed in the middle of a stream.
    #[error("the server answered {status}: {}", body.message)]
    Api {
        /// The HTTP status; 200 for a failure inside a stream.
        status: u16,
        /// Seconds after which to try again, when the server said so.
        retry_after_secs: Option<u64>,
        /// What the server said.
        body: ErrorBody,
    },
    /// The server answered something else than expected.
    #[error("the server's answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A stream's line had no end.
    #[error("a line of the stream is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// A stream ended without its last frame.
    #[error("the stream ended early")]
    Truncated,
}

/// A server's address and key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    api_key: Option<String>,
}

impl Client {
    /// A client of the server at `base_url`, such as `http://127.0.0.1:8080` (with or without `/v1`).
    pub fn new(base_url: &str, api_key: Option<String>) -> Self {
        let base_url = base_url.trim_end_matches('/');
        let base_url = base_url.strip_suffix("/v1").unwrap_or(base_url).to_owned();
        Self { http: reqwest::Client::new(), base_url, api_key }
    }

    /// The models the server has.
    pub async fn models(&self) -> Result<ModelList, ClientError> {
        json(self.request(Method::GET, "/v1/models").send().await?).await
    }

    /// The server's version.
    pub async fn version(&self) -> Result<Version, ClientError> {
        json(self.request(Method::GET, "/version").send().await?).await
    }

    /// Can the server answer now? `false` while a model loads.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        Ok(self.request(Method::GET, "/readyz").send().await?.status().is_success())
    }

    /// Takes a text apart into token ids.
    pub async fn tokenize(&self, request: &TokenizeRequest) -> Result<TokenizeResponse, ClientError> {
        json(self.post("/v1/tokenize", request).await?).await
    }

    /// Puts token ids together into a text.
    pub async fn detokenize(&self, request: &DetokenizeRequest) -> Result<DetokenizeResponse, ClientError> {
        json(self.post("/v1/detokenize", request).await?).await
    }

    /// A whole chat answer; sets `stream` to false.
    pub async fn chat(&self, mut request: ChatRequest) -> Result<ChatCompletion, ClientError> {
        request.stream = Some(false);
        json(self.post("/v1/chat/completions", &request).await?).await
    }

    /// A chat answer in pieces; sets `stream` to true. Dropping the stream cancels the request.
    pub async fn chat_stream(
        &self,
        mut request: ChatRequest,
    ) -> Result<impl Stream<Item = Result<ChatChunk, ClientError>> + Send + use<>, ClientError> {
        request.stream = Some(true);
        Ok(frames(self.post("/v1/chat/completions", &request).await?))
    }

    /// A whole completion; sets `stream` to false.
    pub async fn completion(&self, mut request: CompletionRequest) -> Result<Completion, ClientError> {
        request.stream = Some(false);
        json(self.post("/v1/completions", &request).await?).await
    }

    /// A completion in pieces; sets `stream` to true. Dropping the stream cancels the request.
    pub async fn completion_stream(
        &self,
        mut request: CompletionRequest,
    ) -> Result<impl Stream<Item = Result<CompletionChunk, ClientError>> + Send + use<>, ClientError> {
        request.stream = Some(true);
        Ok(frames(self.post("/v1/completions", &request).await?))
    }

    /// Vectors of texts.
    pub async fn embeddings(&self, request: &EmbeddingRequest) -> Result<EmbeddingList, ClientError> {
        json(self.post("/v1/embeddings", request).await?).await
    }

    /// Documents in the order of their relevance.
    pub async fn rerank(&self, request: &RerankRequest) -> Result<RerankResponse, ClientError> {
        json(self.post("/v1/rerank", request).await?).await
    }

    /// The frames that any endpoint streams in answer to any body, such as those of another server; the body says itself
    /// that it wants a stream. Dropping the stream cancels the request.
    pub async fn stream<T: DeserializeOwned + Send, B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<impl Stream<Item = Result<T, ClientError>> + Send + use<T, B>, ClientError> {
        Ok(frames(self.post(path, body).await?))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base_url));
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn post<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<Response, ClientError> {
        accepted(self.request(Method::POST, path).json(body).send().await?).await
    }
}

/// Turns a refusal into an error.
async fn accepted(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let text = response.text().await?;
    let body = match serde_json::from_str::<ErrorEnvelope>(&text) {
        Ok(envelope) => envelope.error,
        Err(_) => ErrorBody { message: text, kind: "unknown".into(), param: None, code: None },
    };
    Err(ClientError::Api { status: status.as_u16(), retry_after_secs: retry_after, body })
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    Ok(serde_json::from_slice(&accepted(response).await?.bytes().await?)?)
}

/// The frames of an event stream up to its last one.
fn frames<T: DeserializeOwned + Send>(
    response: Response,
) -> impl Stream<Item = Result<T, ClientError>> + Send + use<T> {
    let bytes = response.bytes_stream().map_err(ClientError::from).boxed();
    stream::try_unfold(Some((bytes, Lines::default())), |state| async move {
        let Some((mut bytes, mut lines)) = state else { return Ok(None) };
        loop {
            while let Some(line) = lines.next_line() {
                match Frame::parse(&line)? {
                    Frame::Data(data) => return Ok(Some((data, Some((bytes, lines))))),
                    Frame::End => return Ok(None),
                    Frame::Other => {}
                }
            }
            match bytes.try_next().await? {
                Some(chunk) => lines.push(&chunk)?,
                None => return Err(ClientError::Truncated),
            }
        }
    })
}

enum Frame<T> {
    Data(T),
    End,
    Other,
}

impl<T: DeserializeOwned> Frame<T> {
    fn parse(line: &[u8]) -> Result<Self, ClientError> {
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(Self::Other) };
        let data = data.trim_ascii();
        if data == STREAM_END.as_bytes() {
            return Ok(Self::End);
        }
        if data.starts_with(br#"{"error":"#) {
            let envelope: ErrorEnvelope = serde_json::from_slice(data)?;
            return Err(ClientError::Api { status: 200, retry_after_secs: None, body: envelope.error });
        }
        Ok(Self::Data(serde_json::from_slice(data)?))
    }
}

/// Cuts a byte stream into lines.
#[derive(Default)]
struct Lines {
    complete: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            self.complete.push_back(std::mem::take(&mut self.partial));
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES { Err(ClientError::LineTooLong) } else { Ok(()) }
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        self.complete.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Lines};

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        let text = b"data: {\"a\":1}\n\n: keep-alive\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            for chunk in text.chunks(size) {
                lines.push(chunk).expect("short lines");
            }
            let mut data = Vec::new();
            while let Some(line) = lines.next_line() {
                match Frame::<serde_json::Value>::parse(&line).expect("well-formed") {
                    Frame::Data(value) => data.push(value.to_string()),
                    Frame::End => data.push("end".into()),
                    Frame::Other => {}
                }
            }
            assert_eq!(data, [r#"{"a":1}"#, "end"], "chunks of {size} bytes");
        }
    }
}
