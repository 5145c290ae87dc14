//! Folders with `config.json` and safetensors: which of them are models, and for what.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::Usecase;

/// No configuration of a model is larger.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Whether the files are there that a model in a folder needs: safetensors, or CTranslate2's `model.bin`.
pub(crate) fn is_model_folder(folder: &Path) -> bool {
    const WEIGHTS: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "model.bin"];
    folder.join("config.json").is_file() && WEIGHTS.iter().any(|name| folder.join(name).is_file())
}

/// Whether the files are there that Kokoro's voices need: an ONNX network, here or in `onnx`, and `voices` of any kind.
pub(crate) fn has_voices(folder: &Path) -> bool {
    let has = |folder: &Path, is_wanted: fn(&Path) -> bool| {
        std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| is_wanted(&entry.path())))
    };
    let is_network = |path: &Path| path.extension().is_some_and(|ending| ending == "onnx");
    let are_voices = |path: &Path| {
        let is_table = path.extension().is_some_and(|ending| ending == "bin" || ending == "npz");
        is_table && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("voices"))
    };
    let is_voice = |path: &Path| path.extension().is_some_and(|ending| ending == "bin");
    (has(folder, is_network) || has(&folder.join("onnx"), is_network))
        && (has(folder, are_voices) || has(&folder.join("voices"), is_voice))
}

/// Bytes of the weights in a folder, and in its `onnx`.
pub(crate) fn weight_bytes(folder: &Path) -> u64 {
    let entries =
        [folder.to_owned(), folder.join("onnx")].into_iter().flat_map(|folder| std::fs::read_dir(folder).ok());
    let weights = entries.flatten().flatten().filter(|entry| {
        entry.path().extension().is_some_and(|ending| ending == "safetensors" || ending == "bin" || ending == "onnx")
    });
    weights.filter_map(|entry| std::fs::metadata(entry.path()).ok()).map(|metadata| metadata.len()).sum()
}

/// What a folder without a YAML may be asked for: sentence-transformers' folders are for embeddings, and classifiers
/// with one class score pairs. Nothing for others, which need a YAML that says what they are for.
pub(crate) fn usecases(folder: &Path) -> BTreeSet<Usecase> {
    let Some(config) = read_config(folder) else { return BTreeSet::new() };
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    let n_labels =
        config["id2label"].as_object().map_or(config["num_labels"].as_u64().unwrap_or(2), |labels| labels.len() as u64);
    if architecture.ends_with("ForSequenceClassification") && n_labels == 1 {
        return BTreeSet::from([Usecase::Rerank]);
    }
    if folder.join("modules.json").is_file() {
        return BTreeSet::from([Usecase::Embeddings]);
    }
    BTreeSet::new()
}

fn read_config(folder: &Path) -> Option<serde_json::Value> {
    let mut text = String::new();
    File::open(folder.join("config.json")).ok()?.take(MAX_CONFIG_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
