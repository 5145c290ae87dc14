//! A server under test, and one request to it.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use ingle_api::client::{Client, ClientError};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::scenario::Api;

/// A server and the model to ask it for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `A` or `B` in reports, and the address.
    pub(super) label: String,
    pub(super) url: String,
    pub(super) model: String,
    client: Client,
}

/// What came of one request.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) sent: Instant,
    /// When pieces of the answer arrived.
    pub(super) arrivals: Vec<Instant>,
    pub(super) ended: Instant,
    pub(super) usage: Option<Usage>,
    pub(super) failure: Option<Failure>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What failures are counted by. Messages are not a part of it: servers put numbers and names into them.
    pub(super) kind: String,
    /// What the server said.
    pub(super) message: Option<String>,
}

impl Failure {
    pub(super) fn of(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: None }
    }

    /// The answer had no text.
    pub(super) fn is_empty_answer(&self) -> bool {
        self.kind == EMPTY
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(formatter, "{}: {message}", self.kind),
            None => formatter.write_str(&self.kind),
        }
    }
}

const EMPTY: &str = "empty answer";

/// Characters of a message that are kept.
const MESSAGE: usize = 160;

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

impl Usage {
    pub(super) fn cached_tokens(&self) -> Option<u64> {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens)
    }
}

/// A frame of any server: what is measured, and nothing else.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default, alias = "reasoning_content")]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
}

impl Chunk {
    /// The text it brings; `None` when it brings no part of the answer.
    fn text(&self) -> Option<&str> {
        let choice = self.choices.first()?;
        let delta = choice.delta.as_ref();
        let text = choice.text.as_deref().or_else(|| delta?.content.as_deref());
        let is_part = |text: &&str| !text.is_empty();
        let calls = || delta.and_then(|delta| delta.tool_calls.as_ref()).filter(|calls| !calls.is_empty()).map(|_| "");
        let reasoning = || delta.and_then(|delta| delta.reasoning.as_deref()).filter(is_part).map(|_| "");
        text.filter(is_part).or_else(calls).or_else(reasoning)
    }
}

impl Target {
    /// The server at `url`; asks it for its models unless one is named.
    pub(super) async fn open(
        label: &str,
        url: &str,
        model: Option<String>,
        api_key: Option<String>,
    ) -> anyhow::Result<Self> {
        let client = Client::new(url, api_key);
        let model = match model {
            Some(model) => model,
            None => {
                let models = client.models().await.with_context(|| format!("{url} does not list its models"))?;
                models.data.into_iter().next().map(|model| model.id).with_context(|| format!("{url} has no model"))?
            }
        };
        Ok(Self { label: label.to_owned(), url: url.to_owned(), model, client })
    }

    /// Sends a request and reads the answer to its end, for `limit` at most; the text comes too.
    pub(super) async fn ask(&self, api: Api, body: &Map<String, Value>, limit: Duration) -> (Outcome, String) {
        let sent = Instant::now();
        let mut outcome = Outcome { sent, arrivals: Vec::new(), ended: sent, usage: None, failure: None };
        let mut text = String::new();
        let reading = self.read(api, body, &mut outcome, &mut text);
        let result = tokio::time::timeout(limit, reading).await;
        outcome.failure = match result {
            Ok(Ok(())) if outcome.arrivals.is_empty() => Some(Failure::of(EMPTY)),
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(failure(&error)),
            Err(_) => Some(Failure::of("took too long")),
        };
        outcome.ended = Instant::now();
        (outcome, text)
    }

    async fn read(
        &self,
        api: Api,
        body: &Map<String, Value>,
        outcome: &mut Outcome,
        text: &mut String,
    ) -> Result<(), ClientError> {
        // A server may close an idle connection in the moment it is used again: it has not seen such a request.
        let chunks = match self.client.stream::<Chunk, _>(api.path(), body).await {
            Err(ClientError::Transport(_)) => self.client.stream::<Chunk, _>(api.path(), body).await?,
            other => other?,
        };
        let mut chunks = pin!(chunks);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if let Some(piece) = chunk.text() {
                outcome.arrivals.push(Instant::now());
                text.push_str(piece);
            }
            outcome.usage = chunk.usage.or(outcome.usage);
        }
        Ok(())
    }
}

fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Transport(_) => Failure::of("no connection"),
        ClientError::Api { status, body, .. } => {
            let place = if *status == 200 { "failure in the stream".into() } else { format!("status {status}") };
            let code = body.code.as_deref().filter(|code| !code.is_empty() && *code != status.to_string());
            let kind = code.map_or_else(|| place.clone(), |code| format!("{place} {code}"));
            let message: String = body.message.chars().take(MESSAGE).collect();
            Failure { kind, message: Some(message).filter(|message| !message.is_empty()) }
        }
        ClientError::Json(_) => Failure::of("unreadable answer"),
        ClientError::LineTooLong => Failure::of("line without end"),
        ClientError::Truncated => Failure::of("stream cut off"),
    }
}

impl Outcome {
    /// Tokens of the answer; pieces where the server does not count.
    pub(super) fn n_tokens(&self) -> u64 {
        self.usage.map_or(self.arrivals.len() as u64, |usage| usage.completion_tokens)
    }

    /// Milliseconds to the first piece.
    pub(super) fn first_ms(&self) -> Option<f64> {
        self.arrivals.first().map(|first| 1e3 * (*first - self.sent).as_secs_f64())
    }

    /// Milliseconds to the end.
    pub(super) fn total_ms(&self) -> f64 {
        1e3 * (self.ended - self.sent).as_secs_f64()
    }

    /// Milliseconds between pieces.
    pub(super) fn gaps_ms(&self) -> impl Iterator<Item = f64> {
        self.arrivals.windows(2).map(|pair| 1e3 * (pair[1] - pair[0]).as_secs_f64())
    }

    /// Milliseconds a token behind the first.
    pub(super) fn mean_gap_ms(&self) -> Option<f64> {
        let (first, last) = (self.arrivals.first()?, self.arrivals.last()?);
        let n_gaps = self.n_tokens().checked_sub(1).filter(|&n| n > 0)?;
        Some(1e3 * (*last - *first).as_secs_f64() / n_gaps as f64)
    }
}

#[cfg(test)]
mod tests {
    use ingle_api::client::ClientError;

    use super::{Chunk, failure};

    #[test]
    fn failures_are_counted_by_status_and_code() {
        let error = |status: u16, message: &str, code: serde_json::Value| {
            let body = serde_json::json!({"message": message, "type": "x", "code": code});
            ClientError::Api { status, retry_after_secs: None, body: serde_json::from_value(body).unwrap() }
        };
        let (one, two) = (error(503, "12 wait", "overloaded".into()), error(503, "13 wait", "overloaded".into()));
        assert_eq!(
            (failure(&one).kind, failure(&two).kind),
            ("status 503 overloaded".into(), "status 503 overloaded".into())
        );
        assert_eq!(failure(&one).to_string(), "status 503 overloaded: 12 wait");
        // llama-server repeats the status as the code.
        assert_eq!(failure(&error(400, "no", 400.into())).kind, "status 400");
        assert_eq!(failure(&error(200, "", serde_json::Value::Null)).to_string(), "failure in the stream");
    }

    #[test]
    fn parts_of_an_answer_are_told_from_other_frames() {
        let cases = [
            (r#"{"choices":[{"text":"a"}]}"#, Some("a")),
            (r#"{"choices":[{"delta":{"content":"b"}}]}"#, Some("b")),
            (r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, None),
            (r#"{"choices":[{"delta":{"content":""}}],"usage":null}"#, None),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, Some("")),
            (r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, Some("")),
            (r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#, None),
        ];
        for (frame, text) in cases {
            let chunk: Chunk = serde_json::from_str(frame).unwrap();
            assert_eq!(chunk.text(), text, "{frame}");
        }
    }
}
