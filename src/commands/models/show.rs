//! `ingle models show`: what a file's header says.

use ingle::catalog::{Catalog, CatalogOptions, ModelSummary};
use ingle_gguf::{FileKind, ModelInfo};

use crate::cli::FolderArgs;
use crate::output::{self, bytes};

/// Prints the facts of a model of the folder, or of a GGUF file.
pub(super) fn run(model: &str, folder: &FolderArgs) -> anyhow::Result<()> {
    let summary = summary(model, folder)?;
    let lines = facts(&summary);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let text: String = lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
    output::print(&text)
}

/// A path needs no models folder.
fn summary(model: &str, folder: &FolderArgs) -> anyhow::Result<ModelSummary> {
    let options = CatalogOptions { config_file: folder.models_config_file.clone(), ..CatalogOptions::default() };
    match Catalog::open(&folder.models_path, options) {
        Ok(catalog) => Ok(catalog.show(model)?),
        Err(_) if std::path::Path::new(model).is_file() => {
            Ok(ModelSummary::of_file(model.as_ref(), &ingle::catalog::LoadConfig::default())?)
        }
        Err(error) => Err(error.into()),
    }
}

fn facts(summary: &ModelSummary) -> Vec<(&'static str, String)> {
    let info = &summary.info;
    let mut facts = vec![("file", summary.path.display().to_string())];
    let mut add = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("name", info.name.clone());
    add("architecture", info.architecture.clone());
    add("kind", (info.kind != FileKind::Model).then(|| format!("{:?}", info.kind).to_lowercase()));
    add("license", info.license.clone());
    add("parameters", Some(parameters(info)));
    let quantization = info.file_type.map(|kind| kind.name().map_or_else(|| kind.0.to_string(), str::to_owned));
    add("quantization", quantization);
    if info.kind == FileKind::Model {
        facts.extend(model_facts(info));
        let memory = &summary.memory;
        let parts = [("weights", memory.weight_bytes), ("cache", memory.kv_bytes), ("state", memory.recurrent_bytes)];
        let parts = parts.iter().filter(|(_, size)| *size > 0).map(|(name, size)| format!("{name} {}", bytes(*size)));
        let parts = parts.collect::<Vec<_>>().join(", ");
        let total = bytes(memory.total_bytes());
        facts.push(("memory", format!("{total} with {} tokens of context ({parts})", memory.n_cells)));
    }
    facts.extend(info.warnings.iter().map(|warning| ("warning", warning.to_string())));
    facts
}

fn model_facts(info: &ModelInfo) -> Vec<(&'static str, String)> {
    let heads = |list: &[u32]| list.iter().max().map_or(0, |most| *most);
    let mut facts = vec![
        ("layers", info.n_layers.to_string()),
        ("width", info.n_embd.to_string()),
        ("heads", format!("{} ({} for keys and values)", heads(&info.n_head), heads(&info.n_head_kv))),
        ("trained context", format!("{} tokens", info.n_ctx_train)),
    ];
    facts.extend(info.sliding_window.map(|window| ("sliding window", format!("{window} tokens"))));
    facts.extend((info.n_expert > 0).then(|| ("experts", format!("{} of {}", info.n_expert_used, info.n_expert))));
    facts.push(("vocabulary", format!("{} tokens", info.n_vocab)));
    let template = info.chat_template.as_ref().map_or("none: a fallback is used", |_| "in the file");
    facts.push(("chat template", template.to_owned()));
    facts
}

fn parameters(info: &ModelInfo) -> String {
    let count = match info.n_params {
        n if n >= 1_000_000_000 => format!("{:.2} billion", n as f64 / 1e9),
        n if n >= 1_000_000 => format!("{:.1} million", n as f64 / 1e6),
        n => n.to_string(),
    };
    info.size_label.as_ref().map_or_else(|| count.clone(), |label| format!("{count} ({label})"))
}
