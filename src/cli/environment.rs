//! LocalAI's older names of environment variables, and variables that are set to nothing.
//!
//! clap knows one variable for each flag and takes an empty one for a value. Both are repaired on the command before it
//! parses, since a program may not change its own environment safely.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The name LocalAI prefers, and the one it had before.
const OLDER_NAMES: &[(&str, &str)] = &[
    ("LOCALAI_ADDRESS", "ADDRESS"),
    ("LOCALAI_API_KEY", "API_KEY"),
    ("LOCALAI_CONTEXT_SIZE", "CONTEXT_SIZE"),
    ("LOCALAI_CORS_ALLOW_ORIGINS", "CORS_ALLOW_ORIGINS"),
    ("LOCALAI_DEBUG", "DEBUG"),
    ("LOCALAI_DISABLE_METRICS_ENDPOINT", "DISABLE_METRICS_ENDPOINT"),
    ("LOCALAI_GPU_LAYERS", "GPU_LAYERS"),
    ("LOCALAI_MACHINE_TAG", "MACHINE_TAG"),
    ("LOCALAI_MODELS", "MODELS"),
    ("LOCALAI_MODELS_CONFIG_FILE", "CONFIG_FILE"),
    ("LOCALAI_MODELS_PATH", "MODELS_PATH"),
    ("LOCALAI_THREADS", "THREADS"),
    ("LOCALAI_UPLOAD_LIMIT", "UPLOAD_LIMIT"),
];

/// The command with every flag bound to the variable that is set for it.
pub(super) fn prepare(command: Command, variable: &dyn Fn(&str) -> Option<OsString>) -> Command {
    let command = command.mut_args(|arg| bind(arg, variable));
    command.mut_subcommands(|inner| prepare(inner, variable))
}

fn bind(arg: Arg, variable: &dyn Fn(&str) -> Option<OsString>) -> Arg {
    let Some(preferred) = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned) else { return arg };
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    if is_set(&preferred) {
        return arg;
    }
    let older = OLDER_NAMES.iter().find(|(name, older)| *name == preferred && is_set(older));
    match older {
        Some((_, older)) => arg.env(*older),
        None if variable(&preferred).is_some() => arg.env(None),
        None => arg,
    }
}
