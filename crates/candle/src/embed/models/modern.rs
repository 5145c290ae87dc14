//! Encoders with rotary positions: Nomic BERT, ModernBERT, GTE, and Qwen3 as an embedding model.

use std::sync::Arc;

use ingle_engine::EngineError;
use serde_json::Value;

use super::{MOST_TOKENS, Model, heads, layer_norm};
use crate::embed::attention::{DistanceBias, Heads, Rotation, Sight, frequencies};
use crate::embed::config::Config;
use crate::embed::encoder::{Activation, Embeddings, Encoder, FeedForward, HeadNorms, Layer, Norm, NormOrder, Shape};
use crate::embed::linear::{Bias, Linear, Products};
use crate::weights::Weights;

fn most_tokens(config: &Config, names: &[&str]) -> Result<usize, EngineError> {
    Ok(config.size(names)?.min(MOST_TOKENS))
}

/// The base of the angles: newer configurations nest it.
fn theta(config: &Config, name: &str, otherwise: f64) -> Result<f64, EngineError> {
    let nested = &config.value("rope_parameters")["rope_theta"];
    if nested.is_null() {
        config.number(name, otherwise)
    } else {
        config.number_of("rope_parameters.rope_theta", nested)
    }
}

fn shape(heads: Heads, order: NormOrder, activation: Activation) -> Shape {
    Shape { heads, order, feed_forward: FeedForward::Gated, activation, distance_bias: DistanceBias::None }
}

/// Nomic BERT (arXiv:2402.01613): post-norm, SwiGLU, no biases.
pub(super) fn nomic(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    let has_experts = config.value("moe_every_n_layers").as_u64().is_some_and(|n| n > 0);
    if config.is("prenorm") || config.is("rotary_emb_interleaved") || has_experts {
        return Err(config.error("prenorm, rotary_emb_interleaved and experts are not supported"));
    }
    if config.number("rotary_emb_fraction", 1.0)? != 1.0 || !config.value("rotary_scaling_factor").is_null() {
        return Err(config.error("a rotary_emb_fraction other than 1, and rotary_scaling_factor, are not supported"));
    }
    weights.find_prefix(&["", "bert.", "nomic_bert."], "embeddings.word_embeddings.weight")?;
    let n = config.size(&["n_embd", "hidden_size"])?;
    let heads = heads(config, n, &["n_head", "num_attention_heads"])?;
    let n_inner = config.size(&["n_inner", "intermediate_size"])?;
    let n_vocab = config.size(&["vocab_size"])?;
    let epsilon = config.number("layer_norm_epsilon", 1e-12)?;
    let max_tokens = most_tokens(config, &["n_positions", "max_trained_positions", "max_position_embeddings"])?;
    let base = theta(config, "rotary_emb_base", 10_000.0)?;
    let rotation = Arc::new(Rotation::new(&frequencies(base, heads.head_dim), max_tokens));
    let types = "embeddings.token_type_embeddings.weight";
    let types = match weights.shape(types) {
        Some(shape) => Some(weights.tensor(types, &[shape.first().copied().unwrap_or(1).max(1), n])?),
        None => None,
    };
    let embeddings = Embeddings {
        words: weights.tensor("embeddings.word_embeddings.weight", &[n_vocab, n])?,
        positions: None,
        types,
        norm: Some(layer_norm(weights, "emb_ln", n, epsilon)?),
        n_embd: n,
    };
    let layer = |idx: usize| {
        let name = |part: &str| format!("encoder.layers.{idx}.{part}");
        let up = [name("mlp.fc12"), name("mlp.fc11")];
        Ok(Layer {
            attention_norm: Some(layer_norm(weights, &name("norm1"), n, epsilon)?),
            qkv: Linear::load(weights, &name("attn.Wqkv"), [n, heads.n_qkv()], Bias::IfThere, products)?,
            head_norms: None,
            rotation: Some(Arc::clone(&rotation)),
            sight: Sight::Whole,
            out: Linear::load(weights, &name("attn.out_proj"), [n, n], Bias::IfThere, products)?,
            feed_forward_norm: layer_norm(weights, &name("norm2"), n, epsilon)?,
            up: Linear::fused(weights, &[(&up[0], n_inner), (&up[1], n_inner)], n, Bias::IfThere, products)?,
            down: Linear::load(weights, &name("mlp.fc2"), [n_inner, n], Bias::IfThere, products)?,
        })
    };
    let n_layers = config.size(&["n_layer", "num_hidden_layers"])?;
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect::<Result<_, EngineError>>()?;
    let activation = match config.text("activation_function") {
        Some("geglu") => Activation::Gelu,
        _ => config.activation("activation_function", Activation::Silu)?,
    };
    let shape = shape(heads, NormOrder::After, activation);
    let encoder = Encoder { shape, embeddings, layers, final_norm: None };
    Ok(Model { encoder, max_tokens, name: "nomic-bert" })
}

/// ModernBERT (arXiv:2412.13663): pre-norm, GeGLU, most layers see their neighbourhood only.
pub(super) fn modernbert(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    weights.find_prefix(&["", "model."], "embeddings.tok_embeddings.weight")?;
    let n = config.size(&["hidden_size"])?;
    let heads = heads(config, n, &["num_attention_heads"])?;
    let n_inner = config.size(&["intermediate_size"])?;
    let epsilon = config.number("norm_eps", 1e-5)?;
    let max_tokens = most_tokens(config, &["max_position_embeddings"])?;
    let every = config.optional_size(&["global_attn_every_n_layers"])?.unwrap_or(3);
    let reach = config.optional_size(&["local_attention"])?.unwrap_or(128) / 2;
    let rotation = |theta: f64| Arc::new(Rotation::new(&frequencies(theta, heads.head_dim), max_tokens));
    let [whole_theta, near_theta] = modernbert_thetas(config)?;
    let (whole, near) = (rotation(whole_theta), rotation(near_theta));
    let embeddings = Embeddings {
        words: weights.tensor("embeddings.tok_embeddings.weight", &[config.size(&["vocab_size"])?, n])?,
        positions: None,
        types: None,
        norm: Some(layer_norm(weights, "embeddings.norm", n, epsilon)?),
        n_embd: n,
    };
    let layer = |idx: usize| {
        let name = |part: &str| format!("layers.{idx}.{part}");
        let is_whole = match config.value("layer_types")[idx].as_str() {
            Some(kind) => kind == "full_attention",
            None => idx.is_multiple_of(every),
        };
        let norm = name("attn_norm");
        let has_norm = weights.has(&format!("{norm}.weight"));
        Ok(Layer {
            // The first layer's input has just been normalised.
            attention_norm: has_norm.then(|| layer_norm(weights, &norm, n, epsilon)).transpose()?,
            qkv: Linear::load(weights, &name("attn.Wqkv"), [n, heads.n_qkv()], Bias::IfThere, products)?,
            head_norms: None,
            rotation: Some(Arc::clone(if is_whole { &whole } else { &near })),
            sight: if is_whole { Sight::Whole } else { Sight::Near(reach) },
            out: Linear::load(weights, &name("attn.Wo"), [n, n], Bias::IfThere, products)?,
            feed_forward_norm: layer_norm(weights, &name("mlp_norm"), n, epsilon)?,
            up: Linear::load(weights, &name("mlp.Wi"), [n, 2 * n_inner], Bias::IfThere, products)?,
            down: Linear::load(weights, &name("mlp.Wo"), [n_inner, n], Bias::IfThere, products)?,
        })
    };
    let n_layers = config.size(&["num_hidden_layers"])?;
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect::<Result<_, EngineError>>()?;
    let final_norm = Some(layer_norm(weights, "final_norm", n, epsilon)?);
    let activation = config.activation("hidden_activation", Activation::Gelu)?;
    let shape = shape(heads, NormOrder::Before, activation);
    let encoder = Encoder { shape, embeddings, layers, final_norm };
    Ok(Model { encoder, max_tokens, name: "modernbert" })
}

/// Bases of the layers that see all, and of those that see their neighbourhood: newer configurations nest them.
fn modernbert_thetas(config: &Config) -> Result<[f64; 2], EngineError> {
    let nested = |kind: &str| config.value("rope_parameters")[kind]["rope_theta"].as_f64();
    let whole = config.number("global_rope_theta", 160_000.0)?;
    let near = match config.value("local_rope_theta") {
        Value::Null => config.number("local_rope_theta", 10_000.0)?,
        _ => config.number("local_rope_theta", whole)?,
    };
    Ok([nested("full_attention").unwrap_or(whole), nested("sliding_attention").unwrap_or(near)])
}

/// GTE v1.5 ("new" of Alibaba-NLP): post-norm, rotary positions, a gate.
pub(super) fn gte(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    if config.text("position_embedding_type").unwrap_or("rope") != "rope" || config.is("logn_attention_scale") {
        return Err(config.error("only rotary positions without logn_attention_scale are supported"));
    }
    weights.find_prefix(&["", "new."], "embeddings.word_embeddings.weight")?;
    let n = config.size(&["hidden_size"])?;
    let heads = heads(config, n, &["num_attention_heads"])?;
    let n_inner = config.size(&["intermediate_size"])?;
    let epsilon = config.number("layer_norm_eps", 1e-12)?;
    let max_tokens = most_tokens(config, &["max_position_embeddings"])?;
    let rotation = Arc::new(Rotation::new(&gte_frequencies(config, heads.head_dim)?, max_tokens));
    let types = "embeddings.token_type_embeddings.weight";
    let types = match weights.shape(types).filter(|shape| shape.first().is_some_and(|&n_types| n_types > 0)) {
        Some(shape) => Some(weights.tensor(types, &[shape[0], n])?),
        None => None,
    };
    let embeddings = Embeddings {
        words: weights.tensor("embeddings.word_embeddings.weight", &[config.size(&["vocab_size"])?, n])?,
        positions: None,
        types,
        norm: Some(layer_norm(weights, "embeddings.LayerNorm", n, epsilon)?),
        n_embd: n,
    };
    let layer = |idx: usize| {
        let name = |part: &str| format!("encoder.layer.{idx}.{part}");
        // The product gives up before gate; the forward pass wants them the other way round.
        let mut up = weights.tensor(&name("mlp.up_gate_proj.weight"), &[2 * n_inner, n])?;
        up.rotate_left(n_inner * n);
        Ok(Layer {
            attention_norm: Some(layer_norm(weights, &name("attn_ln"), n, epsilon)?),
            qkv: Linear::load(weights, &name("attention.qkv_proj"), [n, heads.n_qkv()], Bias::IfThere, products)?,
            head_norms: None,
            rotation: Some(Arc::clone(&rotation)),
            sight: Sight::Whole,
            out: Linear::load(weights, &name("attention.o_proj"), [n, n], Bias::IfThere, products)?,
            feed_forward_norm: layer_norm(weights, &name("mlp_ln"), n, epsilon)?,
            up: Linear::new(up, None, n, products),
            down: Linear::load(weights, &name("mlp.down_proj"), [n_inner, n], Bias::IfThere, products)?,
        })
    };
    let n_layers = config.size(&["num_hidden_layers"])?;
    let layers: Vec<Layer> = (0..n_layers).map(layer).collect::<Result<_, EngineError>>()?;
    let shape = shape(heads, NormOrder::After, config.activation("hidden_act", Activation::Gelu)?);
    let encoder = Encoder { shape, embeddings, layers, final_norm: None };
    Ok(Model { encoder, max_tokens, name: "gte" })
}

/// GTE's "ntk" scaling: the base is multiplied, and all frequencies divided, so that the lowest reach further.
fn gte_frequencies(config: &Config, n_dims: usize) -> Result<Vec<f64>, EngineError> {
    let theta = theta(config, "rope_theta", 10_000.0)?;
    let scaling = config.value("rope_scaling");
    match scaling["type"].as_str() {
        None => Ok(frequencies(theta, n_dims)),
        Some("ntk") => {
            let factor = scaling["factor"].as_f64().filter(|factor| *factor >= 1.0);
            let factor = factor.ok_or_else(|| config.error("rope_scaling.factor should be 1 or more"))?;
            let shrink = factor.powf(2.0 / n_dims as f64);
            Ok(frequencies(theta * factor, n_dims).into_iter().map(|frequency| frequency / shrink).collect())
        }
        Some(other) => Err(config.error(format!("rope_scaling.type {other:?} is not supported; ntk is"))),
    }
}

/// Qwen3 (arXiv:2505.09388) as an embedding model (arXiv:2506.05176): a language model without its output.
pub(super) fn qwen3(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    let kinds = config.value("layer_types").as_array().into_iter().flatten();
    let is_windowed = kinds.into_iter().any(|kind| kind.as_str() == Some("sliding_attention"));
    if config.is("use_sliding_window") || is_windowed {
        return Err(config.error("use_sliding_window (layers that see only their neighbourhood) is not supported"));
    }
    weights.find_prefix(&["", "model."], "embed_tokens.weight")?;
    let n = config.size(&["hidden_size"])?;
    let n_heads = config.size(&["num_attention_heads"])?;
    let n_kv_heads = config.optional_size(&["num_key_value_heads"])?.unwrap_or(n_heads);
    let head_dim = config.optional_size(&["head_dim"])?.unwrap_or(n / n_heads);
    if !n_heads.is_multiple_of(n_kv_heads) || !head_dim.is_multiple_of(2) {
        return Err(config.error("num_attention_heads, num_key_value_heads and head_dim do not fit together"));
    }
    let heads = Heads { n_heads, n_kv_heads, head_dim };
    let n_inner = config.size(&["intermediate_size"])?;
    let epsilon = config.number("rms_norm_eps", 1e-6)? as f32;
    let max_tokens = most_tokens(config, &["max_position_embeddings"])?;
    let theta = theta(config, "rope_theta", 1_000_000.0)?;
    let rotation = Arc::new(Rotation::new(&frequencies(theta, head_dim), max_tokens));
    let words = weights.tensor("embed_tokens.weight", &[config.size(&["vocab_size"])?, n])?;
    let embeddings = Embeddings { words, positions: None, types: None, norm: None, n_embd: n };
    let rms = |weights: &mut Weights, name: &str, n: usize| -> Result<Norm, EngineError> {
        Ok(Norm::Rms { weight: weights.tensor(&format!("{name}.weight"), &[n])?, epsilon })
    };
    let mut layer = |idx: usize| {
        let name = |part: &str| format!("layers.{idx}.{part}");
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|part| name(&format!("self_attn.{part}")));
        let n_kv = n_kv_heads * head_dim;
        let parts = [(qkv[0].as_str(), heads.n_out()), (qkv[1].as_str(), n_kv), (qkv[2].as_str(), n_kv)];
        let up = [name("mlp.gate_proj"), name("mlp.up_proj")];
        Ok(Layer {
            attention_norm: Some(rms(weights, &name("input_layernorm"), n)?),
            qkv: Linear::fused(weights, &parts, n, Bias::IfThere, products)?,
            head_norms: Some(HeadNorms {
                queries: rms(weights, &name("self_attn.q_norm"), head_dim)?,
                keys: rms(weights, &name("self_attn.k_norm"), head_dim)?,
            }),
            rotation: Some(Arc::clone(&rotation)),
            sight: Sight::Causal,
            out: Linear::load(weights, &name("self_attn.o_proj"), [heads.n_out(), n], Bias::IfThere, products)?,
            feed_forward_norm: rms(weights, &name("post_attention_layernorm"), n)?,
            up: Linear::fused(weights, &[(&up[0], n_inner), (&up[1], n_inner)], n, Bias::IfThere, products)?,
            down: Linear::load(weights, &name("mlp.down_proj"), [n_inner, n], Bias::IfThere, products)?,
        })
    };
    let n_layers = config.size(&["num_hidden_layers"])?;
    let layers: Vec<Layer> = (0..n_layers).map(&mut layer).collect::<Result<_, EngineError>>()?;
    let final_norm = Some(rms(weights, "norm", n)?);
    let shape = shape(heads, NormOrder::Before, config.activation("hidden_act", Activation::Silu)?);
    let encoder = Encoder { shape, embeddings, layers, final_norm };
    Ok(Model { encoder, max_tokens, name: "qwen3" })
}
