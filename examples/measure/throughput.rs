//! Clients that each send one prompt after another, none of which shares a prefix with another: tokens a second and
//! waiting times. It speaks plain `/v1/completions` with token ids, so any server can be the peer.

use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt;
use ingle_api::client::ClientError;
use ingle_api::openai::CompletionRequest;
use serde_json::json;

use crate::common::{Random, Target, gaps_ms, ms, quantile};

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of clients, measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,64")]
    clients: Vec<usize>,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 256)]
    prompt: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 128)]
    answer: usize,
    /// Answers that each client asks for.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Token ids are drawn from 1 to this; few enough for any vocabulary.
    #[arg(long, default_value_t = 4000)]
    vocabulary: usize,
    /// Begins every line of the report.
    #[arg(long, default_value = "")]
    label: String,
    /// Keeps prompts of this run apart from those of others.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One answer: seconds to its first text, gaps between pieces, tokens.
struct Timing {
    first_ms: f64,
    gaps_ms: Vec<f64>,
    n_tokens: u64,
}

pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    answer(target, &options, 0).await?;
    println!(
        "label clients failed prompt_tok/s answer_tok/s first_p50_ms first_p95_ms gap_p50_ms gap_p95_ms gap_max_ms"
    );
    for &n_clients in &options.clients {
        measure(target, &options, n_clients).await?;
    }
    Ok(())
}

async fn measure(target: &Target, options: &Options, n_clients: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    let clients = (0..n_clients).map(|client| {
        let (target, options) = (target.clone(), options.clone());
        tokio::spawn(async move {
            let mut timings = Vec::new();
            for round in 0..options.rounds {
                let seed = options.seed << 40 | (n_clients as u64) << 24 | (client as u64) << 8 | (round as u64 + 1);
                timings.push(answer(&target, &options, seed).await);
            }
            timings
        })
    });
    let mut timings = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        timings.extend(client.await?);
    }
    let secs = began.elapsed().as_secs_f64();
    let n_failed = timings.iter().filter(|timing| timing.is_err()).count();
    if let Some(Err(error)) = timings.iter().find(|timing| timing.is_err()) {
        eprintln!("first failure: {error}");
    }
    let timings: Vec<Timing> = timings.into_iter().flatten().collect();
    let n_answered: u64 = timings.iter().map(|timing| timing.n_tokens).sum();
    let mut firsts: Vec<f64> = timings.iter().map(|timing| timing.first_ms).collect();
    let mut gaps: Vec<f64> = timings.iter().flat_map(|timing| timing.gaps_ms.iter().copied()).collect();
    println!(
        "{} {n_clients} {n_failed} {:.1} {:.1} {:.1} {:.1} {:.2} {:.2} {:.1}",
        if options.label.is_empty() { "-" } else { &options.label },
        (timings.len() * options.prompt) as f64 / secs,
        n_answered as f64 / secs,
        quantile(&mut firsts, 0.5),
        quantile(&mut firsts, 0.95),
        quantile(&mut gaps, 0.5),
        quantile(&mut gaps, 0.95),
        quantile(&mut gaps, 1.0),
    );
    Ok(())
}

async fn answer(target: &Target, options: &Options, seed: u64) -> anyhow::Result<Timing> {
    let mut random = Random(seed);
    let prompt: Vec<usize> = (0..options.prompt).map(|_| 1 + random.below(options.vocabulary)).collect();
    let request: CompletionRequest = serde_json::from_value(json!({
        "model": target.model, "prompt": prompt, "max_tokens": options.answer, "temperature": 0, "ignore_eos": true,
        "stream_options": {"include_usage": true},
    }))?;
    let began = Instant::now();
    let mut arrivals = Vec::new();
    let mut n_tokens = None;
    // A server may close an idle connection at the moment it is used again: such a request was never seen by it.
    let chunks = match target.client.completion_stream(request.clone()).await {
        Err(ClientError::Transport(_)) => target.client.completion_stream(request).await?,
        other => other?,
    };
    let mut chunks = pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if chunk.choices.first().is_some_and(|choice| !choice.text.is_empty()) {
            arrivals.push(Instant::now());
        }
        if let Some(Some(usage)) = &chunk.usage {
            n_tokens = Some(usage.completion_tokens);
        }
    }
    let first = arrivals.first().ok_or_else(|| anyhow::anyhow!("an answer without text"))?;
    let n_tokens = n_tokens.unwrap_or(arrivals.len() as u64);
    Ok(Timing { first_ms: ms(*first - began), gaps_ms: gaps_ms(&arrivals), n_tokens })
}
