//! Arguments of `ingle bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ingle::{CacheType, FlashAttention, GpuLayers};

use super::FolderArgs;
use super::values::gpu_layers;

/// Measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure models in this process, without a server: load, prefill, decode, memory
    Offline(OfflineArgs),
    /// Measure a running server, or two of them against each other
    Serve(ServeArgs),
    /// Judge a model: perplexity of a text, accuracy in choosing among answers
    Quality(QualityArgs),
    /// Say what changed between two reports beyond the noise
    Compare(CompareArgs),
}

/// Files that a report is written to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct ReportArgs {
    /// Write the report as JSON, for `ingle bench compare`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write it as CSV, a line for each figure
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write it as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write it as one HTML file with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Whether the fused attention is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attention {
    Auto,
    On,
    Off,
}

/// Whose operations compute on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operations {
    /// Our own where there are any, else ggml's
    Ours,
    /// ggml's
    Ggml,
}

impl From<Attention> for FlashAttention {
    fn from(attention: Attention) -> Self {
        match attention {
            Attention::Auto => Self::Auto,
            Attention::On => Self::On,
            Attention::Off => Self::Off,
        }
    }
}

fn cache_type(name: &str) -> Result<CacheType, String> {
    let names = || CacheType::ALL.map(|(name, _)| name).join(", ");
    CacheType::from_name(name).ok_or_else(|| format!("it must be one of {}", names()))
}

/// Arguments of `ingle bench offline`. Lists are separated by commas; every combination is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfflineArgs {
    /// Models: names in the folder or the gallery, paths, URIs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<String>,
    /// Tokens of a prompt
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt: Vec<u32>,
    /// Tokens of an answer; 0 measures prompts only
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128")]
    pub(crate) answer: Vec<u32>,
    /// Sequences at the same time
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parallel: Vec<u32>,
    /// Tokens of context in front of each prompt, computed before and not timed
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0")]
    pub(crate) depth: Vec<u32>,
    /// Compute threads [default: the cores this process may use]
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) threads: Vec<u32>,
    /// Formats of the key cache
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = cache_type)]
    pub(crate) cache_type_k: Vec<CacheType>,
    /// Formats of the value cache [default: that of the keys]
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = cache_type)]
    pub(crate) cache_type_v: Vec<CacheType>,
    /// Fused attention
    #[arg(long, value_name = "USE", value_delimiter = ',')]
    pub(crate) flash_attention: Vec<Attention>,
    /// Tokens in one step at most
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: Vec<u32>,
    /// Layers on the GPU, a number or `auto` [default: the model's configuration, else auto]
    #[arg(long, value_name = "COUNT", value_parser = gpu_layers)]
    pub(crate) gpu_layers: Option<GpuLayers>,
    /// A recording for models that write down what they hear; its beginning is used
    #[arg(long, value_name = "FILE")]
    pub(crate) audio: Option<PathBuf>,
    /// Runs of each case, behind one that is not counted; fewer than 6 have a range instead of an interval of 95 %
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeats: u32,
    /// Equal seeds give equal tokens
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Measure the bare loop around the model too, in turn with the engine, and the ratio of both
    #[arg(long)]
    pub(crate) bare: bool,
    /// Guess tokens from the text itself and check several at a time, as a server does
    #[arg(long)]
    pub(crate) speculation: bool,
    /// Prompts repeat a few words over and over, so that the answer is likely to copy them
    #[arg(long)]
    pub(crate) repetitive: bool,
    /// Who computes on the processor: our own operations, or ggml's alone [default: what this process does anyway]
    #[arg(long, value_name = "WHOSE")]
    pub(crate) operations: Option<Operations>,
    /// End after so many seconds and keep what is done
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Arguments of `ingle bench serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Where the server listens, e.g. http://127.0.0.1:8080
    #[arg(value_name = "URL", required_unless_present = "list")]
    pub(crate) url: Option<String>,
    /// The model to ask [default: the first one that the server lists]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Key for the server
    #[arg(long, env = "LOCALAI_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// A second server: both are asked in turn, block by block, and the ratios are printed
    #[arg(long, value_name = "URL")]
    pub(crate) vs: Option<String>,
    /// The model to ask the second server for [default: the first one that it lists]
    #[arg(long, value_name = "NAME", requires = "vs")]
    pub(crate) vs_model: Option<String>,
    /// Key for the second server
    #[arg(long, value_name = "KEY", requires = "vs")]
    pub(crate) vs_api_key: Option<String>,
    /// Names of the scenarios that come with the program, or YAML files
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "chat")]
    pub(crate) scenario: Vec<String>,
    /// List the scenarios that come with the program
    #[arg(long)]
    pub(crate) list: bool,
    /// Clients at the same time, in place of the scenario's
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) clients: Vec<u32>,
    /// Requests that arrive in a second, whoever still waits; in place of clients
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', conflicts_with = "clients")]
    pub(crate) rate: Vec<f64>,
    /// Requests (or conversations) of a block [default: the scenario's rounds for each client]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) requests: Option<u32>,
    /// Blocks of requests for each case; with --vs, for each server; fewer than 6 have a range instead of an interval of 95 %
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) blocks: u32,
    /// End after so many seconds and keep what is done
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) max_seconds: u64,
    /// Most seconds that one request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// What counts as well served, e.g. ttft=500,gap=100,total=5000 in milliseconds; `gap` is the mean between tokens
    #[arg(long, value_name = "LIMITS")]
    pub(crate) slo: Option<String>,
    /// Tell the server to go on behind the end of the text; switch it off for servers that refuse unknown fields
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) ignore_eos: bool,
    /// Equal seeds give equal requests
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Arguments of `ingle bench quality`.
#[derive(Debug, Clone, Args)]
pub(crate) struct QualityArgs {
    /// Models: names in the folder or the gallery, paths, URIs
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<String>,
    /// Perplexity of this text
    #[arg(long, value_name = "FILE", required_unless_present = "choices")]
    pub(crate) text: Option<PathBuf>,
    /// Tokens of context for the perplexity; the second half of each piece is scored
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub(crate) context: u32,
    /// Pieces of the text to look at, at most
    #[arg(long, value_name = "COUNT")]
    pub(crate) pieces: Option<u32>,
    /// Accuracy over lines {"question": text, "choices": [texts], "answer": index}
    #[arg(long, value_name = "FILE")]
    pub(crate) choices: Option<PathBuf>,
    /// Compute threads [default: the cores this process may use]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) threads: Option<u32>,
    /// Layers on the GPU, a number or `auto`
    #[arg(long, value_name = "COUNT", value_parser = gpu_layers)]
    pub(crate) gpu_layers: Option<GpuLayers>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Arguments of `ingle bench compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The earlier report, in JSON
    #[arg(value_name = "BEFORE")]
    pub(crate) before: PathBuf,
    /// The later report, in JSON
    #[arg(value_name = "AFTER")]
    pub(crate) after: PathBuf,
}
