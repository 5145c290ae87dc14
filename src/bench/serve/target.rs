//! A server under test, and one request to it.

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
    /// The kind of failure, if it failed.
    pub(super) failure: Option<String>,
}

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
            Ok(Ok(())) if outcome.arrivals.is_empty() => Some("empty answer".into()),
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(kind(&error)),
            Err(_) => Some("took too long".into()),
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

/// Failures that count as one.
fn kind(error: &ClientError) -> String {
    match error {
        ClientError::Transport(_) => "no connection".into(),
        ClientError::Api { status: 200, .. } => "failure in the stream".into(),
        ClientError::Api { status, body, .. } => {
            let message: String = body.message.chars().take(80).collect();
            format!("status {status}: {message}")
        }
        ClientError::Json(_) => "unreadable answer".into(),
        ClientError::LineTooLong => "line without end".into(),
        ClientError::Truncated => "stream cut off".into(),
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
    use super::Chunk;

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
