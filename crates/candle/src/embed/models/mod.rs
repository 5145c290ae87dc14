//! From `config.json` and weights to an [`Encoder`], architecture by architecture.
//!
//! Each function says which tensors an architecture has and how its layers differ; the forward pass is one for all.

mod bert;
mod modern;

use ingle_engine::EngineError;

use super::attention::Heads;
use super::config::Config;
use super::encoder::{Encoder, Norm};
use super::linear::Products;
use crate::weights::Weights;

/// The architectures, as an error lists them.
const KNOWN: &str =
    "bert, roberta, xlm-roberta, camembert, distilbert, mpnet, nomic_bert, modernbert, new (GTE), Jina BERT, qwen3";

/// Positions that angles are kept for; a larger number in a configuration would only fill the memory.
pub(super) const MOST_TOKENS: usize = 1 << 17;

/// An encoder and what else its architecture says.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) encoder: Encoder,
    /// Positions it was trained for, special tokens included.
    pub(super) max_tokens: usize,
    /// Name for reports.
    pub(super) name: &'static str,
}

/// Builds the encoder, whose layers compute in `products`.
///
/// # Errors
/// [`EngineError::Load`] for an architecture that is not known, and for tensors that do not fit.
pub(super) fn build(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    let is_alibi = config.text("position_embedding_type") == Some("alibi");
    match config.model_type() {
        "bert" if is_alibi || config.architecture().starts_with("JinaBert") => bert::jina(config, weights, products),
        "bert" => bert::bert(config, weights, products),
        "roberta" | "xlm-roberta" | "camembert" => bert::roberta(config, weights, products),
        "distilbert" => bert::distilbert(config, weights, products),
        "mpnet" => bert::mpnet(config, weights, products),
        "nomic_bert" => modern::nomic(config, weights, products),
        "modernbert" => modern::modernbert(config, weights, products),
        "new" | "gte" => modern::gte(config, weights, products),
        "qwen3" => modern::qwen3(config, weights, products),
        "llama" | "mistral" | "gemma" | "gemma2" | "gemma3" | "qwen2" | "phi3" => {
            let reason = "language models are run from GGUF files (`backend: llama-cpp`), not from safetensors";
            Err(config.error(format!("model_type is {:?}: {reason}", config.model_type())))
        }
        other => Err(config.error(format!("model_type {other:?} is not known as an encoder; these are: {KNOWN}"))),
    }
}

/// Heads of equal size.
fn heads(config: &Config, n_embd: usize, names: &[&str]) -> Result<Heads, EngineError> {
    let n_heads = config.size(names)?;
    if !n_embd.is_multiple_of(n_heads) {
        return Err(config.error(format!("the hidden size {n_embd} is no multiple of {} {n_heads}", names[0])));
    }
    Ok(Heads { n_heads, n_kv_heads: n_heads, head_dim: n_embd / n_heads })
}

/// The layer norm called `name`; without a bias tensor its bias is 0.
pub(super) fn layer_norm(weights: &mut Weights, name: &str, n: usize, epsilon: f64) -> Result<Norm, EngineError> {
    let weight = weights.tensor(&format!("{name}.weight"), &[n])?;
    let bias = format!("{name}.bias");
    let bias = if weights.has(&bias) { weights.tensor(&bias, &[n])? } else { vec![0.0; n] };
    Ok(Norm::Layer { weight, bias, epsilon: epsilon as f32 })
}
