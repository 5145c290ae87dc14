//! The sequences of a step: packed one behind the other, and in groups of about one length.

use candle_core::{Device, Result, Tensor};
use ingle_engine::{Pooling, Sequence};

use crate::embed::attention::{Heads, Sight};

use super::attention::{HIDDEN, View, Views};

/// Filling short sequences up to so many tokens costs less than one more group.
const SHORT: usize = 64;

/// How much is looked at together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Numbers that scores of attention may fill, for a block of queries of a group.
    pub(super) scores: usize,
    /// Queries of each sequence that a group must leave room for.
    pub(super) least_queries: usize,
    /// Queries at most, where a layer sees a neighbourhood only: with more, most keys would be hidden.
    pub(super) near_queries: usize,
}

impl Limits {
    /// Scores take 128 MiB at most.
    pub(super) const USUAL: Self = Self { scores: 1 << 25, least_queries: 128, near_queries: 512 };

    /// Queries of a group that are looked at together.
    pub(super) fn queries_at_once(&self, group: &Group, n_heads: usize, sight: Sight) -> usize {
        let n_queries = (self.scores / (group.n_sequences * n_heads * group.longest)).clamp(1, group.longest);
        match sight {
            Sight::Whole | Sight::Causal => n_queries,
            Sight::Near(_) => n_queries.min(self.near_queries),
        }
    }

    /// Neighbours that are filled up to one length: none is filled to more than twice its own, and the scores of a block
    /// of queries find room. `lengths` fall.
    fn chunks<'a>(&self, lengths: &'a [usize], n_heads: usize) -> Vec<&'a [usize]> {
        let mut chunks = Vec::new();
        let mut rest = lengths;
        while let Some(&longest) = rest.first() {
            let most = self.scores / (n_heads * longest * longest.min(self.least_queries));
            let is_alike = |&&len: &&usize| longest <= SHORT || 2 * len >= longest;
            let n = rest.iter().take(most.max(1)).take_while(is_alike).count();
            let (chunk, others) = rest.split_at(n);
            chunks.push(chunk);
            rest = others;
        }
        chunks
    }
}

/// Sequences of about one length that follow each other in the pack.
pub(super) struct Group {
    /// Row of the pack with its first token.
    pub(super) first_row: usize,
    pub(super) n_rows: usize,
    pub(super) n_sequences: usize,
    /// Tokens of its longest sequence, to which the others are filled up.
    pub(super) longest: usize,
    pub(super) filling: Option<Filling>,
    /// What is added to scores, for each sight of the layers.
    pub(super) views: Vec<View>,
    /// `[n_sequences]`
    lengths: Vec<usize>,
}

/// How rows of sequences of several lengths become `[n_sequences, longest]`, and back.
pub(super) struct Filling {
    /// `[n_sequences · longest]`: the row of the group that stands there. Places behind a sequence's end hold its last.
    spread: Tensor,
    /// `[n_rows]`: the place of each row of the group.
    gather: Tensor,
    /// `[n_sequences, 1, 1, longest]`: what is added to the scores of keys.
    pub(super) hidden_keys: Tensor,
}

impl Filling {
    fn new(lengths: &[usize], longest: usize, device: &Device) -> Result<Self> {
        let n_sequences = lengths.len();
        let (mut spread, mut gather, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for (idx, &len) in lengths.iter().enumerate() {
            spread.extend((0..longest).map(|at| (first + at.min(len - 1)) as u32));
            gather.extend((0..len).map(|at| (idx * longest + at) as u32));
            hidden.extend((0..longest).map(|at| if at < len { 0.0 } else { HIDDEN }));
            first += len;
        }
        Ok(Self {
            spread: Tensor::new(spread, device)?,
            gather: Tensor::new(gather, device)?,
            hidden_keys: Tensor::from_vec(hidden, (n_sequences, 1, 1, longest), device)?,
        })
    }
}

impl Group {
    /// The rows of the group, of the rows of a pack, as `[n_sequences, longest, n]`.
    pub(super) fn spread(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.narrow(0, self.first_row, self.n_rows)?;
        let n = rows.dim(1)?;
        let rows = match &self.filling {
            Some(filling) => rows.contiguous()?.index_select(&filling.spread, 0)?,
            None => rows,
        };
        rows.reshape((self.n_sequences, self.longest, n))
    }

    /// The opposite: `[n_sequences, longest, n]` to `[n_rows, n]`.
    pub(super) fn gather(&self, filled: &Tensor) -> Result<Tensor> {
        let rows = filled.flatten_to(1)?;
        match &self.filling {
            Some(filling) => rows.index_select(&filling.gather, 0),
            None => Ok(rows),
        }
    }

    /// One vector for each sequence, `[n_sequences, n]`, from the rows of a pack.
    fn pool(&self, pooling: Pooling, rows: &Tensor) -> Result<Tensor> {
        let sum = |weight: &dyn Fn(usize, usize) -> f64| -> Result<Tensor> {
            let weight = |len: usize, at: usize| if at < len { weight(len, at) as f32 } else { 0.0 };
            let weights = self.lengths.iter().flat_map(|&len| (0..self.longest).map(move |at| weight(len, at)));
            let shape = (self.n_sequences, 1, self.longest);
            let weights = Tensor::from_vec(weights.collect::<Vec<f32>>(), shape, rows.device())?;
            weights.matmul(&self.spread(rows)?)?.squeeze(1)
        };
        let pick = |at: &dyn Fn(usize) -> usize| -> Result<Tensor> {
            let firsts = self.lengths.iter().scan(self.first_row, |first, len| {
                *first += len;
                Some(*first - len)
            });
            let picked: Vec<u32> = firsts.zip(&self.lengths).map(|(first, &len)| (first + at(len)) as u32).collect();
            rows.index_select(&Tensor::new(picked, rows.device())?, 0)
        };
        match pooling {
            Pooling::Cls => pick(&|_| 0),
            Pooling::Last => pick(&|len| len - 1),
            Pooling::Mean => sum(&|len, _| 1.0 / len as f64),
            Pooling::MeanSqrtLen => sum(&|len, _| 1.0 / (len as f64).sqrt()),
            Pooling::WeightedMean => sum(&|len, at| (at + 1) as f64 / (len * (len + 1) / 2) as f64),
            // Places behind a sequence's end hold its last row, which changes no maximum.
            Pooling::Max => self.spread(rows)?.max(1),
        }
    }
}

/// The sequences of a step, the longest first.
pub(super) struct Pack<'a> {
    pub(super) sequences: Vec<&'a Sequence>,
    pub(super) groups: Vec<Group>,
    /// Indices into the step.
    order: Vec<usize>,
}

impl<'a> Pack<'a> {
    /// Puts the sequences in order and in groups. Each has a token at least.
    pub(super) fn new(batch: &[&'a Sequence], heads: Heads, views: &Views, device: &Device) -> Result<Self> {
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|&idx| std::cmp::Reverse(batch[idx].tokens.len()));
        let sequences: Vec<&Sequence> = order.iter().map(|&idx| batch[idx]).collect();
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let (mut groups, mut first_row) = (Vec::new(), 0);
        for lengths in views.limits.chunks(&lengths, heads.n_heads) {
            let (n_rows, longest) = (lengths.iter().sum(), lengths[0]);
            let is_filled = lengths.iter().any(|&len| len < longest);
            let mut group = Group {
                first_row,
                n_rows,
                n_sequences: lengths.len(),
                longest,
                filling: is_filled.then(|| Filling::new(lengths, longest, device)).transpose()?,
                views: Vec::new(),
                lengths: lengths.to_vec(),
            };
            group.views = views.of(&group, heads, device)?;
            groups.push(group);
            first_row += n_rows;
        }
        Ok(Self { sequences, groups, order })
    }

    /// One vector for each sequence, `[n_sequences, n]`, from rows `[n_tokens, n]`, both in the order of the pack.
    pub(super) fn pool(&self, pooling: Pooling, rows: &Tensor) -> Result<Tensor> {
        let pooled: Vec<Tensor> = self.groups.iter().map(|group| group.pool(pooling, rows)).collect::<Result<_>>()?;
        Tensor::cat(&pooled, 0)
    }

    /// Results in the order of the pack, to that of the step.
    pub(super) fn unsorted<R>(&self, results: Vec<R>) -> Vec<R> {
        let mut results: Vec<(usize, R)> = self.order.iter().copied().zip(results).collect();
        results.sort_unstable_by_key(|(idx, _)| *idx);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(lengths: &[usize], n_heads: usize) -> Vec<&[usize]> {
        Limits::USUAL.chunks(lengths, n_heads)
    }

    #[test]
    fn chunks_hold_all_lengths_and_bound_what_is_filled_up() {
        let lengths = [9000, 8192, 512, 300, 257, 255, 130, 64, 63, 20, 1, 1];
        let found = chunks(&lengths, 12);
        assert_eq!(found.concat(), lengths);
        let expected: [&[usize]; 4] = [&[9000, 8192], &[512, 300, 257], &[255, 130], &[64, 63, 20, 1, 1]];
        assert_eq!(found, expected);
        // 128 queries of a text of 8,192 tokens have 12 · 2²⁰ scores: two such texts find room, three do not.
        assert_eq!(chunks(&[8192; 5], 12), [&[8192; 2][..], &[8192; 2], &[8192]]);
        assert_eq!(chunks(&[1 << 17], 64), [&[1 << 17]], "one is always looked at");
        assert!(chunks(&[], 12).is_empty());
    }
}
