//! Embeddings in process, tokenizing included: reads `{"texts": […], "batch": n, "secs": s}` a line from standard input
//! and answers `{"texts": n, "secs": s, "first": […]}`, so that another program can take turns with a peer and compare the
//! first text's vector.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use futures_executor::block_on;
use ingle::{EmbedCall, EmbedInput, LoadDefaults, Setup};
use serde_json::{Value, json};

/// Settings of this scenario.
#[derive(Debug, Args)]
pub struct Options {
    /// The models folder.
    #[arg(long, default_value = "models")]
    models_path: PathBuf,
    /// Threads that compute.
    #[arg(long)]
    threads: Option<usize>,
}

/// Answers until the input ends.
pub fn run(model: &str, options: &Options) -> anyhow::Result<()> {
    let defaults = LoadDefaults { threads: options.threads, ..LoadDefaults::default() };
    let runtime = Setup { defaults, ..Setup::new(&options.models_path) }.runtime()?;
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let texts: Vec<String> = serde_json::from_value(asked["texts"].clone())?;
        let (batch, secs) = (asked["batch"].as_u64().unwrap_or(1) as usize, asked["secs"].as_f64().unwrap_or(1.0));
        let (begun, mut n_texts, mut first) = (Instant::now(), 0, None);
        for chunk in texts.chunks(batch).cycle() {
            let inputs = chunk.iter().cloned().map(EmbedInput::Text).collect();
            let call = EmbedCall { model: Some(model.to_owned()), inputs, ..EmbedCall::default() };
            let vectors = block_on(runtime.embed(call))?.vectors;
            n_texts += vectors.len();
            first = first.or_else(|| vectors.into_iter().next());
            if begun.elapsed().as_secs_f64() >= secs {
                break;
            }
        }
        println!("{}", json!({"texts": n_texts, "secs": begun.elapsed().as_secs_f64(), "first": first}));
        std::io::stdout().flush()?;
    }
    Ok(())
}
