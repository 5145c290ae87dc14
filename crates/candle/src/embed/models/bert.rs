//! BERT (arXiv:1810.04805) and what is built like it: post-norm layers with learnt positions.

use ingle_engine::EngineError;

use super::{Model, heads, layer_norm};
use crate::embed::attention::{Buckets, DistanceBias, Heads, Sight, alibi_slopes};
use crate::embed::config::Config;
use crate::embed::encoder::{Activation, Embeddings, Encoder, FeedForward, Layer, NormOrder, Shape};
use crate::embed::linear::{Bias, Linear, Products};
use crate::weights::Weights;

/// Names of a layer's tensors, behind the layer's own prefix.
struct Names {
    layers: &'static str,
    qkv: [&'static str; 3],
    out: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

const MPNET: Names = Names {
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT
};

const JINA: Names = Names { up: "mlp.gated_layers", down: "mlp.wo", norm: "mlp.layernorm", ..BERT };

/// Sizes of a model of this family.
struct Sizes {
    n_embd: usize,
    n_layers: usize,
    n_inner: usize,
    heads: Heads,
    epsilon: f64,
    feed_forward: FeedForward,
}

impl Sizes {
    fn read(config: &Config) -> Result<Self, EngineError> {
        let n_embd = config.size(&["hidden_size", "dim"])?;
        Ok(Self {
            n_embd,
            n_layers: config.size(&["num_hidden_layers", "n_layers"])?,
            n_inner: config.size(&["intermediate_size", "hidden_dim"])?,
            heads: heads(config, n_embd, &["num_attention_heads", "n_heads"])?,
            epsilon: config.number("layer_norm_eps", 1e-12)?,
            feed_forward: FeedForward::Plain,
        })
    }
}

fn layers(weights: &mut Weights, sizes: &Sizes, names: &Names, products: Products) -> Result<Vec<Layer>, EngineError> {
    let n = sizes.n_embd;
    let n_up = if sizes.feed_forward == FeedForward::Gated { 2 * sizes.n_inner } else { sizes.n_inner };
    let layer = |idx: usize| {
        let name = |part: &str| format!("{}.{idx}.{part}", names.layers);
        let qkv = names.qkv.map(name);
        let parts = [(qkv[0].as_str(), n), (qkv[1].as_str(), n), (qkv[2].as_str(), n)];
        Ok(Layer {
            attention_norm: Some(layer_norm(weights, &name(names.attention_norm), n, sizes.epsilon)?),
            qkv: Linear::fused(weights, &parts, n, Bias::IfThere, products)?,
            head_norms: None,
            rotation: None,
            sight: Sight::Whole,
            out: Linear::load(weights, &name(names.out), [n, n], Bias::IfThere, products)?,
            feed_forward_norm: layer_norm(weights, &name(names.norm), n, sizes.epsilon)?,
            up: Linear::load(weights, &name(names.up), [n, n_up], Bias::IfThere, products)?,
            down: Linear::load(weights, &name(names.down), [sizes.n_inner, n], Bias::IfThere, products)?,
        })
    };
    (0..sizes.n_layers).map(layer).collect()
}

/// The tables of embeddings; `first_position` is the row of position 0.
fn embeddings(
    config: &Config,
    weights: &mut Weights,
    sizes: &Sizes,
    first_position: Option<usize>,
) -> Result<(Embeddings, usize), EngineError> {
    let n = sizes.n_embd;
    let n_vocab = config.size(&["vocab_size"])?;
    let n_positions = config.size(&["max_position_embeddings"])?;
    let words = weights.tensor("embeddings.word_embeddings.weight", &[n_vocab, n])?;
    let positions = match first_position {
        Some(first) if first >= n_positions => {
            return Err(config.error(format!("pad_token_id leaves no room in {n_positions} positions")));
        }
        Some(first) => Some((weights.tensor("embeddings.position_embeddings.weight", &[n_positions, n])?, first)),
        None => None,
    };
    let types = "embeddings.token_type_embeddings.weight";
    let types = match weights.shape(types) {
        Some(shape) => Some(weights.tensor(types, &[shape.first().copied().unwrap_or(1).max(1), n])?),
        None => None,
    };
    let norm = Some(layer_norm(weights, "embeddings.LayerNorm", n, sizes.epsilon)?);
    let max_tokens = n_positions - first_position.unwrap_or(0);
    Ok((Embeddings { words, positions, types, norm, n_embd: n }, max_tokens))
}

fn model(
    name: &'static str,
    (embeddings, max_tokens): (Embeddings, usize),
    layers: Vec<Layer>,
    sizes: &Sizes,
    (activation, distance_bias): (Activation, DistanceBias),
) -> Model {
    let shape = Shape {
        heads: sizes.heads,
        order: NormOrder::After,
        feed_forward: sizes.feed_forward,
        activation,
        distance_bias,
    };
    let encoder = Encoder { shape, embeddings, layers, final_norm: None };
    Model { encoder, max_tokens, name }
}

fn refuse_relative_positions(config: &Config) -> Result<(), EngineError> {
    match config.text("position_embedding_type") {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(config.error(format!("position_embedding_type {other:?} is not supported for this model"))),
    }
}

/// BERT itself.
pub(super) fn bert(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    refuse_relative_positions(config)?;
    weights.find_prefix(&["", "bert."], "embeddings.word_embeddings.weight")?;
    let sizes = Sizes::read(config)?;
    let embeddings = embeddings(config, weights, &sizes, Some(0))?;
    let activation = config.activation("hidden_act", Activation::Gelu)?;
    let layers = layers(weights, &sizes, &BERT, products)?;
    Ok(model("bert", embeddings, layers, &sizes, (activation, DistanceBias::None)))
}

/// RoBERTa (arXiv:1907.11692), XLM-R and CamemBERT: positions are counted from behind the padding token's id.
pub(super) fn roberta(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    refuse_relative_positions(config)?;
    weights.find_prefix(&["", "roberta."], "embeddings.word_embeddings.weight")?;
    let sizes = Sizes::read(config)?;
    let first = config.value("pad_token_id").as_u64().unwrap_or(1) as usize + 1;
    let embeddings = embeddings(config, weights, &sizes, Some(first))?;
    let activation = config.activation("hidden_act", Activation::Gelu)?;
    let layers = layers(weights, &sizes, &BERT, products)?;
    Ok(model("roberta", embeddings, layers, &sizes, (activation, DistanceBias::None)))
}

/// DistilBERT (arXiv:1910.01108): other names, no token types.
pub(super) fn distilbert(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    weights.find_prefix(&["", "distilbert."], "embeddings.word_embeddings.weight")?;
    let sizes = Sizes::read(config)?;
    let embeddings = embeddings(config, weights, &sizes, Some(0))?;
    let activation = config.activation("activation", Activation::Gelu)?;
    let layers = layers(weights, &sizes, &DISTILBERT, products)?;
    Ok(model("distilbert", embeddings, layers, &sizes, (activation, DistanceBias::None)))
}

/// MPNet (arXiv:2004.09297): RoBERTa's positions, and a learnt bias by distance.
pub(super) fn mpnet(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    /// No key of the configuration says it.
    const MAX_DISTANCE: usize = 128;
    weights.find_prefix(&["", "mpnet."], "embeddings.word_embeddings.weight")?;
    let sizes = Sizes::read(config)?;
    let first = config.value("pad_token_id").as_u64().unwrap_or(1) as usize + 1;
    let embeddings = embeddings(config, weights, &sizes, Some(first))?;
    let activation = config.activation("hidden_act", Activation::Gelu)?;
    let n_buckets = config.optional_size(&["relative_attention_num_buckets"])?.unwrap_or(32);
    if n_buckets < 4 {
        return Err(config.error("relative_attention_num_buckets should be 4 or more"));
    }
    let n_heads = sizes.heads.n_heads;
    let numbers = weights.tensor("encoder.relative_attention_bias.weight", &[n_buckets, n_heads])?;
    let bias = DistanceBias::Buckets(Buckets { numbers, n_buckets, n_heads, max_distance: MAX_DISTANCE });
    let layers = layers(weights, &sizes, &MPNET, products)?;
    Ok(model("mpnet", embeddings, layers, &sizes, (activation, bias)))
}

/// Jina BERT v2 (arXiv:2310.19923): ALiBi in place of positions, and a gate.
pub(super) fn jina(config: &Config, weights: &mut Weights, products: Products) -> Result<Model, EngineError> {
    weights.find_prefix(&["", "bert."], "embeddings.word_embeddings.weight")?;
    let sizes = Sizes { feed_forward: FeedForward::Gated, ..Sizes::read(config)? };
    let activation = match config.text("feed_forward_type") {
        Some("geglu") | None => Activation::Gelu,
        Some("reglu") => Activation::Relu,
        Some(other) => return Err(config.error(format!("feed_forward_type {other:?} is not supported; geglu is"))),
    };
    if weights.has("encoder.layer.0.attention.self.layer_norm_q.weight") {
        return Err(config.error("this variant of Jina BERT normalises queries and keys, which is not supported"));
    }
    let embeddings = embeddings(config, weights, &sizes, None)?;
    let bias = DistanceBias::Slopes(alibi_slopes(sizes.heads.n_heads));
    let layers = layers(weights, &sizes, &JINA, products)?;
    Ok(model("jina-bert", embeddings, layers, &sizes, (activation, bias)))
}
