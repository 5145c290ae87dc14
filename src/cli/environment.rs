//! LocalAI's older names of environment variables, variables that are set to nothing, and `.env` files.
//!
//! clap knows one variable for each flag and takes an empty one for a value. Both are repaired on the command before it
//! parses, since a program may not change its own environment safely.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::localai;

/// The command with every flag bound to the variable that is set for it.
pub(super) fn prepare(command: Command, variable: &dyn Fn(&str) -> Option<OsString>) -> Command {
    let command = command.mut_args(|arg| bind(switch(arg), variable));
    command.mut_subcommands(|inner| prepare(inner, variable))
}

/// Names that LocalAI had for a variable before.
fn older_names(preferred: &str) -> &'static [&'static str] {
    if preferred == "LOCALAI_GPU_LAYERS" {
        return &["GPU_LAYERS"];
    }
    if preferred == "LOCALAI_DEBUG" {
        return &["DEBUG"];
    }
    let flag = localai::FLAGS.iter().find(|flag| flag.variables.first() == Some(&preferred));
    flag.and_then(|flag| flag.variables.get(1..)).unwrap_or_default()
}

/// A switch may be given a value, `--flag=false`, as in LocalAI.
fn switch(arg: Arg) -> Arg {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue) && arg.get_id() != "help";
    match is_switch && arg.get_env().is_some() {
        true => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true),
        false => arg,
    }
}

fn bind(arg: Arg, variable: &dyn Fn(&str) -> Option<OsString>) -> Arg {
    let Some(preferred) = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned) else { return arg };
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    if is_set(&preferred) {
        return arg;
    }
    let older = older_names(&preferred).iter().copied().find(|older| is_set(older));
    match older {
        Some(older) => arg.env(older),
        None if variable(&preferred).is_some() => arg.env(None),
        None => arg,
    }
}

/// Is `name` read by Ingle? A file in the working folder must not set anything else, such as `LD_PRELOAD`, nor anything
/// that names code to be run.
fn is_ours(name: &str) -> bool {
    const CODE: [&str; 2] = ["INGLE_BACKENDS_PATH", "INGLE_ESPEAK"];
    if CODE.contains(&name) {
        return false;
    }
    const OTHERS: [&str; 9] = [
        "GPU_LAYERS",
        "DEBUG",
        "CUDA_VISIBLE_DEVICES",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    ["LOCALAI_", "INGLE_", "HF_"].iter().any(|prefix| name.starts_with(prefix))
        || OTHERS.contains(&name)
        || localai::FLAGS.iter().any(|flag| flag.variables.contains(&name))
        || localai::VARIABLES.iter().any(|(known, _)| *known == name)
}

/// Set for the program that starts with the variables of the files, which does not read them again.
const READ: &str = "INGLE_ENV_FILES_READ";

/// Variables of LocalAI's `.env` files that the environment does not have: from the first file that names them.
pub(crate) fn from_files() -> Vec<(String, String)> {
    if std::env::var_os(READ).is_some() {
        return Vec::new();
    }
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let files = [
        Some(".env".into()),
        Some("localai.env".into()),
        in_home("localai.env"),
        in_home(".config/localai.env"),
        Some("/etc/localai.env".into()),
    ];
    let mut found: Vec<(String, String)> = Vec::new();
    for file in files.into_iter().flatten() {
        let Ok(entries) = dotenvy::from_path_iter(&file) else { continue };
        for entry in entries {
            match entry {
                Ok((name, value)) => {
                    if is_ours(&name)
                        && std::env::var_os(&name).is_none()
                        && found.iter().all(|(known, _)| *known != name)
                    {
                        found.push((name, value));
                    }
                }
                Err(error) => eprintln!("{}: {error}; the rest of the file is not read", file.display()),
            }
        }
    }
    if !found.is_empty() {
        found.push((READ.into(), "1".into()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn files_set_no_variable_that_names_code() {
        for name in ["LOCALAI_API_KEY", "INGLE_CACHE", "HF_TOKEN", "DEBUG", "MODELS_PATH", "https_proxy"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["INGLE_BACKENDS_PATH", "INGLE_ESPEAK", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
