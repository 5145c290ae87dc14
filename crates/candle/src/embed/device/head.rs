//! From pooled vectors to those that are given, or to scores.

use candle_core::{DType, Device, Result, Tensor};
use ingle_engine::Pooling;

use crate::embed::head::{Dense, Scorer, Transform};

use super::layers::{Linear, Norm, activate};

fn apply_dense(dense: Dense, numbers: Tensor) -> Result<Tensor> {
    match dense {
        Dense::Nothing => Ok(numbers),
        Dense::Tanh => numbers.tanh(),
        Dense::Unit(activation) => activate(activation, &numbers),
    }
}

enum Step {
    Dense { layer: Linear, activation: Dense },
    Norm(Norm),
    Normalize,
}

/// What happens to vectors after pooling.
pub(in crate::embed) struct Steps(Vec<Step>);

impl Steps {
    /// Takes the steps over.
    pub(in crate::embed) fn new(transforms: Vec<Transform>, device: &Device) -> Result<Self> {
        let step = |transform| {
            Ok(match transform {
                Transform::Dense { layer, activation } => {
                    Step::Dense { layer: Linear::new(layer, device, DType::F32)?, activation }
                }
                Transform::LayerNorm(norm) => Step::Norm(Norm::new(norm, device)?),
                Transform::Normalize => Step::Normalize,
            })
        };
        transforms.into_iter().map(step).collect::<Result<_>>().map(Self)
    }

    /// `[n_sequences, n]` to `[n_sequences, n_embd]`.
    pub(in crate::embed) fn apply(&self, mut vectors: Tensor) -> Result<Tensor> {
        for step in &self.0 {
            vectors = match step {
                Step::Dense { layer, activation } => apply_dense(*activation, layer.apply(&vectors)?)?,
                Step::Norm(norm) => norm.apply(&vectors)?,
                Step::Normalize => {
                    let lengths = vectors.sqr()?.sum_keepdim(1)?.sqrt()?;
                    // The library's own guard against a division by zero.
                    vectors.broadcast_div(&lengths.maximum(1e-12)?)?
                }
            };
        }
        Ok(vectors)
    }
}

/// The classifier of a cross-encoder.
pub(in crate::embed) struct Classifier {
    pub(super) pooling: Pooling,
    layers: Vec<(Linear, Dense, Option<Norm>)>,
    last: Linear,
    is_logistic: bool,
}

impl Classifier {
    /// Takes a classifier over.
    pub(in crate::embed) fn new(scorer: Scorer, device: &Device) -> Result<Self> {
        let linear = |layer| Linear::new(layer, device, DType::F32);
        let layers = scorer.layers.into_iter().map(|(layer, activation, norm)| {
            Ok((linear(layer)?, activation, norm.map(|norm| Norm::new(norm, device)).transpose()?))
        });
        Ok(Self {
            pooling: scorer.pooling,
            layers: layers.collect::<Result<_>>()?,
            last: linear(scorer.last)?,
            is_logistic: scorer.is_logistic,
        })
    }

    /// Pooled vectors, `[n_sequences, n]`, to a score for each.
    pub(super) fn scores(&self, pooled: &Tensor) -> Result<Vec<f32>> {
        let mut vectors = pooled.clone();
        for (layer, activation, norm) in &self.layers {
            vectors = apply_dense(*activation, layer.apply(&vectors)?)?;
            if let Some(norm) = norm {
                vectors = norm.apply(&vectors)?;
            }
        }
        let scores = self.last.apply(&vectors)?.squeeze(1)?.to_vec1::<f32>()?;
        let logistic = |score: f32| (1.0 / (1.0 + f64::from(-score).exp())) as f32;
        Ok(if self.is_logistic { scores.into_iter().map(logistic).collect() } else { scores })
    }
}
