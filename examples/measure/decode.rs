//! One client over HTTP against the raw decode loop, in alternating pairs.

use std::path::PathBuf;
use std::time::Instant;

use ingle_engine::{BatchToken, Decoder, LoadOptions};
use ingle_llama::LlamaBackend;

use crate::common::{Random, Target, quantile};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The model's file, for the raw loop.
    #[arg(long)]
    file: PathBuf,
    /// Tokens decoded in each run.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Pairs of runs.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Compute threads of the raw loop; the server must use as many.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Cells of the raw loop's context; the server must have as many.
    #[arg(long, default_value_t = 4096)]
    context_size: usize,
}

pub fn run(runtime: &tokio::runtime::Runtime, target: &Target, options: Options) -> anyhow::Result<()> {
    let load = LoadOptions {
        name: "raw".into(),
        path: options.file.clone(),
        threads: Some(options.threads),
        context_size: Some(options.context_size),
        ..LoadOptions::default()
    };
    let mut decoder = LlamaBackend.load_model(&load, &ingle_runtime::hardware::detect())?.decoder;
    runtime.block_on(target.warm_up())?;
    raw_tokens_per_sec(&mut decoder, options.tokens)?;
    let mut ratios = Vec::new();
    for pair in 1..=options.pairs {
        // Which side goes first alternates too.
        let (http, alone) = if pair % 2 == 0 {
            let http = runtime.block_on(http_tokens_per_sec(target, options.tokens, pair))?;
            (http, raw_tokens_per_sec(&mut decoder, options.tokens)?)
        } else {
            let alone = raw_tokens_per_sec(&mut decoder, options.tokens)?;
            (runtime.block_on(http_tokens_per_sec(target, options.tokens, pair))?, alone)
        };
        println!("pair {pair}: HTTP {http:.1} tok/s, raw {alone:.1} tok/s, ratio {:.3}", http / alone);
        ratios.push(http / alone);
    }
    let (low, high) = median_interval(&mut ratios);
    println!("median ratio {:.3}, 95 % interval {low:.3} to {high:.3}", quantile(&mut ratios, 0.5));
    Ok(())
}

/// Tokens a second over the gaps between the first and the last token of a greedy answer.
async fn http_tokens_per_sec(target: &Target, n_tokens: usize, pair: usize) -> anyhow::Result<f64> {
    let request = target.request(None, &Random(pair as u64).words(16), n_tokens + 1)?;
    let answer = target.stream(request, usize::MAX).await?;
    let (Some(first), Some(last)) = (answer.arrivals.first(), answer.arrivals.last()) else {
        anyhow::bail!("the answer has no text")
    };
    let n_gaps = answer.usage.map_or(0, |usage| usage.completion_tokens).saturating_sub(1);
    Ok(n_gaps as f64 / (*last - *first).as_secs_f64())
}

/// The same with nothing but the model and an argmax: a prompt of as many tokens, then one token a step.
fn raw_tokens_per_sec(decoder: &mut impl Decoder, n_tokens: usize) -> anyhow::Result<f64> {
    const PROMPT: usize = 48;
    decoder.clear(0);
    let token = |token, position, wants_row| BatchToken { token, position, seq: 0, wants_row };
    let prompt: Vec<_> = (0..PROMPT).map(|position| token(1000, position, position + 1 == PROMPT)).collect();
    decoder.decode(&prompt)?;
    let mut next = likeliest(decoder.row(PROMPT - 1)?)?;
    let begun = Instant::now();
    for position in PROMPT..PROMPT + n_tokens {
        decoder.decode(&[token(next, position, true)])?;
        next = likeliest(decoder.row(0)?)?;
    }
    Ok(n_tokens as f64 / begun.elapsed().as_secs_f64())
}

fn likeliest(row: &[f32]) -> anyhow::Result<u32> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    Ok(best.ok_or_else(|| anyhow::anyhow!("an empty row"))?.0 as u32)
}

/// Distribution-free 95 % interval of the median, from the order statistics (normal approximation of the ranks).
fn median_interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let half = 1.96 * n.sqrt() / 2.0;
    let low = (n / 2.0 - half).floor().max(1.0) as usize;
    let high = (n / 2.0 + half).ceil().min(n) as usize;
    (values[low - 1], values[high - 1])
}
