use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

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

/// The arguments of `run`, in an environment.
fn run_in(environment: &[(&str, &str)], words: &[&str]) -> Result<Cli, String> {
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    let command = super::whole_command(&lookup);
    let arguments = std::iter::once("local-ai").chain(["run"]).chain(words.iter().copied());
    let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    if let Some(("run", run)) = matches.subcommand() {
        cli.idle = super::localai::idle_lines(run, &lookup);
    }
    Ok(cli)
}

fn run_of(words: &[&str]) -> super::RunArgs {
    match run_in(&[], words).expect("they are understood").command {
        super::Command::Run(run) => *run,
        _ => panic!("it is run"),
    }
}

#[test]
fn switches_take_values() {
    for (words, expected) in [
        (&["--opaque-errors"][..], true),
        (&["--opaque-errors=true"], true),
        (&["--opaque-errors=false"], false),
        (&["--opaque-errors", "some-model"], true),
        (&[], false),
    ] {
        assert_eq!(run_of(words).http.opaque_errors, expected, "{words:?}");
    }
    assert_eq!(run_of(&["--opaque-errors", "some-model"]).models, ["some-model"]);
}

#[test]
fn what_has_no_effect_is_accepted_and_named() {
    let words = ["--p2p", "--p2p-token", "-x", "--disable-agents=false", "--f16", "--nats-url=nats://h", "model"];
    let environment = [("LOCALAI_DISABLE_WEBUI", "true"), ("P2P_NETWORK_ID", "n"), ("LOCALAI_AUTH", ""), ("XPU", "1")];
    let cli = run_in(&environment, &words).expect("they are accepted");
    let told: Vec<&str> = cli.idle.iter().filter_map(|line| line.split(' ').next()).collect();
    for flag in [
        "--p2p",
        "--p2p-token",
        "--disable-agents",
        "--f16",
        "--nats-url",
        "LOCALAI_DISABLE_WEBUI",
        "P2P_NETWORK_ID",
        "XPU",
    ] {
        assert_eq!(told.iter().filter(|told| **told == flag).count(), 1, "{flag}: {told:?}");
    }
    assert_eq!(told.len(), 8, "{told:?}");
    assert!(cli.idle.iter().all(|line| line.contains("no effect")), "{:?}", cli.idle);
    assert!(run_in(&[], &["--no-such-flag"]).is_err());
}

/// What the table says works is a flag of `run` with these very variables, and the other way round.
#[test]
fn the_table_of_flags_is_true() {
    let none = |_: &str| None;
    let command = super::whole_command(&none);
    let run = command.find_subcommand("run").expect("run is a command");
    for flag in super::localai::FLAGS {
        if ["version", "models"].contains(&flag.name) {
            continue;
        }
        let args: Vec<_> = run.get_arguments().filter(|arg| arg.get_long() == Some(flag.name)).collect();
        let [arg] = args[..] else { panic!("--{} is {} times there", flag.name, args.len()) };
        let works = flag.standing == ingle::catalog::Standing::Works;
        assert_eq!(arg.is_hide_set() && flag.name != "hf-token", !works, "--{}", flag.name);
        if works {
            let preferred = flag.variables.first().copied();
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), preferred, "--{}", flag.name);
            for variable in flag.variables {
                let lookup = |name: &str| (name == *variable).then(|| OsString::from("1"));
                let bound = super::whole_command(&lookup);
                let run = bound.find_subcommand("run").expect("run is a command");
                let arg = run.get_arguments().find(|arg| arg.get_long() == Some(flag.name)).expect("it is there");
                assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(*variable), "--{}", flag.name);
            }
        }
    }
}

#[test]
fn times_and_amounts_are_read_as_go_writes_them() {
    use super::values::{Amount, amount, duration};
    use std::time::Duration;
    for (text, expected) in [
        ("15m", Some(Duration::from_secs(900))),
        ("1h30m", Some(Duration::from_secs(5400))),
        ("1.5s", Some(Duration::from_millis(1500))),
        ("500ms", Some(Duration::from_millis(500))),
        ("0", Some(Duration::ZERO)),
        ("", None),
        ("5", None),
        ("-1s", None),
        ("5 minutes", None),
        ("1e9h", None),
    ] {
        assert_eq!(duration(text).ok(), expected, "{text:?}");
    }
    for (text, expected) in [
        ("12GB", Some(Amount::Bytes(12_000_000_000))),
        ("8GiB", Some(Amount::Bytes(8 << 30))),
        ("1.5 GiB", Some(Amount::Bytes(3 << 29))),
        ("4096", Some(Amount::Bytes(4096))),
        ("80%", Some(Amount::Share(0.8))),
        ("0%", None),
        ("120%", None),
        ("much", None),
        ("8 cows", None),
    ] {
        assert_eq!(amount(text).ok(), expected, "{text:?}");
    }
}

#[test]
fn settings_arrive() {
    let run = run_of(&[
        "--enable-watchdog-idle",
        "--watchdog-idle-timeout=2m",
        "--memory-reclaimer-threshold=0.5",
        "--api-keys=a,b",
        "--cors",
        "--load-to-memory=x,y",
        "--max-active-backends=3",
        "--memory-budget=1GiB",
    ]);
    assert!(run.residency.enable_watchdog_idle && !run.residency.enable_watchdog_busy && run.http.cors);
    assert_eq!(run.residency.watchdog_idle_timeout.as_secs(), 120);
    assert_eq!((run.residency.memory_reclaimer_threshold, run.residency.max_active_backends), (0.5, 3));
    assert_eq!(run.residency.memory_budget, Some(super::Amount::Bytes(1 << 30)));
    assert_eq!(
        (run.http.api_keys, run.install.load_to_memory),
        (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()])
    );
}
