//! Attention of each sequence of a packed batch to itself.

use ingle_kernels::{rotate_halves, softmax};
use rten_gemm::GemmExecutor;

use super::linear::{Matrix, product};

/// Queries that are looked at together: bounds the memory for scores of long texts.
const QUERY_BLOCK: usize = 128;

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// All of its sequence.
    Whole,
    /// Those up to itself.
    Causal,
    /// Those at most so many positions away.
    Near(usize),
}

impl Sight {
    /// The keys that the queries `from..to` of a sequence of `len` tokens see, together.
    pub(super) fn keys(self, from: usize, to: usize, len: usize) -> (usize, usize) {
        match self {
            Self::Whole => (0, len),
            Self::Causal => (0, to),
            Self::Near(reach) => (from.saturating_sub(reach), (to + reach).min(len)),
        }
    }

    pub(super) fn sees(self, query: usize, key: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Causal => key <= query,
            Self::Near(reach) => key.abs_diff(query) <= reach,
        }
    }
}

/// What is added to scores by the distance of query and key.
#[derive(Debug, Clone, Default)]
pub(super) enum DistanceBias {
    /// Nothing.
    #[default]
    None,
    /// Minus the distance times the head's slope (ALiBi, arXiv:2108.12409, in its symmetric form).
    Slopes(Vec<f32>),
    /// A learnt number by bucket of distance (T5, arXiv:1910.10683): `[n_buckets, n_heads]`.
    Buckets(Buckets),
}

/// Learnt numbers by distance.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    /// `[n_buckets, n_heads]`, row-major.
    pub(super) numbers: Vec<f32>,
    pub(super) n_buckets: usize,
    pub(super) n_heads: usize,
    /// Further away all is one bucket.
    pub(super) max_distance: usize,
}

impl Buckets {
    /// The number for a key `distance` behind (negative: in front of) the query.
    pub(super) fn number(&self, distance: isize, head: usize) -> f32 {
        let half = self.n_buckets / 2;
        let exact = half / 2;
        let size = distance.unsigned_abs();
        let within = if size < exact {
            size
        } else {
            let share = (size as f32 / exact as f32).ln() / (self.max_distance as f32 / exact as f32).ln();
            (exact + (share * (half - exact) as f32) as usize).min(half - 1)
        };
        let bucket = if distance > 0 { half + within } else { within };
        self.numbers[bucket * self.n_heads + head]
    }
}

/// Sizes of the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) n_heads: usize,
    /// Heads of keys and values; each serves as many heads of queries.
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Heads {
    /// Numbers of a row of queries, keys and values.
    pub(super) fn n_qkv(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Numbers of a row of results.
    pub(super) fn n_out(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Where head `head` of the keys begins in a row.
    fn key_at(&self, head: usize) -> usize {
        (self.n_heads + head / (self.n_heads / self.n_kv_heads)) * self.head_dim
    }

    /// Where head `head` of the values begins in a row.
    fn value_at(&self, head: usize) -> usize {
        self.key_at(head) + self.n_kv_heads * self.head_dim
    }
}

/// Cosines and sines of a rotary embedding, for positions from 0.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// `[n_positions, n_pairs]`
    pub(super) cosines: Vec<f32>,
    pub(super) sines: Vec<f32>,
    pub(super) n_pairs: usize,
}

impl Rotation {
    /// Angles `position · frequency`.
    pub(super) fn new(frequencies: &[f64], n_positions: usize) -> Self {
        let angles = |of: fn(f64) -> f64| -> Vec<f32> {
            let positions = (0..n_positions)
                .flat_map(|position| frequencies.iter().map(move |frequency| of(position as f64 * frequency) as f32));
            positions.collect()
        };
        Self { cosines: angles(f64::cos), sines: angles(f64::sin), n_pairs: frequencies.len() }
    }

    /// Turns the first `n_heads` heads of a row at `position`.
    pub(super) fn turn(&self, heads: &mut [f32], head_dim: usize, position: usize) {
        let at = position * self.n_pairs..(position + 1) * self.n_pairs;
        for head in heads.chunks_exact_mut(head_dim) {
            rotate_halves(head, &self.cosines[at.clone()], &self.sines[at.clone()]);
        }
    }
}

/// The usual frequencies of a rotary embedding of `n_dims` numbers a head: `base^(−2i/n_dims)`.
pub(super) fn frequencies(base: f64, n_dims: usize) -> Vec<f64> {
    (0..n_dims / 2).map(|pair| base.powf(-2.0 * pair as f64 / n_dims as f64)).collect()
}

/// Memory for one sequence's attention, used again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    mixed: Vec<f32>,
}

/// One head of some queries of a sequence.
#[derive(Debug, Clone, Copy)]
struct Block {
    head: usize,
    /// The queries, half-open.
    from: usize,
    to: usize,
}

/// How one layer's tokens look at each other.
pub(super) struct Attention<'a> {
    pub(super) gemm: &'a GemmExecutor,
    pub(super) heads: Heads,
    pub(super) sight: Sight,
    pub(super) bias: &'a DistanceBias,
    pub(super) scale: f32,
}

impl Attention<'_> {
    /// Lets tokens of one sequence look at all of it: `qkv` is `[len, n_qkv]`, and `out` gets `[n, n_out]` for the `n`
    /// tokens from `first` on.
    pub(super) fn run(&self, qkv: &[f32], first: usize, out: &mut [f32], scratch: &mut Scratch) {
        let n_out = self.heads.n_out();
        for (idx, out) in out.chunks_mut(QUERY_BLOCK * n_out).enumerate() {
            let from = first + idx * QUERY_BLOCK;
            let to = from + out.len() / n_out;
            for head in 0..self.heads.n_heads {
                self.block(qkv, Block { head, from, to }, out, scratch);
            }
        }
    }

    /// `out` is `[to - from, n_out]`.
    fn block(&self, qkv: &[f32], Block { head, from, to }: Block, out: &mut [f32], scratch: &mut Scratch) {
        let Heads { head_dim, .. } = self.heads;
        let (n_qkv, n_out) = (self.heads.n_qkv(), self.heads.n_out());
        let len = qkv.len() / n_qkv;
        let (first_key, last_key) = self.sight.keys(from, to, len);
        let (n_queries, n_keys) = (to - from, last_key - first_key);
        let part = |row: usize, column: usize, n_rows: usize| Matrix {
            data: &qkv[row * n_qkv + column..],
            n_rows,
            n_cols: head_dim,
            strides: [n_qkv, 1],
        };
        scratch.scores.resize(n_queries * n_keys, 0.0);
        let keys = part(first_key, self.heads.key_at(head), n_keys);
        let queries = part(from, head * head_dim, n_queries);
        product(self.gemm, queries, keys.transposed(), self.scale, &mut scratch.scores);
        for (row, scores) in scratch.scores.chunks_exact_mut(n_keys).enumerate() {
            self.bias_and_mask(scores, from + row, first_key, head);
            softmax(scores);
        }
        scratch.mixed.resize(n_queries * head_dim, 0.0);
        let values = part(first_key, self.heads.value_at(head), n_keys);
        product(self.gemm, Matrix::of_rows(&scratch.scores, n_keys), values, 1.0, &mut scratch.mixed);
        for (row, mixed) in scratch.mixed.chunks_exact(head_dim).enumerate() {
            let at = row * n_out + head * head_dim;
            out[at..at + head_dim].copy_from_slice(mixed);
        }
    }

    fn bias_and_mask(&self, scores: &mut [f32], query: usize, first_key: usize, head: usize) {
        match self.bias {
            DistanceBias::None => {}
            DistanceBias::Slopes(slopes) => {
                for (idx, score) in scores.iter_mut().enumerate() {
                    *score -= slopes[head] * (first_key + idx).abs_diff(query) as f32;
                }
            }
            DistanceBias::Buckets(buckets) => {
                for (idx, score) in scores.iter_mut().enumerate() {
                    *score += buckets.number((first_key + idx) as isize - query as isize, head);
                }
            }
        }
        if self.sight != Sight::Whole {
            for (idx, score) in scores.iter_mut().enumerate() {
                if !self.sight.sees(query, first_key + idx) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// The slopes of ALiBi for so many heads: a geometric series; between powers of two every other one of the next.
pub(super) fn alibi_slopes(n_heads: usize) -> Vec<f32> {
    let series = |n: usize| (1..=n).map(move |head| (2f64.powf(-8.0 * head as f64 / n as f64)) as f32);
    let whole = if n_heads.is_power_of_two() { n_heads } else { n_heads.next_power_of_two() / 2 };
    series(whole).chain(series(2 * whole).step_by(2).take(n_heads - whole)).collect()
}
