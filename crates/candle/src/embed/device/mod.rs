//! The forward pass on another device than the CPU: the transformer of `embed::encoder` in candle's operations.
//!
//! Sequences of a step lie one behind the other, the longest first, so that products see no filling. For attention,
//! neighbours of about one length are filled up to one and looked at together: a GPU works off few large operations
//! faster than many small ones. Weights, products and what goes into them are 16 bits wide where the options ask for it;
//! hidden states, norms and attention are always f32. Nothing here knows CUDA: the tests run it on the CPU.

mod attention;
mod head;
mod layers;
mod pack;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use ingle_engine::{BatchModel, EngineError, Interrupt, Pooling, Precision, Sequence};

use super::LEAST_STEP_TOKENS;
use super::attention::Rotation;
use super::encoder::{self, FeedForward, NormOrder, Shape};
use attention::Views;
pub(super) use head::{Classifier, Steps};
use layers::{Linear, Norm, activate, n_bytes};
use pack::{Limits, Pack};

use crate::device;

/// Multiplications of a step at most: about a second on a GPU of modest size, so that a new call does not wait long.
const STEP_WORK: u64 = 4_000_000_000_000;

/// Tokens of a step at most: enough that the products are at their best.
const STEP_TOKENS: usize = 8192;

/// Multiplications after which a step waits for the device, to see whether anybody still waits for it: operations are
/// only handed over until then.
const PART_WORK: u64 = 200_000_000_000;

/// Rows of the width of a hidden state that a step keeps for a token: hidden states and their norms, queries, keys and
/// values, turned and by heads, and what attention gives.
const ROWS_PER_TOKEN: u64 = 16;

/// Rows of the inner width: what the first product gives, what the unit makes of it, and their product.
const INNER_ROWS_PER_TOKEN: u64 = 4;

/// Scores of attention that are held at once: as they come, with what is added, as weights.
const SCORES_AT_ONCE: u64 = 3;

/// Bytes that a token of a step takes, for these widths of hidden and inner states.
fn bytes_per_token([n_embd, n_inner]: [u64; 2]) -> u64 {
    (ROWS_PER_TOKEN * n_embd + INNER_ROWS_PER_TOKEN * n_inner) * size_of::<f32>() as u64
}

/// Bytes that a step takes, or a text that is longer, for these widths of hidden and inner states.
pub(super) fn compute_bytes(sizes: [u64; 2], step_tokens: Option<usize>, longest: usize) -> u64 {
    let n_tokens = step_tokens.unwrap_or(STEP_TOKENS).max(longest) as u64;
    n_tokens * bytes_per_token(sizes) + SCORES_AT_ONCE * (Limits::USUAL.scores * size_of::<f32>()) as u64
}

/// What products are made in.
pub(super) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Tokens of a step, of a model with so many multiplications for each, where there is memory for so many.
fn step_tokens(work_per_token: u64, room: u64) -> usize {
    // A quarter of the room: other models want to be there, too.
    let n_tokens = (STEP_WORK / work_per_token.max(1)).min(room / 4);
    usize::try_from(n_tokens).unwrap_or(usize::MAX).clamp(LEAST_STEP_TOKENS, STEP_TOKENS)
}

/// From token to the first hidden state.
#[derive(Debug)]
struct Embeddings {
    /// `[n_vocab, n_embd]`
    words: Tensor,
    /// `[n_positions, n_embd]`, and the row of position 0.
    positions: Option<(Tensor, usize)>,
    /// `[n_types, n_embd]`
    types: Option<Tensor>,
    norm: Option<Norm>,
}

impl Embeddings {
    fn new(embeddings: encoder::Embeddings, device: &Device) -> Result<Self> {
        let n = embeddings.n_embd;
        let table = |numbers: Vec<f32>| {
            let n_rows = numbers.len() / n;
            Tensor::from_vec(numbers, (n_rows, n), device)
        };
        let positions =
            embeddings.positions.map(|(numbers, first)| Ok::<_, candle_core::Error>((table(numbers)?, first)));
        Ok(Self {
            words: table(embeddings.words)?,
            positions: positions.transpose()?,
            types: embeddings.types.map(table).transpose()?,
            norm: embeddings.norm.map(|norm| Norm::new(norm, device)).transpose()?,
        })
    }

    /// `[n_tokens, n_embd]`
    fn rows(&self, sequences: &[&Sequence]) -> Result<Tensor> {
        // Beyond its end a table gives its last row, as on the CPU.
        let look_up = |table: &Tensor, idx: &dyn Fn(&Sequence, usize) -> usize| -> Result<Tensor> {
            let last = table.dim(0)? - 1;
            let of = |sequence: &&Sequence| {
                (0..sequence.tokens.len()).map(|at| idx(sequence, at).min(last) as u32).collect::<Vec<u32>>()
            };
            let rows: Vec<u32> = sequences.iter().flat_map(of).collect();
            table.index_select(&Tensor::new(rows, table.device())?, 0)
        };
        let mut rows = look_up(&self.words, &|sequence, at| sequence.tokens[at] as usize)?;
        if let Some((table, first)) = &self.positions {
            rows = (rows + look_up(table, &|_, at| first + at)?)?;
        }
        if let Some(table) = &self.types {
            rows = (rows + look_up(table, &|sequence, at| usize::from(at >= sequence.second_from))?)?;
        }
        self.norm.as_ref().map_or(Ok(rows.clone()), |norm| norm.apply(&rows))
    }

    fn n_bytes(&self) -> u64 {
        let positions = self.positions.as_ref().map(|(table, _)| table);
        [Some(&self.words), positions, self.types.as_ref()].into_iter().flatten().map(n_bytes).sum()
    }
}

/// Cosines and sines of a rotary embedding, `[n_positions, n_pairs]` each.
struct Turn {
    of: Arc<Rotation>,
    cosines: Tensor,
    sines: Tensor,
}

impl Turn {
    fn new(of: &Arc<Rotation>, device: &Device) -> Result<Self> {
        let table = |numbers: &[f32]| Tensor::from_slice(numbers, (numbers.len() / of.n_pairs, of.n_pairs), device);
        Ok(Self { of: Arc::clone(of), cosines: table(&of.cosines)?, sines: table(&of.sines)? })
    }

    /// Those of the tokens of a pack, `[n_tokens, n_pairs]` each.
    fn at(&self, positions: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.cosines.index_select(positions, 0)?, self.sines.index_select(positions, 0)?))
    }
}

/// One layer.
struct Layer {
    attention_norm: Option<Norm>,
    qkv: Linear,
    /// Of queries and of keys.
    head_norms: Option<(Norm, Norm)>,
    /// Index into the encoder's turns.
    turn: Option<usize>,
    sight: super::attention::Sight,
    out: Linear,
    feed_forward_norm: Norm,
    up: Linear,
    down: Linear,
}

/// An encoder on a device.
pub(super) struct Encoder {
    device: Device,
    shape: Shape,
    views: Views,
    embeddings: Embeddings,
    turns: Vec<Turn>,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    work_per_token: u64,
}

/// A pack on its way through the layers.
struct Passage<'a> {
    pack: Pack<'a>,
    /// `[n_tokens, n_embd]`
    hidden: Tensor,
    /// Cosines and sines of its tokens, for each turn.
    turns: Vec<(Tensor, Tensor)>,
}

impl Encoder {
    /// Takes an encoder over whose weights are plain ([`Products::Elsewhere`](super::linear::Products::Elsewhere)).
    pub(super) fn new(encoder: encoder::Encoder, device: &Device, dtype: DType) -> Result<Self> {
        let work_per_token = encoder.work_per_token();
        let encoder::Encoder { shape, embeddings, layers, final_norm } = encoder;
        let views = Views::new(layers.iter().map(|layer| layer.sight), shape.distance_bias.clone());
        let mut turns: Vec<Turn> = Vec::new();
        let mut turn_of = |rotation: &Arc<Rotation>| -> Result<usize> {
            if let Some(idx) = turns.iter().position(|turn| Arc::ptr_eq(&turn.of, rotation)) {
                return Ok(idx);
            }
            turns.push(Turn::new(rotation, device)?);
            Ok(turns.len() - 1)
        };
        let norm = |norm: encoder::Norm| Norm::new(norm, device);
        let linear = |layer| Linear::new(layer, device, dtype);
        // Each layer leaves main memory before the next one is sent.
        let layers = layers.into_iter().map(|layer| {
            let head_norms =
                layer.head_norms.map(|norms| Ok::<_, candle_core::Error>((norm(norms.queries)?, norm(norms.keys)?)));
            Ok(Layer {
                attention_norm: layer.attention_norm.map(norm).transpose()?,
                qkv: linear(layer.qkv)?,
                head_norms: head_norms.transpose()?,
                turn: layer.rotation.as_ref().map(&mut turn_of).transpose()?,
                sight: layer.sight,
                out: linear(layer.out)?,
                feed_forward_norm: norm(layer.feed_forward_norm)?,
                up: linear(layer.up)?,
                down: linear(layer.down)?,
            })
        });
        let layers: Vec<Layer> = layers.collect::<Result<_>>()?;
        let (embeddings, final_norm) = (Embeddings::new(embeddings, device)?, final_norm.map(norm).transpose()?);
        Ok(Self { device: device.clone(), shape, views, embeddings, turns, layers, final_norm, work_per_token })
    }

    /// What its weights take.
    pub(super) fn n_bytes(&self) -> u64 {
        let of =
            |layer: &Layer| [&layer.qkv, &layer.out, &layer.up, &layer.down].map(Linear::n_bytes).iter().sum::<u64>();
        let turns = self.turns.iter().map(|turn| n_bytes(&turn.cosines) + n_bytes(&turn.sines)).sum::<u64>();
        self.embeddings.n_bytes() + turns + self.layers.iter().map(of).sum::<u64>()
    }

    /// Tokens of a step, where so much memory is free; `sizes` are the widths of hidden and inner states.
    pub(super) fn step_tokens(&self, free_bytes: u64, sizes: [u64; 2]) -> usize {
        step_tokens(self.work_per_token, free_bytes / bytes_per_token(sizes).max(1))
    }

    /// Runs one token through all layers: what the device cannot do is told before anybody waits for it. What was handed
    /// over is done afterwards, so that another thread can go on: a thread of candle's has its own order of operations.
    pub(super) fn first_step(&self) -> Result<()> {
        let sequence = Sequence::single(vec![0]);
        let mut passage = self.enter(&[&sequence])?;
        for layer in &self.layers {
            passage.hidden = self.layer(layer, &passage)?;
        }
        self.leave(&passage)?;
        self.device.synchronize()
    }

    /// Runs the sequences and hands their pack and hidden states, `[n_tokens, n_embd]`, to `finish`, whose results are
    /// in the order of the pack. Gives them in that of the sequences.
    ///
    /// # Errors
    /// [`EngineError::Decode`] when the interrupt was raised, and when the device fails.
    fn run<R>(
        &self,
        batch: &[&Sequence],
        interrupt: &Interrupt<'_>,
        finish: impl FnOnce(&Pack<'_>, &Tensor) -> Result<Vec<R>>,
    ) -> std::result::Result<Vec<R>, EngineError> {
        let told = |error| EngineError::Decode { reason: device::fault(&self.device, &error) };
        let mut passage = self.enter(batch).map_err(told)?;
        let n_tokens: usize = batch.iter().map(|sequence| sequence.tokens.len()).sum();
        let work = n_tokens as u64 * (self.work_per_token / self.layers.len().max(1) as u64);
        let mut handed_over = 0;
        for layer in &self.layers {
            if handed_over >= PART_WORK {
                self.device.synchronize().map_err(told)?;
                handed_over = 0;
            }
            if interrupt.is_raised() {
                return Err(EngineError::Decode { reason: "nobody waits for it any more".into() });
            }
            passage.hidden = self.layer(layer, &passage).map_err(told)?;
            handed_over += work;
        }
        let results = self.leave(&passage).and_then(|hidden| finish(&passage.pack, &hidden));
        Ok(passage.pack.unsorted(results.map_err(told)?))
    }

    fn enter<'a>(&self, batch: &[&'a Sequence]) -> Result<Passage<'a>> {
        let pack = Pack::new(batch, self.shape.heads, &self.views, &self.device)?;
        let hidden = self.embeddings.rows(&pack.sequences)?;
        let positions = pack.sequences.iter().flat_map(|sequence| 0..sequence.tokens.len() as u32);
        let positions = Tensor::new(positions.collect::<Vec<u32>>(), &self.device)?;
        let turns = self.turns.iter().map(|turn| turn.at(&positions)).collect::<Result<_>>()?;
        Ok(Passage { pack, hidden, turns })
    }

    fn leave(&self, passage: &Passage<'_>) -> Result<Tensor> {
        match &self.final_norm {
            Some(norm) => norm.apply(&passage.hidden),
            None => Ok(passage.hidden.clone()),
        }
    }

    /// The hidden states behind a layer.
    fn layer(&self, layer: &Layer, passage: &Passage<'_>) -> Result<Tensor> {
        let hidden = &passage.hidden;
        let norm = |norm: Option<&Norm>, rows: Tensor| norm.map_or(Ok(rows.clone()), |norm| norm.apply(&rows));
        match self.shape.order {
            NormOrder::After => {
                let hidden = (hidden + self.attend(layer, hidden, passage)?)?;
                let hidden = norm(layer.attention_norm.as_ref(), hidden)?;
                let inner = self.inner(layer, &hidden)?;
                layer.feed_forward_norm.apply(&(hidden + layer.down.apply(&inner)?)?)
            }
            NormOrder::Before => {
                let normed = norm(layer.attention_norm.as_ref(), hidden.clone())?;
                let hidden = (hidden + self.attend(layer, &normed, passage)?)?;
                let inner = self.inner(layer, &layer.feed_forward_norm.apply(&hidden)?)?;
                hidden + layer.down.apply(&inner)?
            }
        }
    }

    /// What the tokens see of each other, `[n_tokens, n_embd]`.
    fn attend(&self, layer: &Layer, input: &Tensor, passage: &Passage<'_>) -> Result<Tensor> {
        let turn = layer.turn.map(|idx| &passage.turns[idx]);
        let qkv = self.place(layer, layer.qkv.apply(input)?, turn)?;
        let attend = |group| attention::attend(group, self.shape.heads, layer.sight, &qkv);
        let mixed: Vec<Tensor> = passage.pack.groups.iter().map(attend).collect::<Result<_>>()?;
        layer.out.apply(&Tensor::cat(&mixed, 0)?)
    }

    /// Norms and turns the heads of queries and keys, in rows of `[n_tokens, n_qkv]`.
    fn place(&self, layer: &Layer, qkv: Tensor, turn: Option<&(Tensor, Tensor)>) -> Result<Tensor> {
        if layer.head_norms.is_none() && turn.is_none() {
            return Ok(qkv);
        }
        let heads = self.shape.heads;
        let (n_tokens, n_turned) = (qkv.dim(0)?, heads.n_heads + heads.n_kv_heads);
        let width = n_turned * heads.head_dim;
        let mut turned = qkv.narrow(1, 0, width)?.contiguous()?.reshape((n_tokens, n_turned, heads.head_dim))?;
        if let Some((queries, keys)) = &layer.head_norms {
            let queries = queries.apply(&turned.narrow(1, 0, heads.n_heads)?)?;
            let keys = keys.apply(&turned.narrow(1, heads.n_heads, heads.n_kv_heads)?)?;
            turned = Tensor::cat(&[queries, keys], 1)?;
        }
        if let Some((cosines, sines)) = turn {
            turned = candle_nn::rotary_emb::rope_thd(&turned.unsqueeze(0)?, cosines, sines)?.squeeze(0)?;
        }
        let values = qkv.narrow(1, width, heads.n_kv_heads * heads.head_dim)?;
        Tensor::cat(&[turned.reshape((n_tokens, width))?, values], 1)
    }

    /// The inner state of the feed-forward part, `[n_tokens, n_inner]`.
    fn inner(&self, layer: &Layer, input: &Tensor) -> Result<Tensor> {
        let up = layer.up.apply(input)?;
        match self.shape.feed_forward {
            FeedForward::Plain => activate(self.shape.activation, &up),
            FeedForward::Gated => {
                let n_inner = up.dim(1)? / 2;
                let gate = activate(self.shape.activation, &up.narrow(1, 0, n_inner)?)?;
                gate * up.narrow(1, n_inner, n_inner)?
            }
        }
    }
}

/// Sequences to vectors.
pub(super) struct Embedder {
    pub(super) encoder: Encoder,
    pub(super) poolings: Vec<Pooling>,
    pub(super) steps: Steps,
}

impl BatchModel for Embedder {
    type Request = Sequence;
    type Response = Vec<f32>;

    fn run(
        &mut self,
        batch: &[Sequence],
        interrupt: &Interrupt<'_>,
    ) -> std::result::Result<Vec<Vec<f32>>, EngineError> {
        let batch: Vec<&Sequence> = batch.iter().collect();
        self.encoder.run(&batch, interrupt, |pack, hidden| {
            let pooled = self.poolings.iter().map(|&pooling| pack.pool(pooling, hidden));
            let pooled = Tensor::cat(&pooled.collect::<Result<Vec<Tensor>>>()?, 1)?;
            self.steps.apply(pooled)?.to_vec2()
        })
    }
}

/// Pairs to scores.
pub(super) struct Reranker {
    pub(super) encoder: Encoder,
    pub(super) classifier: Classifier,
}

impl BatchModel for Reranker {
    type Request = Sequence;
    type Response = f32;

    fn run(&mut self, batch: &[Sequence], interrupt: &Interrupt<'_>) -> std::result::Result<Vec<f32>, EngineError> {
        let batch: Vec<&Sequence> = batch.iter().collect();
        self.encoder
            .run(&batch, interrupt, |pack, hidden| self.classifier.scores(&pack.pool(self.classifier.pooling, hidden)?))
    }
}
