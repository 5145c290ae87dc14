//! What is installed before the first request: the bodies of `/models/apply` that LocalAI takes as JSON and as YAML, and
//! the models of its all-in-one images.

use anyhow::Context;
use ingle::catalog::{ApplyRequest, Catalog};

use crate::cli::InstallArgs;

/// Names under which the all-in-one images serve the models that work here; the gallery knows them.
const ALL_IN_ONE: [&str; 6] =
    ["gpt-4", "gpt-4o", "text-embedding-ada-002", "jina-reranker-v1-base-en", "tts-1", "whisper-1"];
/// The other name of these images.
const WAITING: &str = "stablediffusion";
/// Names of these images' profiles, which differ in how the same models are set up for a machine.
const PROFILES: [&str; 4] = ["aio", "cpu", "gpu-8g", "intel"];

/// The requests of both lists, behind those of the profile.
pub(super) fn requests(args: &InstallArgs, catalog: &Catalog) -> anyhow::Result<Vec<ApplyRequest>> {
    let profile = args.profile.as_deref().map(str::trim).filter(|profile| !profile.is_empty());
    let mut requests = profile.map_or_else(Vec::new, |profile| of_profile(profile, catalog));
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

/// What is missing of an all-in-one image's models. Another program's `PROFILE` is none of ours.
fn of_profile(profile: &str, catalog: &Catalog) -> Vec<ApplyRequest> {
    if !PROFILES.contains(&profile) {
        tracing::warn!("PROFILE={profile} has no effect: the profiles are {}", PROFILES.join(", "));
        return Vec::new();
    }
    tracing::info!("profile {profile}: {} are served; {WAITING} waits for its engine", ALL_IN_ONE.join(", "));
    let missing = ALL_IN_ONE.into_iter().filter(|name| catalog.get(name).is_err());
    missing.map(|name| ApplyRequest { id: Some(name.to_owned()), ..ApplyRequest::default() }).collect()
}

#[cfg(test)]
mod tests {
    use ingle::catalog::{CatalogOptions, Gallery};

    use super::*;

    #[test]
    fn a_profile_installs_what_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Catalog::open(folder.path(), CatalogOptions::default()).expect("it opens");
        let ids = |profile: &str| -> Vec<String> {
            of_profile(profile, &open()).into_iter().filter_map(|request| request.id).collect()
        };
        assert_eq!(ids("gpu-8g"), ALL_IN_ONE);
        assert_eq!(ids("release"), [""; 0]);
        std::fs::write(folder.path().join("gpt-4.yaml"), "name: gpt-4\nparameters: {model: a.gguf}\n")
            .expect("written");
        assert_eq!(ids("aio"), ALL_IN_ONE[1..]);
        let gallery = Gallery::embedded();
        for name in ALL_IN_ONE.into_iter().chain([WAITING]) {
            assert!(gallery.find(name).is_some(), "{name}");
        }
    }
}
