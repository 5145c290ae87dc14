//! Requests, their timing, and statistics.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use ingle_api::client::{Client, ClientError};
use ingle_api::openai::{ChatRequest, Usage};
use serde_json::json;

/// The server and the model under test.
#[derive(Debug, Clone)]
pub struct Target {
    pub client: Client,
    pub model: String,
}

/// What one streamed answer was like.
#[derive(Debug, Default)]
pub struct Answer {
    /// When each piece of text arrived.
    pub arrivals: Vec<Instant>,
    pub usage: Option<Usage>,
}

impl Target {
    pub fn new(url: &str, model: &str) -> Self {
        Self { client: Client::new(url, None), model: model.to_owned() }
    }

    /// A greedy request that ends at `max_tokens` only.
    pub fn request(&self, system: Option<&str>, user: &str, max_tokens: usize) -> anyhow::Result<ChatRequest> {
        let mut messages = vec![json!({"role": "user", "content": user})];
        if let Some(system) = system {
            messages.insert(0, json!({"role": "system", "content": system}));
        }
        let body = json!({
            "model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0,
            "ignore_eos": true, "stream_options": {"include_usage": true},
        });
        Ok(serde_json::from_value(body)?)
    }

    /// Streams an answer; stops reading (and so hangs up) after `most_pieces`.
    pub async fn stream(&self, request: ChatRequest, most_pieces: usize) -> Result<Answer, ClientError> {
        let mut answer = Answer::default();
        let mut chunks = pin!(self.client.chat_stream(request).await?);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            let text = chunk.choices.first().and_then(|choice| choice.delta.content.as_deref());
            if text.is_some_and(|text| !text.is_empty()) {
                answer.arrivals.push(Instant::now());
            }
            if let Some(Some(usage)) = chunk.usage {
                answer.usage = Some(usage);
            }
            if answer.arrivals.len() >= most_pieces {
                break;
            }
        }
        Ok(answer)
    }

    /// Answers once, so that the model is loaded and warm.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        let request = self.request(None, "hello", 4)?;
        self.stream(request, usize::MAX).await.context("the server does not answer")?;
        Ok(())
    }
}

/// A small generator of random numbers (splitmix64), so that a seed repeats a run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// About `n_tokens` tokens of common words.
    pub fn words(&mut self, n_tokens: usize) -> String {
        const WORDS: [&str; 16] = [
            "river", "stone", "light", "garden", "winter", "music", "window", "paper", "bread", "ocean", "mountain",
            "letter", "morning", "silver", "forest", "clock",
        ];
        (0..n_tokens).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }
}

/// The value below which a share `q` of `values` lies.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// Milliseconds between successive arrivals.
pub fn gaps_ms(arrivals: &[Instant]) -> Vec<f64> {
    arrivals.windows(2).map(|pair| ms(pair[1] - pair[0])).collect()
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
