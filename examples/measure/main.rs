//! Measures a running server, so that every figure in the notes can be repeated. See `--help` for the scenarios.
//!
//! Prompts are made of plain words, so the number of tokens a server reports differs a little from the number asked for.

mod burst;
mod common;
mod decode;
mod encode;
mod forms;
mod masks;
mod shared_prefix;
mod soak;
mod throughput;

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
    /// Clients share a long system prompt.
    SharedPrefix(shared_prefix::Options),
    /// Many clients with prompts of their own; works against any server with `/v1/completions`.
    Throughput(throughput::Options),
    /// One client against the raw decode loop of the same build.
    Decode(decode::Options),
    /// Embeddings in process, for a program that takes turns with a peer.
    Encode(encode::Options),
    /// Clients whose answers are held to a form, against the same requests without one.
    Forms(forms::Options),
    /// Masks of GBNF grammars beside llama.cpp's sampler, without a server.
    Masks(masks::Options),
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
        Scenario::SharedPrefix(options) => runtime.block_on(shared_prefix::run(&target, options)),
        Scenario::Throughput(options) => runtime.block_on(throughput::run(&target, options)),
        Scenario::Forms(options) => runtime.block_on(forms::run(&target, options)),
        Scenario::Encode(options) => encode::run(&arguments.model, &options),
        Scenario::Masks(options) => masks::run(&options),
        Scenario::Decode(options) => decode::run(&runtime, &target, options),
    }
}
