//! What `ingle bench` does not measure: clients that hang up, what running streams notice of a long prompt, one stream
//! beside the raw decode loop, and masks of GBNF grammars beside llama.cpp's sampler. See `--help`.
//!
//! Prompts are made of plain words, so the number of tokens a server reports differs a little from the number asked for.

mod burst;
mod common;
mod decode;
mod embed;
mod encode;
mod masks;
mod script;
mod soak;

use clap::{Parser, Subcommand};

/// Measures a running server.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The model to ask.
    #[arg(long)]
    model: String,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Many clients at once, some of which hang up.
    Soak(soak::Options),
    /// A long prompt arrives while others stream.
    Burst(burst::Options),
    /// One client's stream against the raw decode loop of the same build.
    Decode(decode::Options),
    /// Embeddings over HTTP beside the library, and beside chats.
    Embed(embed::Options),
    /// Embeddings in process, for a program that takes turns with a peer.
    Encode(encode::Options),
    /// Masks of GBNF grammars beside llama.cpp's sampler, without a server.
    Masks(masks::Options),
    /// What guesses bring on a text that a script forces, in process.
    Script(script::Options),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let target = common::Target::new(&arguments.url, &arguments.model);
    // Few, so that on a small machine the server keeps its cores.
    let workers = std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 4).clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    match arguments.scenario {
        Scenario::Soak(options) => runtime.block_on(soak::run(&target, options)),
        Scenario::Burst(options) => runtime.block_on(burst::run(&target, options)),
        Scenario::Decode(options) => runtime.block_on(decode::run(&target, options)),
        Scenario::Embed(options) => runtime.block_on(embed::run(&target, options)),
        Scenario::Encode(options) => encode::run(&arguments.model, &options),
        Scenario::Masks(options) => masks::run(&options),
        Scenario::Script(options) => script::run(&options),
    }
}
