//! What is installed before the first request: the bodies of `/models/apply` that LocalAI takes as JSON and as YAML.

use anyhow::Context;
use ingle::catalog::ApplyRequest;

use crate::cli::InstallArgs;

/// The requests of both lists.
pub(super) fn requests(args: &InstallArgs) -> anyhow::Result<Vec<ApplyRequest>> {
    let mut requests: Vec<ApplyRequest> = Vec::new();
    if let Some(text) = args.preload_models.as_deref().filter(|text| !text.trim().is_empty()) {
        let listed: Vec<ApplyRequest> = serde_json::from_str(text)
            .context("--preload-models (LOCALAI_PRELOAD_MODELS) is no JSON list of bodies of /models/apply")?;
        requests.extend(listed);
    }
    if let Some(path) = &args.preload_models_config {
        let refused = || format!("--preload-models-config {} cannot be used", path.display());
        let text = std::fs::read_to_string(path).with_context(refused)?;
        let json = ingle::catalog::yaml_to_json(&text).map_err(anyhow::Error::msg).with_context(refused)?;
        let listed: Vec<ApplyRequest> = serde_json::from_value(json).with_context(refused)?;
        requests.extend(listed);
    }
    for request in &requests {
        request.check().context("a model to be preloaded is not well named")?;
    }
    Ok(requests)
}
