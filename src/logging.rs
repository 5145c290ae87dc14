//! Log lines on standard error.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogArgs, LogFormat, LogLevel};

/// Sends log lines to standard error; `usual` is the level when the arguments name none.
pub(crate) fn start(args: &LogArgs, usual: LogLevel) {
    let level = if args.debug { LogLevel::Debug } else { args.log_level.unwrap_or(usual) };
    let level = filter(level);
    // Libraries talk at length below info; whoever debugs this program does not want theirs.
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("ingle", level)
        .with_target("llama_cpp", level);
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match args.log_format {
        LogFormat::Json => registry.with(stderr.json().flatten_event(true)).init(),
        LogFormat::Text | LogFormat::Default => registry.with(stderr.with_ansi(colours).with_target(false)).init(),
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
