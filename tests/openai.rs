//! The official `openai` package of Python against the real program.

use std::process::Command;

use crate::support::{Server, chat_model, ingle, models_folder, text};

#[test]
fn the_openai_package_is_content() {
    let Some(python) = std::env::var_os("INGLE_OPENAI_PYTHON") else {
        eprintln!("skipped: INGLE_OPENAI_PYTHON names no Python with the openai package; `make test` makes one");
        return;
    };
    let Some(model) = chat_model() else { return };
    let folder = models_folder(&model);
    let server = Server::start(ingle(&["run", "small.gguf", "--models-path", folder.path().to_str().expect("UTF-8")]));
    server.wait_until_ready();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/openai_check.py");
    let output = Command::new(python).args([script, &server.url, "small.gguf"]).output().expect("Python starts");
    let (said, failed) = (text(&output.stdout), text(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}\n{failed}");
}
