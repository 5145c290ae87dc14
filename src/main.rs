//! The `ingle` program: it also answers to the name `local-ai`, whose flags and environment variables it takes.
//!
//! Commands parse their arguments, call the library and print. Decisions about models, prompts or requests live in the
//! crates below, never here.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod commands;
mod compatibility;
mod cuda;
mod logging;
mod output;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    if let Some(code) = cli::start_with_env_files() {
        return code;
    }
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        // Help and version are "errors" that go to stdout with status 0; wrong usage has status 2.
        Err(error) => error.exit(),
    };
    let note = if cli.command.computes() { cuda::become_cuda_program() } else { None };
    logging::start(&cli.log, cli.command.usual_level());
    note.iter().for_each(|note| tracing::warn!("{note}"));
    cli.idle.iter().for_each(|line| tracing::warn!("{line}"));
    let outcome = match cli.command {
        Command::Run(args) => commands::run::run(*args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Embed(args) => commands::encode::embed(args),
        Command::Rerank(args) => commands::encode::rerank(args),
        Command::Models(command) => commands::models::run(command),
        Command::Template(command) => commands::template::run(command),
        Command::Grammar(command) => match commands::grammar::run(command) {
            Ok(verdict) => return verdict.into(),
            Err(error) => Err(error),
        },
        Command::Tools(command) => commands::tools::run(command),
        Command::Transcript(args) => commands::speech::transcript(args),
        Command::Tts(args) => commands::speech::tts(args),
        Command::Bench(command) => commands::bench::run(*command),
        Command::Devices(args) => commands::devices::run(args),
        Command::Completion { shell } => output::print(&cli::completion(shell)),
        Command::Compatibility => output::print(&compatibility::page()),
        Command::Health(args) => commands::health::run(&args),
        Command::Version => commands::version::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingle: {}", output::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
