//! `ingle version`.

use crate::output;

/// Prints the version and the backends in the program.
pub(crate) fn run() -> anyhow::Result<()> {
    let backends: Vec<String> = ingle::backends().iter().map(|backend| backend.name().to_owned()).collect();
    let gpu = if cfg!(feature = "cuda") {
        "CUDA"
    } else if cfg!(feature = "plugins") {
        "backends as plug-ins"
    } else {
        "no GPU support"
    };
    let backends = if backends.is_empty() { "none".to_owned() } else { backends.join(", ") };
    output::print(&format!("ingle {}\nbackends: {backends} ({gpu})\n", env!("CARGO_PKG_VERSION")))
}
