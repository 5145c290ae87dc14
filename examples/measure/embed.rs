//! Embeddings over HTTP against the same model as a library in this process, in turns: many clients of single short texts,
//! one client, and both beside running chats.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use ingle::{EmbedCall, EmbedInput, LoadDefaults, Runtime, Setup};
use ingle_api::openai::{EmbeddingRequest, Prompt};

use crate::common::{Random, Target, gaps_ms, ms, quantile};

/// Texts that the library embeds in one call.
const BATCH: usize = 32;
/// Words of a text: about 17 tokens with the special ones.
const WORDS: usize = 15;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The models folder, for the library.
    #[arg(long, default_value = "models")]
    models_path: PathBuf,
    /// Threads of the library: as many as the server's.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Clients at once.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Pairs of runs; which one goes first alternates.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Seconds of a run.
    #[arg(long, default_value_t = 1.5)]
    secs: f64,
    /// A chat model of the server: four streams of it run beside the embeddings in one more round.
    #[arg(long)]
    chat: Option<String>,
}

/// Prints texts a second of both, and what one text takes.
pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    let defaults = LoadDefaults { threads: Some(options.threads), ..LoadDefaults::default() };
    let library = Setup { defaults, ..Setup::new(&options.models_path) }.runtime()?;
    let span = Duration::from_secs_f64(options.secs);
    let mut random = Random(7);
    let texts: Vec<String> = (0..256).map(|_| random.words(WORDS)).collect();
    let of_library =
        async |batch: usize, span: Duration| in_process(&library, &target.model, (&texts, batch), span).await;
    let over_http = async |clients: usize, span: Duration| of_clients(target, &texts, clients, span).await;
    of_library(BATCH, span / 4).await?;
    over_http(options.clients, span / 4).await?;
    let (mut rates, mut waits) = (Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        let first = if pair % 2 == 0 { Some(over_http(options.clients, span).await?) } else { None };
        let library_rate = of_library(BATCH, span).await?.0;
        let http = match first {
            Some(http) => http,
            None => over_http(options.clients, span).await?,
        };
        rates.push(http.0 / library_rate);
        let (alone, single) = (over_http(1, span / 3).await?, of_library(1, span / 3).await?);
        waits.push(alone.1 - single.1);
        println!(
            "pair {pair}: {} clients {:.0} texts/s, library in batches of {BATCH} {library_rate:.0}: {:.3}; one client \
             {:.2} ms, library {:.2} ms a text",
            options.clients,
            http.0,
            http.0 / library_rate,
            alone.1,
            single.1
        );
    }
    println!(
        "clients / library: {:.3}; one client - library: {:.2} ms (medians)",
        quantile(&mut rates, 0.5),
        quantile(&mut waits, 0.5)
    );
    match &options.chat {
        Some(chat) => beside_chats(target, chat, &texts, &options).await,
        None => Ok(()),
    }
}

/// Texts a second, and the median time of a call in milliseconds.
async fn in_process(
    library: &Runtime,
    model: &str,
    (texts, batch): (&[String], usize),
    span: Duration,
) -> anyhow::Result<(f64, f64)> {
    let (begun, mut n_texts, mut calls) = (Instant::now(), 0, Vec::new());
    for chunk in texts.chunks(batch).cycle() {
        let called = Instant::now();
        let inputs = chunk.iter().cloned().map(EmbedInput::Text).collect();
        let call = EmbedCall { model: Some(model.to_owned()), inputs, ..EmbedCall::default() };
        n_texts += library.embed(call).await?.vectors.len();
        calls.push(ms(called.elapsed()));
        if begun.elapsed() >= span {
            break;
        }
    }
    Ok((n_texts as f64 / begun.elapsed().as_secs_f64(), quantile(&mut calls, 0.5)))
}

/// The same of clients that each send one text after the other.
async fn of_clients(target: &Target, texts: &[String], n_clients: usize, span: Duration) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let clients: Vec<_> = (0..n_clients)
        .map(|client| {
            let (target, texts) = (target.clone(), texts.to_vec());
            tokio::spawn(async move {
                let mut calls = Vec::new();
                for text in texts.iter().cycle().skip(client * 7) {
                    let called = Instant::now();
                    let request = EmbeddingRequest {
                        model: Some(target.model.clone()),
                        input: Some(Prompt::Text(text.clone())),
                        // What the openai package asks for.
                        encoding_format: Some("base64".into()),
                        ..EmbeddingRequest::default()
                    };
                    target.client.embeddings(&request).await?;
                    calls.push(ms(called.elapsed()));
                    if begun.elapsed() >= span {
                        break;
                    }
                }
                anyhow::Ok(calls)
            })
        })
        .collect();
    let mut calls = Vec::new();
    for client in clients {
        calls.extend(client.await??);
    }
    Ok((calls.len() as f64 / begun.elapsed().as_secs_f64(), quantile(&mut calls, 0.5)))
}

/// What four chat streams and the embeddings leave each other.
async fn beside_chats(target: &Target, chat: &str, texts: &[String], options: &Options) -> anyhow::Result<()> {
    let chats = Target { model: chat.to_owned(), ..target.clone() };
    chats.warm_up().await?;
    let span = Duration::from_secs_f64(4.0 * options.secs);
    let alone = streams(&chats, span).await?;
    let (together, embedded) = tokio::join!(streams(&chats, span), async {
        tokio::time::sleep(span / 8).await;
        of_clients(target, texts, options.clients, span / 2).await
    });
    let ((chat_rate, chat_gap), (rate, call)) = (together?, embedded.context("embeddings beside chats")?);
    println!(
        "beside 4 chats: {rate:.0} texts/s, {call:.1} ms a call; the chats {chat_rate:.1} tok/s, longest gap {chat_gap:.0} ms \
         (alone {:.1} tok/s, {:.0} ms)",
        alone.0, alone.1
    );
    Ok(())
}

/// Tokens a second of four streams together in the middle of `span`, and their longest gap in milliseconds.
async fn streams(target: &Target, span: Duration) -> anyhow::Result<(f64, f64)> {
    let mut random = Random(span.as_nanos() as u64);
    let begun = Instant::now();
    let running: Vec<_> = (0..4)
        .map(|_| {
            let request = target.request(None, &random.words(24), 4000);
            let target = target.clone();
            tokio::spawn(async move {
                let mut arrivals = Vec::new();
                let mut chunks = std::pin::pin!(target.client.chat_stream(request?).await?);
                while let Some(chunk) = futures_util::StreamExt::next(&mut chunks).await {
                    chunk?;
                    arrivals.push(Instant::now());
                    if begun.elapsed() > span {
                        break;
                    }
                }
                anyhow::Ok(arrivals)
            })
        })
        .collect();
    let (from, to) = (begun + span / 4, begun + span / 2);
    let (mut n_tokens, mut longest) = (0, 0.0_f64);
    for stream in running {
        let inside: Vec<Instant> = stream.await??.into_iter().filter(|&at| at >= from && at < to).collect();
        n_tokens += inside.len();
        longest = gaps_ms(&inside).into_iter().fold(longest, f64::max);
    }
    Ok((n_tokens as f64 / (to - from).as_secs_f64(), longest))
}
