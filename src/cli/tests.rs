use std::ffi::OsString;

use clap::CommandFactory;

use super::values::{OrDefault, gpu_layers, number_or_default};
use super::{Cli, environment, with_default_command};
use ingle::GpuLayers;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_means_run() {
    let cases: [(&[&str], &[&str]); 12] = [
        (&[], &["run"]),
        (&["phi"], &["run", "phi"]),
        (&["--address", ":1"], &["run", "--address", ":1"]),
        (&["--debug", "phi"], &["--debug", "run", "phi"]),
        (&["--log-level", "warn"], &["--log-level", "warn", "run"]),
        (&["--log-level=warn", "chat"], &["--log-level=warn", "chat"]),
        (&["--log-level"], &["--log-level", "run"]),
        (&["run", "phi"], &["run", "phi"]),
        (&["models", "list"], &["models", "list"]),
        (&["--help"], &["--help"]),
        (&["-V"], &["-V"]),
        (&["--debug", "version"], &["--debug", "version"]),
    ];
    let command = Cli::command();
    for (given, expected) in cases {
        let whole = |words: &[&str]| -> Vec<OsString> {
            std::iter::once("local-ai").chain(words.iter().copied()).map(OsString::from).collect()
        };
        let found = with_default_command(&command, whole(given));
        assert_eq!(found, whole(expected), "{given:?}");
    }
}

/// The variable that `ingle run`'s flag reads, in an environment.
fn variable_of(flag: &str, environment: &[(&str, &str)]) -> Option<String> {
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let command = environment::prepare(Cli::command(), &lookup);
    let run = command.find_subcommand("run").expect("run is a command");
    let arg = run.get_arguments().find(|arg| arg.get_id() == flag).expect("a flag of run");
    arg.get_env().and_then(|name| name.to_str()).map(str::to_owned)
}

#[test]
fn older_variables_are_read_where_the_newer_are_not_set() {
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Variables<'_>, Option<&str>); 5] = [
        (&[], Some("LOCALAI_THREADS")),
        (&[("THREADS", "4")], Some("THREADS")),
        (&[("THREADS", "4"), ("LOCALAI_THREADS", "2")], Some("LOCALAI_THREADS")),
        (&[("THREADS", "4"), ("LOCALAI_THREADS", "")], Some("THREADS")),
        (&[("THREADS", ""), ("LOCALAI_THREADS", "")], None),
    ];
    for (environment, expected) in cases {
        assert_eq!(variable_of("threads", environment).as_deref(), expected, "{environment:?}");
    }
}

#[test]
fn every_flag_of_run_has_a_variable() {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run is a command");
    let bare: Vec<&str> =
        run.get_arguments().filter(|arg| arg.get_env().is_none()).map(|arg| arg.get_id().as_str()).collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn numbers() {
    assert_eq!(number_or_default("0"), Ok(OrDefault(None)));
    assert_eq!(number_or_default(" 8 "), Ok(OrDefault(Some(8))));
    for bad in ["-1", "x", "", "1.5", "99999999999999999999999"] {
        assert!(number_or_default(bad).is_err(), "{bad}");
        assert!(gpu_layers(bad).is_err(), "{bad}");
    }
    assert_eq!(gpu_layers("auto"), Ok(GpuLayers::Auto));
    assert_eq!(gpu_layers("0"), Ok(GpuLayers::Count(0)));
}
