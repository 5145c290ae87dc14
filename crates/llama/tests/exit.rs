//! A program may end while its models still answer: it ends with its own status, and soon.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{SMOLLM, greedy, load, model_path, text, tokens};

const ROLE: &str = "INGLE_TEST_ENDS_EARLY";
/// Without the wait for steps nearly every run crashes.
const N_RUNS: usize = 10;

/// What the program of the other test does: `main` returns in the middle of steps.
#[test]
fn ends_early() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let model = text(&load(SMOLLM, "ends early").expect("the model is there"));
    let prompt = tokens(&model, &"The capital of France is Paris. ".repeat(10));
    let mut running = model.submit(greedy(prompt, 400)).unwrap().into_iter();
    running.next();
    // Dropping either would stop the engine before its next step.
    std::mem::forget((model, running));
}

#[test]
fn a_program_ends_with_its_own_status() {
    if model_path(SMOLLM).is_none() {
        return;
    }
    for run in 0..N_RUNS {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "ends_early", "--quiet"]).env(ROLE, "1");
        let started = Instant::now();
        let output = program.output().unwrap();
        assert!(output.status.success(), "run {run}: {}", output.status);
        // Steps are cut short, and nobody waits for what never ends.
        assert!(started.elapsed() < Duration::from_secs(9), "run {run}: {:?}", started.elapsed());
    }
}
