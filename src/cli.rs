//! The arguments: commands, flags, and the environment variable of each flag.

mod bench;
mod environment;
pub(crate) mod localai;
mod serving;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ingle::{GpuLayers, LoadDefaults};

pub(crate) use bench::{
    Attention, BenchCommand, CompareArgs, OfflineArgs, Operations, QualityArgs, ReportArgs, ServeArgs,
};
pub(crate) use serving::{HttpArgs, InstallArgs, ResidencyArgs, RunArgs};
pub(crate) use values::Amount;
use values::{OrDefault, gpu_layers, number_or_default};

/// Runs AI models inside one process, behind LocalAI's and OpenAI's HTTP surface.
///
/// Without a command it serves, as `ingle run` does. MODEL is the name of a model in the models folder or the gallery, a
/// path to a GGUF file, or a URI such as huggingface://owner/repository/file.gguf.
#[derive(Debug, Parser)]
#[command(name = "ingle", version, subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What was given and has no effect, a line each.
    #[arg(skip)]
    pub(crate) idle: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve models over HTTP
    Run(Box<RunArgs>),
    /// Talk to a model on the terminal
    Chat(ChatArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
    /// Order documents by their relevance to a query
    Rerank(RerankArgs),
    /// List, install and look at models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Dry runs of chat templates
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Dry runs of grammars: GBNF, JSON schemas, regular expressions, Lark
    #[command(subcommand)]
    Grammar(GrammarCommand),
    /// Dry runs of tool calls
    #[command(subcommand)]
    Tools(ToolsCommand),
    /// Write down a recording
    Transcript(TranscriptArgs),
    /// Speak a text
    Tts(TtsArgs),
    /// Measure models, servers, and what a model is worth
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// The processors and GPUs of this machine, with their memory
    Devices(DevicesArgs),
    /// Ask a running server whether it is ready; for health checks, which look at the exit status
    Health(HealthArgs),
    /// The version and what is built in
    Version,
    /// Print a script that completes commands and flags in a shell
    Completion {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print what becomes of LocalAI's endpoints, flags, variables and YAML keys
    #[command(hide = true)]
    Compatibility,
}

impl Command {
    /// Does it run models, or tell what they would run on?
    pub(crate) fn computes(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Chat(_)
            | Self::Embed(_)
            | Self::Rerank(_)
            | Self::Transcript(_)
            | Self::Tts(_)
            | Self::Devices(_) => true,
            Self::Bench(command) => matches!(**command, BenchCommand::Offline(_) | BenchCommand::Quality(_)),
            Self::Models(_)
            | Self::Template(_)
            | Self::Grammar(_)
            | Self::Tools(_)
            | Self::Compatibility
            | Self::Completion { .. }
            | Self::Health(_)
            | Self::Version => false,
        }
    }

    /// A server tells what it does; other commands only what goes wrong.
    pub(crate) fn usual_level(&self) -> LogLevel {
        match self {
            Self::Run(_) => LogLevel::Info,
            Self::Transcript(_) | Self::Tts(_) => LogLevel::Warn,
            Self::Chat(_)
            | Self::Embed(_)
            | Self::Rerank(_)
            | Self::Models(_)
            | Self::Template(_)
            | Self::Grammar(_)
            | Self::Tools(_)
            | Self::Bench(_)
            | Self::Devices(_)
            | Self::Compatibility
            | Self::Completion { .. }
            | Self::Health(_)
            | Self::Version => LogLevel::Warn,
        }
    }
}

/// What is logged.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Least important lines to log [default: info for run, else warn]
    #[arg(long, global = true, env = "LOCALAI_LOG_LEVEL", value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<LogLevel>,
    /// The same as --log-level debug
    #[arg(long, global = true, env = "LOCALAI_DEBUG", value_parser = FalseyValueParser::new(), help_heading = "Log")]
    pub(crate) debug: bool,
    /// Form of the log lines
    #[arg(
        long,
        global = true,
        env = "LOCALAI_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Log"
    )]
    pub(crate) log_format: LogFormat,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    // LocalAI's word for text.
    #[value(hide = true)]
    Default,
    Json,
}

/// Where models are.
#[derive(Debug, Clone, Args)]
pub(crate) struct FolderArgs {
    /// Folder of model files and YAML configurations
    #[arg(long, env = "LOCALAI_MODELS_PATH", value_name = "FOLDER", default_value = "models")]
    pub(crate) models_path: PathBuf,
    /// One more YAML file with a list of model configurations
    #[arg(long, env = "LOCALAI_MODELS_CONFIG_FILE", value_name = "FILE", alias = "config-file")]
    pub(crate) models_config_file: Option<PathBuf>,
}

/// How models are loaded when their configuration does not say.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct LoadArgs {
    /// Tokens of context [default: the model's, within memory]
    #[arg(long, env = "LOCALAI_CONTEXT_SIZE", value_name = "TOKENS", value_parser = number_or_default)]
    pub(crate) context_size: Option<OrDefault>,
    /// Threads that compute [default: the cores this process may use]
    #[arg(long, env = "LOCALAI_THREADS", value_name = "COUNT", value_parser = number_or_default)]
    pub(crate) threads: Option<OrDefault>,
    /// Requests that one model answers at the same time
    #[arg(long, env = "LLAMACPP_PARALLEL", value_name = "COUNT", value_parser = number_or_default)]
    pub(crate) parallel: Option<OrDefault>,
    /// Layers on the GPU, a number or `auto`; 0 keeps models on the CPU [default: auto, as many as fit]
    #[arg(long, env = "LOCALAI_GPU_LAYERS", value_name = "COUNT", value_parser = gpu_layers)]
    pub(crate) gpu_layers: Option<GpuLayers>,
    /// Requests that may wait for one model before others are refused
    #[arg(long, env = "INGLE_MAX_WAITING", value_name = "COUNT")]
    pub(crate) max_waiting: Option<usize>,
}

impl LoadArgs {
    /// In the runtime's words.
    pub(crate) fn defaults(&self) -> LoadDefaults {
        LoadDefaults {
            context_size: self.context_size.and_then(|number| number.0),
            threads: self.threads.and_then(|number| number.0),
            parallel: self.parallel.and_then(|number| number.0),
            max_waiting: self.max_waiting,
            gpu_layers: self.gpu_layers,
        }
    }
}

/// Arguments of `ingle chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The model [default: the first one that chats]
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Talk to a running server instead of loading the model, e.g. http://127.0.0.1:8080
    #[arg(long, env = "INGLE_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Key for that server
    #[arg(long, env = "LOCALAI_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Instructions for the model
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Most tokens of one answer
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_tokens: Option<u32>,
    /// Randomness; 0 always takes the likeliest token
    #[arg(long, value_name = "NUMBER")]
    pub(crate) temperature: Option<f32>,
    /// Equal seeds give equal answers
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u32>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `ingle embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// The texts [default: the lines of --file or of stdin]
    #[arg(value_name = "TEXT")]
    pub(crate) texts: Vec<String>,
    /// The model [default: the first one that makes embeddings]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// A file with one text a line
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub(crate) file: Option<PathBuf>,
    /// Numbers of each vector, for models that were trained for shorter ones
    #[arg(long, value_name = "COUNT")]
    pub(crate) dimensions: Option<usize>,
    /// Put this prompt of the model in front of each text, such as `query`
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt_name: Option<String>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `ingle rerank`.
#[derive(Debug, Args)]
pub(crate) struct RerankArgs {
    /// What is looked for
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// The documents [default: the lines of --file or of stdin]
    #[arg(value_name = "DOCUMENT")]
    pub(crate) documents: Vec<String>,
    /// The model [default: the first one that reranks]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// A file with one document a line
    #[arg(long, value_name = "FILE", conflicts_with = "documents")]
    pub(crate) file: Option<PathBuf>,
    /// Best documents to print
    #[arg(long, value_name = "COUNT")]
    pub(crate) top_n: Option<usize>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Commands about models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The models in the folder, and those that can be installed
    List {
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Bring models into the folder: gallery names, URIs or paths
    Install {
        /// What to install
        #[arg(value_name = "MODEL", required = true)]
        models: Vec<String>,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// What a model's file says, and the memory it takes
    Show {
        /// The model, or the path of a GGUF file
        #[arg(value_name = "MODEL")]
        model: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

/// Commands about chat templates.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Print the exact prompt that a template makes of messages
    Render(RenderArgs),
}

/// Arguments of `ingle template render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Messages as JSON: a list, or an object with `messages`, `tools` and other template variables [default: stdin]
    ///
    /// With --jsonl: one object a line, each with its own `template`.
    #[arg(value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Read the template from this file
    #[arg(long, value_name = "FILE", conflicts_with = "model", required_unless_present_any = ["model", "jsonl"])]
    pub(crate) template: Option<PathBuf>,
    /// Take the template and the special tokens of this model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Rows {template, messages, …} in, lines {"prompt": …} or {"error": …} out
    #[arg(long, conflicts_with_all = ["template", "model"])]
    pub(crate) jsonl: bool,
    /// End after the last message instead of opening an answer
    #[arg(long)]
    pub(crate) no_generation_prompt: bool,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
}

/// Commands about grammars.
#[derive(Debug, Subcommand)]
pub(crate) enum GrammarCommand {
    /// Say which texts a grammar lets pass; the status is 0 if all do, 1 if one does not, 2 if the grammar is refused
    Check(CheckArgs),
    /// Measure what masks cost with a model's vocabulary
    Bench(GrammarBenchArgs),
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrammarKind {
    Gbnf,
    JsonSchema,
    Regex,
    Lark,
}

/// Arguments of `ingle grammar check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The grammar [default with --jsonl: rows from stdin]
    #[arg(value_name = "FILE", required_unless_present = "jsonl")]
    pub(crate) input: Option<PathBuf>,
    /// What it is [default: by the ending .gbnf, .json, .regex or .lark]
    #[arg(long, value_name = "KIND", conflicts_with = "jsonl")]
    pub(crate) kind: Option<GrammarKind>,
    /// A text to look at; may be repeated
    #[arg(long = "text", value_name = "TEXT", conflicts_with = "jsonl")]
    pub(crate) texts: Vec<String>,
    /// A file whose whole content is a text to look at; may be repeated
    #[arg(long = "text-file", value_name = "FILE", conflicts_with = "jsonl")]
    pub(crate) text_files: Vec<PathBuf>,
    /// Refuse a schema of which some keyword cannot be enforced
    #[arg(long, conflicts_with = "jsonl")]
    pub(crate) strict: bool,
    /// Rows {kind, grammar or schema, strict, texts} in, lines {"ok": …, "error": …, "accepts": […]} out
    #[arg(long)]
    pub(crate) jsonl: bool,
}

/// Arguments of `ingle grammar bench`.
#[derive(Debug, Args)]
pub(crate) struct GrammarBenchArgs {
    /// The model whose vocabulary is used
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Grammars, their kinds by their endings [default: a few that come with the program]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Random outputs to make for each grammar
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) outputs: usize,
    /// Most tokens of an output
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(crate) tokens: usize,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Commands about tool calls.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolsCommand {
    /// Split a generated text into content, reasoning and calls, as a client would get them
    Parse(ParseArgs),
}

/// Arguments of `ingle tools parse`.
#[derive(Debug, Args)]
pub(crate) struct ParseArgs {
    /// The generated text [default: stdin]
    ///
    /// With --jsonl: one object a line, with `text`, or `pieces` of it, and its own `template` and `tools` where they
    /// differ.
    #[arg(value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Read the template from this file
    #[arg(long, value_name = "FILE", conflicts_with = "model", required_unless_present_any = ["model", "jsonl"])]
    pub(crate) template: Option<PathBuf>,
    /// Take the template of this model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The tools on offer, as a request has them: tagged arguments get their types from them
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// The end of the prompt before the text, where it opens a reasoning
    #[arg(long, value_name = "TEXT", conflicts_with = "jsonl")]
    pub(crate) prompt_end: Option<String>,
    /// Rows {text, template, tools, prompt_end} in, lines {"content": …, "reasoning": …, "tool_calls": […]} out
    #[arg(long)]
    pub(crate) jsonl: bool,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
}

/// Arguments of `ingle transcript`.
#[derive(Debug, Args)]
pub(crate) struct TranscriptArgs {
    /// The recording: wav, mp3, flac, ogg, opus, m4a, webm; - is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The model [default: the first one that hears]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Language that is spoken, such as en [default: what is heard]
    #[arg(short, long, value_name = "CODE")]
    pub(crate) language: Option<String>,
    /// Write in English whatever is spoken
    #[arg(short, long)]
    pub(crate) translate: bool,
    /// Text that shows names and spelling
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// text, srt, vtt, lrc, json or verbose_json
    #[arg(long, value_name = "FORM", default_value = "text", alias = "format")]
    pub(crate) response_format: String,
    /// Tell when each word was said, in verbose_json
    #[arg(long)]
    pub(crate) words: bool,
    /// Leave out what is no speech; needs a model that finds speech, such as silero-vad
    #[arg(long)]
    pub(crate) vad: bool,
    /// Beams of the search; more are slower and a little better [default: the model's]
    #[arg(long, value_name = "COUNT")]
    pub(crate) beam_size: Option<usize>,
    /// Write JSON over several lines
    #[arg(long)]
    pub(crate) pretty_print: bool,
    /// LocalAI's name of what runs the model; the model's file tells here
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) backend: Option<String>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `ingle tts`.
#[derive(Debug, Args)]
pub(crate) struct TtsArgs {
    /// The text [default: stdin]
    #[arg(value_name = "TEXT")]
    pub(crate) text: Vec<String>,
    /// The model [default: the first one that speaks]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The speaker, for models that have several
    #[arg(short, long, value_name = "NAME")]
    pub(crate) voice: Option<String>,
    /// A voice speaks its own language
    #[arg(short, long, value_name = "CODE", hide = true)]
    pub(crate) language: Option<String>,
    /// 2 is twice as fast
    #[arg(long, value_name = "NUMBER")]
    pub(crate) speed: Option<f32>,
    /// The file to write; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "speech.wav")]
    pub(crate) output_file: PathBuf,
    /// wav, mp3, opus, flac or pcm [default: by the file's ending]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// LocalAI's name of what runs the model; the model's file tells here
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) backend: Option<String>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Arguments of `ingle devices`.
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `ingle health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Where the server listens, as it was told; on every interface is on this machine
    #[arg(long, env = "LOCALAI_ADDRESS", value_name = "ADDRESS", default_value = ":8080")]
    pub(crate) address: String,
    /// How long it may take to answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub(crate) timeout: std::time::Duration,
}

/// Starts the program again with the variables of `.env` files, where they have some that the environment has not. A
/// program cannot change its own environment safely.
pub(crate) fn start_with_env_files() -> Option<ExitCode> {
    let variables = environment::from_files();
    if variables.is_empty() {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(variables);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.arg0(name.unwrap_or_else(|| "ingle".into()));
        eprintln!("ingle: the program could not be started again with the variables of .env: {}", command.exec());
        Some(ExitCode::FAILURE)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        let status = command.status().ok()?;
        Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }
}

/// Reads the arguments; `arguments[0]` is the program's name, under which usage texts speak of it.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let variable = |name: &str| std::env::var_os(name);
    let command = whole_command(&variable);
    let arguments = with_default_command(&command, arguments);
    let matches = command.try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let Some(("run", run)) = matches.subcommand() {
        cli.idle = localai::idle_lines(run, &variable);
    }
    Ok(cli)
}

/// The script that completes this program's commands and flags in `shell`.
pub(crate) fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ingle", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn whole_command(variable: &dyn Fn(&str) -> Option<OsString>) -> clap::Command {
    let command = Cli::command().mut_subcommand("run", localai::with_idle_flags);
    environment::prepare(command, variable)
}

/// No command means `run`: it is put in front of whatever `run` would take.
fn with_default_command(command: &clap::Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let mut position = 1;
    // Flags of the log may come first; all others belong to a command.
    while let Some(argument) = arguments.get(position).map(text) {
        match argument.as_str() {
            "-h" | "--help" | "-V" | "--version" => return arguments,
            "--debug" => position += 1,
            "--log-level" | "--log-format" => position += 2,
            flag if flag.starts_with("--log-level=") || flag.starts_with("--log-format=") => position += 1,
            word if command.find_subcommand(word).is_some() => return arguments,
            _ => break,
        }
    }
    arguments.insert(position.min(arguments.len()), "run".into());
    arguments
}
