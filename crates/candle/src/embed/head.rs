//! From a sequence's hidden states to its vector, or to its score.

use std::path::Path;

use ingle_engine::{EngineError, Pooling};
use rten_gemm::GemmExecutor;
use serde_json::Value;

use super::config::Config;
use super::encoder::{Activation, Norm};
use super::folder::Step;
use super::linear::{Bias, Linear, Matrix, Output, Products};
use super::models::layer_norm;
use crate::weights::{Weights, load_error, read_json};

/// One vector of the hidden states of a sequence, `[n_tokens, n]`.
pub(super) fn pool(pooling: Pooling, hidden: &[f32], n: usize) -> Vec<f32> {
    let rows = || hidden.chunks_exact(n);
    let n_tokens = hidden.len() / n;
    let weighted = |weight: &dyn Fn(usize) -> f64, total: f64| -> Vec<f32> {
        let mut sums = vec![0f64; n];
        for (position, row) in rows().enumerate() {
            let weight = weight(position);
            sums.iter_mut().zip(row).for_each(|(sum, number)| *sum += weight * f64::from(*number));
        }
        sums.into_iter().map(|sum| (sum / total) as f32).collect()
    };
    match pooling {
        Pooling::Cls => hidden[..n].to_vec(),
        Pooling::Last => hidden[hidden.len() - n..].to_vec(),
        Pooling::Mean => weighted(&|_| 1.0, n_tokens as f64),
        Pooling::MeanSqrtLen => weighted(&|_| 1.0, (n_tokens as f64).sqrt()),
        Pooling::WeightedMean => weighted(&|position| (position + 1) as f64, (n_tokens * (n_tokens + 1) / 2) as f64),
        Pooling::Max => rows().fold(vec![f32::NEG_INFINITY; n], |peaks, row| {
            peaks.into_iter().zip(row).map(|(peak, number)| peak.max(*number)).collect()
        }),
    }
}

/// What happens to a vector after pooling.
#[derive(Debug)]
pub(super) enum Transform {
    Dense { layer: Linear, activation: Dense },
    LayerNorm(Norm),
    Normalize,
}

/// What a dense layer does to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dense {
    Nothing,
    Tanh,
    Unit(Activation),
}

impl Dense {
    fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Nothing => {}
            Self::Tanh => numbers.iter_mut().for_each(|number| *number = number.tanh()),
            Self::Unit(activation) => activation.apply(numbers),
        }
    }

    /// By the name of a torch class.
    fn parse(class: &str) -> Option<Self> {
        match class.rsplit('.').next().unwrap_or_default() {
            "Identity" => Some(Self::Nothing),
            "Tanh" => Some(Self::Tanh),
            "GELU" => Some(Self::Unit(Activation::Gelu)),
            "ReLU" => Some(Self::Unit(Activation::Relu)),
            "SiLU" => Some(Self::Unit(Activation::Silu)),
            _ => None,
        }
    }
}

/// Loads the steps behind pooling, for an encoder with these products; `n` are the numbers of the pooled vector. Gives the
/// numbers of the last vector too.
pub(super) fn load_steps(
    steps: &[Step],
    mut n: usize,
    products: Products,
) -> Result<(Vec<Transform>, usize), EngineError> {
    let mut transforms = Vec::new();
    for step in steps {
        transforms.push(match step {
            Step::Normalize => Transform::Normalize,
            Step::LayerNorm(folder) => {
                let mut weights = Weights::open(folder)?;
                let (weight, bias) = (weights.tensor("norm.weight", &[n])?, weights.tensor("norm.bias", &[n])?);
                Transform::LayerNorm(Norm::Layer { weight, bias, epsilon: 1e-5 })
            }
            Step::Dense(folder) => {
                let (transform, n_out) = dense(folder, n, products)?;
                n = n_out;
                transform
            }
        });
    }
    Ok((transforms, n))
}

fn dense(folder: &Path, n: usize, products: Products) -> Result<(Transform, usize), EngineError> {
    let path = folder.join("config.json");
    let values: Value = read_json(&path)?;
    let size = |key: &str| {
        let size = values[key].as_u64().filter(|size| (1..1 << 20).contains(size));
        size.map(|size| size as usize).ok_or_else(|| load_error(&path, format!("{key} is missing or out of range")))
    };
    refuse_other_ways(&path, &values)?;
    let (n_in, n_out) = (size("in_features")?, size("out_features")?);
    if n_in != n {
        return Err(load_error(&path, format!("in_features is {n_in} and the vector in front of it has {n} numbers")));
    }
    let class = values["activation_function"].as_str().unwrap_or("torch.nn.modules.activation.Tanh");
    let activation =
        Dense::parse(class).ok_or_else(|| load_error(&path, format!("activation_function {class:?} is not known")))?;
    let bias = if values["bias"].as_bool() == Some(false) { Bias::IfThere } else { Bias::Needed };
    let layer = Linear::load(&mut Weights::open(folder)?, "linear", [n_in, n_out], bias, products.of_head())?;
    Ok((Transform::Dense { layer, activation }, n_out))
}

/// Refuses dense layers that do more than a layer on the pooled vector does.
fn refuse_other_ways(path: &Path, values: &Value) -> Result<(), EngineError> {
    if values["use_residual"].as_bool() == Some(true) {
        return Err(load_error(path, "use_residual (a dense layer beside a residual) is not supported"));
    }
    for key in ["module_input_name", "module_output_name"] {
        if let Some(name) = values[key].as_str().filter(|name| *name != "sentence_embedding") {
            let reason =
                format!("{key} is {name:?}; only layers on the pooled vector, sentence_embedding, are supported");
            return Err(load_error(path, reason));
        }
    }
    Ok(())
}

/// Applies the steps to one vector.
pub(super) fn transform(transforms: &[Transform], gemm: &GemmExecutor, mut vector: Vec<f32>) -> Vec<f32> {
    for transform in transforms {
        match transform {
            Transform::LayerNorm(norm) => norm.apply(&mut vector),
            Transform::Normalize => normalize(&mut vector),
            Transform::Dense { layer, activation } => {
                let mut out = vec![0.0; layer.n_out];
                layer.apply(gemm, Matrix::of_rows(&vector, layer.n_in), Output::Replace, &mut out);
                activation.apply(&mut out);
                vector = out;
            }
        }
    }
    vector
}

/// Scales to length 1; a vector of zeros stays.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    // The library's own guard against a division by zero.
    let scale = 1.0 / length.max(1e-12);
    vector.iter_mut().for_each(|number| *number = (f64::from(*number) * scale) as f32);
}

/// The classifier of a cross-encoder: layers on one vector of the sequence.
#[derive(Debug)]
pub(super) struct Scorer {
    pub(super) pooling: Pooling,
    /// Each with what is done to its result.
    pub(super) layers: Vec<(Linear, Dense, Option<Norm>)>,
    pub(super) last: Linear,
    /// The score is between 0 and 1.
    pub(super) is_logistic: bool,
}

impl Scorer {
    /// Loads the classifier of the architecture that `config` names, for an encoder with these products.
    pub(super) fn load(
        config: &Config,
        weights: &mut Weights,
        n: usize,
        products: Products,
    ) -> Result<Self, EngineError> {
        if config.n_labels() != 1 {
            let reason = format!("it has {} labels; a reranker has one", config.n_labels());
            return Err(config.error(reason));
        }
        weights.clear_prefix();
        let scorer = |layers, last, pooling| Ok(Self { pooling, layers, last, is_logistic: is_logistic(config)? });
        let tanh = |layer| (layer, Dense::Tanh, None);
        let products = products.of_head();
        let mut load = |name: &str, n_out: usize| Linear::load(weights, name, [n, n_out], Bias::IfThere, products);
        match config.model_type() {
            "bert" | "new" | "gte" | "nomic_bert" => {
                let pooler = ["bert.pooler.dense", "new.pooler.dense", "pooler.dense"];
                let name = pooler.iter().find(|name| load(name, n).is_ok()).copied().unwrap_or(pooler[0]);
                scorer(vec![tanh(load(name, n)?)], load("classifier", 1)?, Pooling::Cls)
            }
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" => {
                scorer(vec![tanh(load("classifier.dense", n)?)], load("classifier.out_proj", 1)?, Pooling::Cls)
            }
            "distilbert" => {
                let pre = (load("pre_classifier", n)?, Dense::Unit(Activation::Relu), None);
                scorer(vec![pre], load("classifier", 1)?, Pooling::Cls)
            }
            "modernbert" => {
                let dense = load("head.dense", n)?;
                let last = load("classifier", 1)?;
                let activation = config.activation("classifier_activation", Activation::Gelu)?;
                let norm = layer_norm(weights, "head.norm", n, config.number("norm_eps", 1e-5)?)?;
                let pooling = match config.text("classifier_pooling") {
                    Some("mean") => Pooling::Mean,
                    _ => Pooling::Cls,
                };
                scorer(vec![(dense, Dense::Unit(activation), Some(norm))], last, pooling)
            }
            other => Err(config.error(format!("the classifier of model_type {other:?} is not known"))),
        }
    }

    /// The score of one sequence, from its hidden states, `[n_tokens, n]`.
    pub(super) fn score(&self, gemm: &GemmExecutor, hidden: &[f32], n: usize) -> f32 {
        let mut vector = pool(self.pooling, hidden, n);
        for (layer, activation, norm) in &self.layers {
            let mut out = vec![0.0; layer.n_out];
            layer.apply(gemm, Matrix::of_rows(&vector, layer.n_in), Output::Replace, &mut out);
            activation.apply(&mut out);
            if let Some(norm) = norm {
                norm.apply(&mut out);
            }
            vector = out;
        }
        let mut score = [0.0];
        self.last.apply(gemm, Matrix::of_rows(&vector, self.last.n_in), Output::Replace, &mut score);
        if self.is_logistic { (1.0 / (1.0 + f64::from(-score[0]).exp())) as f32 } else { score[0] }
    }
}

/// What the library does to the score, by the class that is named in its own file or, as older versions have it, in the
/// model's configuration; without one it is the logistic function.
fn is_logistic(config: &Config) -> Result<bool, EngineError> {
    let path = config.folder().join("config_sentence_transformers.json");
    let own: Value = if path.is_file() { read_json(&path)? } else { Value::Null };
    let newer = own["activation_fn"].as_str().or(config.value("sentence_transformers")["activation_fn"].as_str());
    let class = newer.or(config.text("sbert_ce_default_activation_function"));
    match class.map(|class| class.rsplit('.').next().unwrap_or_default()) {
        None | Some("Sigmoid") => Ok(true),
        Some("Identity") => Ok(false),
        Some(other) => Err(config.error(format!("the activation function {other:?} of scores is not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pooling_is_what_its_name_says() {
        let hidden = [1.0, -2.0, 3.0, 4.0, 5.0, 0.0];
        for (pooling, expected) in [
            (Pooling::Cls, [1.0, -2.0]),
            (Pooling::Last, [5.0, 0.0]),
            (Pooling::Mean, [3.0, 2.0 / 3.0]),
            (Pooling::Max, [5.0, 4.0]),
            (Pooling::WeightedMean, [22.0 / 6.0, 1.0]),
            (Pooling::MeanSqrtLen, [9.0 / 3f32.sqrt(), 2.0 / 3f32.sqrt()]),
        ] {
            let pooled = pool(pooling, &hidden, 2);
            assert!(pooled.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{pooling:?}: {pooled:?}");
        }
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        normalize(&mut [0.0; 3]);
    }
}
