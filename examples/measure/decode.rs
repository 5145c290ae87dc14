//! One client's stream against the raw decode loop of the same build, in turns.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use ingle::sampling::{Sampler, SamplingParams};
use ingle::{BatchToken, Decoder, LoadOptions, TokenId};
use ingle_llama::LlamaBackend;

use crate::common::{Random, Target, quantile};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The file of the model that the server runs, for the raw loop.
    #[arg(long)]
    file: PathBuf,
    /// Compute threads of the raw loop: as many as the server's.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Pairs of runs; which one goes first alternates.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
}

/// Prints both rates of each pair, and the median ratio with the interval that holds it with a probability of 95 %.
pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    let load = LoadOptions {
        name: "raw".into(),
        path: options.file.clone(),
        context_size: Some(1024),
        parallel: Some(1),
        threads: Some(options.threads),
        ..LoadOptions::default()
    };
    let mut raw = LlamaBackend.load_model(&load, &ingle_runtime::hardware::detect())?.decoder;
    target.warm_up().await?;
    let mut random = Random(u64::from(std::process::id()));
    let n_prompt = streamed(target, &random.words(24), options.tokens).await?.0;
    raw_rate(&mut raw, n_prompt, options.tokens)?;
    let mut ratios = Vec::new();
    for pair in 0..options.pairs {
        let text = random.words(24);
        let before = (pair % 2 == 1).then(|| raw_rate(&mut raw, n_prompt, options.tokens)).transpose()?;
        let (_, http) = streamed(target, &text, options.tokens).await?;
        let raw_rate = before.map_or_else(|| raw_rate(&mut raw, n_prompt, options.tokens), Ok)?;
        println!("pair {pair}: {http:.1} tok/s over HTTP, {raw_rate:.1} raw: {:.3}", http / raw_rate);
        ratios.push(http / raw_rate);
    }
    let mut medians: Vec<f64> = (0..2000)
        .map(|_| {
            let mut drawn: Vec<f64> = (0..ratios.len()).map(|_| ratios[random.below(ratios.len())]).collect();
            quantile(&mut drawn, 0.5)
        })
        .collect();
    let (low, high) = (quantile(&mut medians, 0.025), quantile(&mut medians, 0.975));
    println!("HTTP / raw: {:.3} [{low:.3}, {high:.3}], {} pairs", quantile(&mut ratios, 0.5), options.pairs);
    Ok(())
}

/// Prompt tokens, and tokens a second behind the first one, of an answer over HTTP.
async fn streamed(target: &Target, text: &str, n_tokens: usize) -> anyhow::Result<(usize, f64)> {
    let answer = target.stream(target.request(None, text, n_tokens)?, usize::MAX).await?;
    let usage = answer.usage.context("the server sends no usage")?;
    let (first, last) = answer.arrivals.first().zip(answer.arrivals.last()).context("the answer has no text")?;
    let rate = (usage.completion_tokens as f64 - 1.0) / (*last - *first).as_secs_f64();
    Ok((usage.prompt_tokens as usize, rate))
}

/// Tokens a second of the loop of nothing but the model and the likeliest token.
fn raw_rate(decoder: &mut impl Decoder, n_prompt: usize, n_tokens: usize) -> anyhow::Result<f64> {
    let n_vocab = decoder.limits().n_vocab;
    let mut sampler = Sampler::new(SamplingParams::greedy(), n_vocab, 0)?;
    decoder.clear(0);
    let token = |position: usize| (1000 + position * 37 % 20_000 % (n_vocab - 1000)) as TokenId;
    let prompt: Vec<BatchToken> = (0..n_prompt)
        .map(|position| BatchToken { token: token(position), position, seq: 0, wants_row: position + 1 == n_prompt })
        .collect();
    decoder.decode(&prompt)?;
    let mut next = sampler.sample(decoder.row(n_prompt - 1)?, None)?.token;
    let begun = Instant::now();
    for position in n_prompt..n_prompt + n_tokens - 1 {
        decoder.decode(&[BatchToken { token: next, position, seq: 0, wants_row: true }])?;
        next = sampler.sample(decoder.row(0)?, None)?.token;
    }
    Ok((n_tokens - 1) as f64 / begun.elapsed().as_secs_f64())
}
