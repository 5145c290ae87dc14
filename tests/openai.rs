//! The official `openai` package of Python and what is built on it, against the real program.

use std::process::Command;

use crate::support::{Server, chat_model, ingle, models_folder, text, tools_model};

/// Runs a script of `tests/clients` with the Python that `variable` names.
pub(crate) fn run_client(variable: &str, script: &str, server: &Server, arguments: &[&str]) {
    let Some(python) = std::env::var_os(variable).filter(|python| !python.is_empty()) else {
        eprintln!("skipped: {variable} names no Python with the client's package; `make test` makes one");
        return;
    };
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python).args([&script, &server.url]).args(arguments).output().expect("Python starts");
    let (said, failed) = (text(&output.stdout), text(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}\n{failed}");
}

fn serve(folder: &std::path::Path) -> Server {
    let server = Server::start(ingle(&["run", "small.gguf", "--models-path", folder.to_str().expect("UTF-8")]));
    server.wait_until_ready();
    server
}

#[test]
fn the_openai_package_is_content() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    run_client("INGLE_OPENAI_PYTHON", "openai_check.py", &serve(folder.path()), &["small.gguf"]);
}

#[test]
fn structured_output_and_tools_of_a_model_without_a_place_for_tools() {
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let server = serve(folder.path());
    run_client("INGLE_OPENAI_PYTHON", "structured_check.py", &server, &["small.gguf"]);
    run_client("INGLE_INSTRUCTOR_PYTHON", "structured_check.py", &server, &["small.gguf", "instructor"]);
}

#[test]
fn structured_output_and_tools_of_a_model_that_knows_them() {
    let Some(model) = tools_model() else { return };
    let folder = models_folder(&model);
    let server = serve(folder.path());
    run_client("INGLE_OPENAI_PYTHON", "structured_check.py", &server, &["small.gguf"]);
    run_client("INGLE_INSTRUCTOR_PYTHON", "structured_check.py", &server, &["small.gguf", "instructor"]);
}
