//! Attention of each sequence of a pack to itself.

use candle_core::{Device, Result, Tensor};

use crate::embed::attention::{DistanceBias, Heads, Sight};

use super::pack::{Group, Limits};

/// Added to the score of a key that is not seen: its weight is 0, also where a row of filling sees nothing at all.
pub(super) const HIDDEN: f32 = -1e30;

/// What layers see and how distance counts for them.
#[derive(Debug)]
pub(super) struct Views {
    /// Those of the layers, each once.
    sights: Vec<Sight>,
    bias: DistanceBias,
    pub(super) limits: Limits,
}

/// How a group is looked at by layers of one sight.
#[derive(Debug)]
pub(super) struct View {
    sight: Sight,
    /// Queries that are looked at together.
    at_once: usize,
    added: Added,
}

/// What is added to the scores of a group, by distance of key and query.
#[derive(Debug)]
enum Added {
    Nothing,
    /// `[1 or n_heads, 2 · longest - 1]`, by distance, from the farthest in front on.
    ByDistance(Tensor),
    /// `[1, 1 or n_heads, longest, longest]`: the same for each query and key, of groups whose queries are looked at all
    /// at once.
    Whole(Tensor),
}

impl Views {
    pub(super) fn new(sights: impl Iterator<Item = Sight>, bias: DistanceBias) -> Self {
        let mut found: Vec<Sight> = Vec::new();
        for sight in sights {
            if !found.contains(&sight) {
                found.push(sight);
            }
        }
        Self { sights: found, bias, limits: Limits::USUAL }
    }

    /// The views of a group; they serve all layers.
    pub(super) fn of(&self, group: &Group, heads: Heads, device: &Device) -> Result<Vec<View>> {
        let view = |&sight: &Sight| {
            let at_once = self.limits.queries_at_once(group, heads.n_heads, sight);
            let all = Block { from: 0, to: group.longest, first_key: 0, last_key: group.longest };
            let added = match self.table(sight, group.longest, heads.n_heads, device)? {
                None => Added::Nothing,
                Some(table) if at_once < group.longest => Added::ByDistance(table),
                Some(table) => Added::Whole(all.of(&table, group.longest)?),
            };
            Ok(View { sight, at_once, added })
        };
        self.sights.iter().map(view).collect()
    }

    /// `[1 or n_heads, 2 · longest - 1]`; `None` where nothing is added.
    fn table(&self, sight: Sight, longest: usize, n_heads: usize, device: &Device) -> Result<Option<Tensor>> {
        let n_rows = match &self.bias {
            DistanceBias::None if sight == Sight::Whole => return Ok(None),
            DistanceBias::None => 1,
            DistanceBias::Slopes(_) | DistanceBias::Buckets(_) => n_heads,
        };
        let number = |head: usize, idx: usize| {
            let distance = idx as isize - (longest as isize - 1);
            if !sight.sees(longest - 1, idx) {
                return HIDDEN;
            }
            match &self.bias {
                DistanceBias::None => 0.0,
                DistanceBias::Slopes(slopes) => -slopes[head] * distance.unsigned_abs() as f32,
                DistanceBias::Buckets(buckets) => buckets.number(distance, head),
            }
        };
        let n = 2 * longest - 1;
        let numbers: Vec<f32> = (0..n_rows).flat_map(|head| (0..n).map(move |idx| number(head, idx))).collect();
        Tensor::from_vec(numbers, (n_rows, n), device).map(Some)
    }
}

/// Some queries of a group and the keys that they see together, half-open.
#[derive(Debug, Clone, Copy)]
struct Block {
    from: usize,
    to: usize,
    first_key: usize,
    last_key: usize,
}

impl Block {
    /// `[1, 1 or n_heads, n_queries, n_keys]` of a table by distance.
    fn of(&self, table: &Tensor, longest: usize) -> Result<Tensor> {
        let (n_queries, n_keys) = (self.to - self.from, self.last_key - self.first_key);
        // The index of distance 0, moved by where queries and keys begin.
        let first = (longest - 1 + self.first_key) as i64 - self.from as i64;
        let keys = Tensor::arange(first, first + n_keys as i64, table.device())?.unsqueeze(0)?;
        let queries = Tensor::arange(0, n_queries as i64, table.device())?.unsqueeze(1)?;
        let distances = keys.broadcast_sub(&queries)?.flatten_all()?;
        table.index_select(&distances, 1)?.reshape((1, table.dim(0)?, n_queries, n_keys))
    }
}

/// Lets the tokens of each sequence of a group look at all of it: `qkv` are the rows of the pack, `[n_tokens, n_qkv]`,
/// queries, keys and values side by side; the result is `[n_rows, n_out]`.
pub(super) fn attend(group: &Group, heads: Heads, sight: Sight, qkv: &Tensor) -> Result<Tensor> {
    let Heads { n_heads, n_kv_heads, head_dim } = heads;
    let (n, longest) = (group.n_sequences, group.longest);
    let rows = group.spread(qkv)?.reshape((n, longest, n_heads + 2 * n_kv_heads, head_dim))?;
    let part = |first: usize, count: usize| rows.narrow(2, first, count)?.transpose(1, 2)?.contiguous();
    let queries = (part(0, n_heads)? * (1.0 / (head_dim as f64).sqrt()))?;
    let (keys, values) = (part(n_heads, n_kv_heads)?, part(n_heads + n_kv_heads, n_kv_heads)?);
    let view = group.views.iter().find(|view| view.sight == sight).expect("each sight has a view; this is a bug");
    let at_once = view.at_once;
    let mut blocks = Vec::new();
    for from in (0..longest).step_by(at_once) {
        let to = (from + at_once).min(longest);
        let (first_key, last_key) = if at_once < longest { sight.keys(from, to, longest) } else { (0, longest) };
        let block = Block { from, to, first_key, last_key };
        let (n_queries, n_keys) = (to - from, last_key - first_key);
        // Heads of queries that share a head of keys lie one behind the other, so they are more rows of one product.
        let shared = (n, n_kv_heads, n_heads / n_kv_heads * n_queries, head_dim);
        let queries = queries.narrow(2, from, n_queries)?.contiguous()?.reshape(shared)?;
        let scores = queries.matmul(&keys.narrow(2, first_key, n_keys)?.t()?)?;
        let scores = seen(scores.reshape((n, n_heads, n_queries, n_keys))?, group, &view.added, block)?;
        let weights = candle_nn::ops::softmax_last_dim(&scores)?;
        let weights = weights.reshape((n, n_kv_heads, n_heads / n_kv_heads * n_queries, n_keys))?;
        let mixed = weights.matmul(&values.narrow(2, first_key, n_keys)?)?;
        blocks.push(mixed.reshape((n, n_heads, n_queries, head_dim))?.transpose(1, 2)?.flatten_from(2)?);
    }
    let mixed = if blocks.len() == 1 { blocks.swap_remove(0) } else { Tensor::cat(&blocks, 1)? };
    group.gather(&mixed)
}

/// Scores, `[n_sequences, n_heads, n_queries, n_keys]`, with what distance adds and without the keys that are not seen.
fn seen(scores: Tensor, group: &Group, added: &Added, block: Block) -> Result<Tensor> {
    let scores = match added {
        Added::Nothing => scores,
        Added::ByDistance(table) => scores.broadcast_add(&block.of(table, group.longest)?)?,
        Added::Whole(numbers) => scores.broadcast_add(numbers)?,
    };
    match &group.filling {
        Some(filling) => {
            let n_keys = block.last_key - block.first_key;
            scores.broadcast_add(&filling.hidden_keys.narrow(3, block.first_key, n_keys)?)
        }
        None => Ok(scores),
    }
}
