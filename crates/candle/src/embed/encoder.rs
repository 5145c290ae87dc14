//! The forward pass: one transformer for all architectures, over sequences packed one behind the other, without padding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ingle_engine::{EngineError, Interrupt, Seat, Sequence};
use ingle_kernels::{gelu, gelu_tanh, layer_norm, multiply, rms_norm, silu};
use rayon::ThreadPool;
use rayon::prelude::*;
use rten_gemm::GemmExecutor;

use super::attention::{Attention, DistanceBias, Heads, Rotation, Scratch, Sight};
use super::linear::{Linear, Matrix, Output};

/// Tokens that go through all layers together: their hidden states stay in the processor's caches, and the weights are
/// read often enough to be worth it.
const PACK_TOKENS: usize = 256;

/// Fewer numbers are not worth a second thread.
const SHARE_FROM: usize = 1 << 16;

/// A sequence of so many pairs of tokens, times the width of its attention, is worth a second thread.
const ATTENTION_SHARE_FROM: usize = 1 << 20;

/// A unit of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Silu,
}

impl Activation {
    pub(super) fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Gelu => gelu(numbers),
            Self::GeluTanh => gelu_tanh(numbers),
            Self::Silu => silu(numbers),
            Self::Relu => numbers.iter_mut().for_each(|number| *number = number.max(0.0)),
        }
    }
}

/// A normalisation of rows.
#[derive(Debug)]
pub(super) enum Norm {
    /// Mean 0 and variance 1, then weight and bias, `[n]` each.
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
    /// Mean square 1, then weight, `[n]`.
    Rms { weight: Vec<f32>, epsilon: f32 },
}

impl Norm {
    /// `rows` are `[n_rows, n]`.
    pub(super) fn apply(&self, rows: &mut [f32]) {
        match self {
            Self::Layer { weight, bias, epsilon } => layer_norm(rows, weight, bias, *epsilon),
            Self::Rms { weight, epsilon } => rms_norm(rows, weight, *epsilon),
        }
    }
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormOrder {
    /// Behind attention and feed-forward part, after the residual is added.
    After,
    /// In front of them; the residual is not normalised.
    Before,
}

/// From token to the first hidden state.
#[derive(Debug)]
pub(super) struct Embeddings {
    /// `[n_vocab, n_embd]`
    pub(super) words: Vec<f32>,
    /// `[n_positions, n_embd]`, and the row of position 0.
    pub(super) positions: Option<(Vec<f32>, usize)>,
    /// `[n_types, n_embd]`; the second text of a pair has type 1 where there are two.
    pub(super) types: Option<Vec<f32>>,
    pub(super) norm: Option<Norm>,
    pub(super) n_embd: usize,
}

impl Embeddings {
    fn row(&self, sequence: &Sequence, position: usize, out: &mut [f32]) {
        let n = self.n_embd;
        let at = |table: &[f32], idx: usize| -> std::ops::Range<usize> {
            let row = idx.min(table.len() / n - 1);
            row * n..(row + 1) * n
        };
        out.copy_from_slice(&self.words[at(&self.words, sequence.tokens[position] as usize)]);
        let mut add = |table: &[f32], idx: usize| {
            out.iter_mut().zip(&table[at(table, idx)]).for_each(|(number, other)| *number += other);
        };
        if let Some((table, first)) = &self.positions {
            add(table, first + position);
        }
        if let Some(table) = &self.types {
            add(table, usize::from(position >= sequence.second_from));
        }
    }
}

/// Does the feed-forward part have a gate?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedForward {
    /// `down(act(up))`
    Plain,
    /// `down(act(gate) · up)`; the first layer gives gate and up side by side.
    Gated,
}

/// Norms of each head of queries and keys.
#[derive(Debug)]
pub(super) struct HeadNorms {
    pub(super) queries: Norm,
    pub(super) keys: Norm,
}

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// None where an architecture leaves it out.
    pub(super) attention_norm: Option<Norm>,
    /// Queries, keys and values in one product.
    pub(super) qkv: Linear,
    pub(super) head_norms: Option<HeadNorms>,
    pub(super) rotation: Option<Arc<Rotation>>,
    pub(super) sight: Sight,
    pub(super) out: Linear,
    pub(super) feed_forward_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What all layers share.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) heads: Heads,
    pub(super) order: NormOrder,
    pub(super) feed_forward: FeedForward,
    pub(super) activation: Activation,
    pub(super) distance_bias: DistanceBias,
}

/// Embeddings, layers and the norm behind them.
pub(super) struct Encoder {
    pub(super) shape: Shape,
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Option<Norm>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("shape", &self.shape).field("n_layers", &self.layers.len()).finish()
    }
}

/// Memory for one pack, used again for the next.
#[derive(Default)]
struct Workspace {
    /// Tokens of each sequence of the pack.
    lengths: Vec<usize>,
    /// `[n_tokens, n_embd]`
    hidden: Vec<f32>,
    /// `[n_tokens, n_embd]`, for norms that stand in front.
    normed: Vec<f32>,
    /// `[n_tokens, n_qkv]`
    qkv: Vec<f32>,
    /// `[n_tokens, n_heads · head_dim]`
    mixed: Vec<f32>,
    /// `[n_tokens, n_up]`
    up: Vec<f32>,
    attention: Scratch,
}

/// What a step is computed with. It goes in parts of some layers; between two of them it looks whether anybody still
/// waits, and lets other engines have the cores.
pub(super) struct Course<'a> {
    pub(super) threads: &'a ThreadPool,
    pub(super) seat: &'a Seat,
    pub(super) interrupt: &'a Interrupt<'a>,
    /// Multiplications of a part, for each thread; a part has one layer at least.
    pub(super) part: u64,
}

impl Course<'_> {
    fn n_threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` on the threads once there are cores for them.
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, EngineError> {
        if self.interrupt.is_raised() {
            return Err(EngineError::Decode { reason: "nobody waits for it any more".into() });
        }
        Ok(self.seat.with_cores(self.n_threads(), || awake(self.threads, work)))
    }
}

/// Runs `work` on one thread of the pool, and keeps the others awake for its parts. A short text has a hundred parts of
/// some ten microseconds each; a thread that fell asleep between two of them would take longer to wake up.
fn awake<R: Send>(threads: &ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    /// Lets the others go, also when the work panics.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    if threads.current_num_threads() == 1 {
        return threads.install(work);
    }
    let (work, result) = (Mutex::new(Some(work)), Mutex::new(None));
    let has_ended = AtomicBool::new(false);
    let lock = "nobody else has the lock; this is a bug";
    threads.broadcast(|thread| {
        if thread.index() > 0 {
            while !has_ended.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::hint::spin_loop();
                }
            }
            return;
        }
        let _ends = Ends(&has_ended);
        if let Some(work) = work.lock().expect(lock).take() {
            *result.lock().expect(lock) = Some(work());
        }
    });
    result.into_inner().expect(lock).expect("the first thread has run the work; this is a bug")
}

/// A batch, and which of its sequences go through the layers together.
#[derive(Clone, Copy)]
struct Wave<'a> {
    batch: &'a [&'a Sequence],
    /// Indices into the batch, one pack for each thread at most.
    packs: &'a [Vec<usize>],
}

/// Applies `to` to parts of `rows` on all threads, where there is enough of it.
fn share(rows: &mut [f32], n: usize, to: impl Fn(&mut [f32]) + Sync + Send) {
    let n_threads = rayon::current_num_threads();
    if n_threads == 1 || rows.len() < SHARE_FROM {
        return to(rows);
    }
    let n_rows = (rows.len() / n).div_ceil(n_threads);
    rows.par_chunks_mut(n_rows * n).for_each(to);
}

impl Encoder {
    /// Multiplications for one token, attention not counted.
    pub(super) fn work_per_token(&self) -> u64 {
        let size = |linear: &Linear| linear.n_in as u64 * linear.n_out as u64;
        let work = |layer: &Layer| [&layer.qkv, &layer.out, &layer.up, &layer.down].map(size).iter().sum::<u64>();
        self.layers.iter().map(work).sum()
    }

    /// Widths of hidden and inner states.
    pub(super) fn sizes(&self) -> [u64; 2] {
        let n_inner = self.layers.first().map_or(0, |layer| layer.down.n_in);
        [self.embeddings.n_embd as u64, n_inner as u64]
    }

    /// Runs the sequences and hands each one's hidden states, `[n_tokens, n_embd]`, to `finish`. Results are in the
    /// order of the sequences. Each thread takes a pack of them; for fewer packs than threads, all threads share the
    /// products of one.
    ///
    /// # Errors
    /// [`EngineError::Decode`] when the interrupt was raised.
    pub(super) fn run<R: Send>(
        &self,
        batch: &[&Sequence],
        course: &Course<'_>,
        finish: impl Fn(&GemmExecutor, &[f32]) -> R + Sync,
    ) -> Result<Vec<R>, EngineError> {
        let packs = packs(batch, course.n_threads());
        let mut spaces: Vec<Workspace> = Vec::new();
        spaces.resize_with(packs.len().min(course.n_threads()), Workspace::default);
        let mut results = Vec::with_capacity(batch.len());
        for packs in packs.chunks(course.n_threads()) {
            results.extend(self.run_wave(Wave { batch, packs }, &mut spaces, course, &finish)?);
        }
        results.sort_unstable_by_key(|(idx, _)| *idx);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    /// The results of one wave, each with its index in the batch.
    fn run_wave<R: Send>(
        &self,
        wave: Wave<'_>,
        spaces: &mut [Workspace],
        course: &Course<'_>,
        finish: &(impl Fn(&GemmExecutor, &[f32]) -> R + Sync),
    ) -> Result<Vec<(usize, R)>, EngineError> {
        let (n_layers, at_once) = (self.layers.len(), self.layers_at_once(wave, course));
        let mut from = 0;
        loop {
            let to = (from + at_once).min(n_layers);
            let results = course.run(|| {
                // The executor is small and may not move between threads.
                let results = spaces.par_iter_mut().zip(wave.packs).map_init(GemmExecutor::default, |gemm, one| {
                    let (workspace, pack) = one;
                    if from == 0 {
                        self.embed(wave.batch, pack, workspace);
                    }
                    self.layers[from..to].iter().for_each(|layer| self.layer(layer, gemm, workspace));
                    if to < n_layers { Vec::new() } else { self.finish(pack, gemm, workspace, finish) }
                });
                results.flatten_iter().collect::<Vec<_>>()
            })?;
            if to == n_layers {
                return Ok(results);
            }
            from = to;
        }
    }

    /// Layers of a part, so that it has about the work that the course wants.
    fn layers_at_once(&self, wave: Wave<'_>, course: &Course<'_>) -> usize {
        let n_tokens: usize = wave.packs.iter().flatten().map(|&idx| wave.batch[idx].tokens.len()).sum();
        let work = n_tokens as u64 * (self.work_per_token() / self.layers.len().max(1) as u64);
        let wanted = course.part.saturating_mul(course.n_threads() as u64) / work.max(1);
        usize::try_from(wanted).unwrap_or(usize::MAX).clamp(1, self.layers.len().max(1))
    }

    /// The first hidden states of a pack, one sequence behind the other.
    fn embed(&self, batch: &[&Sequence], pack: &[usize], workspace: &mut Workspace) {
        let n_embd = self.embeddings.n_embd;
        let sequences = || pack.iter().map(|&idx| batch[idx]);
        workspace.lengths.clear();
        workspace.lengths.extend(sequences().map(|sequence| sequence.tokens.len()));
        workspace.hidden.resize(workspace.lengths.iter().sum::<usize>() * n_embd, 0.0);
        let places = sequences().flat_map(|sequence| (0..sequence.tokens.len()).map(move |at| (sequence, at)));
        for ((sequence, position), row) in places.zip(workspace.hidden.chunks_exact_mut(n_embd)) {
            self.embeddings.row(sequence, position, row);
        }
        if let Some(norm) = &self.embeddings.norm {
            norm.apply(&mut workspace.hidden);
        }
    }

    fn layer(&self, layer: &Layer, gemm: &GemmExecutor, workspace: &mut Workspace) {
        match self.shape.order {
            NormOrder::After => self.layer_normed_after(layer, gemm, workspace),
            NormOrder::Before => self.layer_normed_before(layer, gemm, workspace),
        }
    }

    /// The results of a pack from its last hidden states.
    fn finish<R>(
        &self,
        pack: &[usize],
        gemm: &GemmExecutor,
        workspace: &mut Workspace,
        finish: &impl Fn(&GemmExecutor, &[f32]) -> R,
    ) -> Vec<(usize, R)> {
        let n_embd = self.embeddings.n_embd;
        if let Some(norm) = &self.final_norm {
            share(&mut workspace.hidden, n_embd, |rows| norm.apply(rows));
        }
        let mut rest = workspace.hidden.as_slice();
        let mut result = |(&idx, len): (&usize, &usize)| {
            let (hidden, others) = rest.split_at(len * n_embd);
            rest = others;
            (idx, finish(gemm, hidden))
        };
        pack.iter().zip(&workspace.lengths).map(&mut result).collect()
    }

    fn layer_normed_after(&self, layer: &Layer, gemm: &GemmExecutor, workspace: &mut Workspace) {
        let n_embd = self.embeddings.n_embd;
        let Workspace { lengths, hidden, qkv, mixed, up, attention, .. } = workspace;
        self.attend(layer, lengths, hidden, Buffers { gemm, qkv, mixed, attention });
        layer.out.apply(gemm, Matrix::of_rows(mixed, layer.out.n_in), Output::Add, hidden);
        if let Some(norm) = &layer.attention_norm {
            share(hidden, n_embd, |rows| norm.apply(rows));
        }
        let inner = self.inner(gemm, layer, hidden, up);
        layer.down.apply(gemm, inner, Output::Add, hidden);
        share(hidden, n_embd, |rows| layer.feed_forward_norm.apply(rows));
    }

    fn layer_normed_before(&self, layer: &Layer, gemm: &GemmExecutor, workspace: &mut Workspace) {
        let n_embd = self.embeddings.n_embd;
        let Workspace { lengths, hidden, normed, qkv, mixed, up, attention } = workspace;
        normed.clone_from(hidden);
        if let Some(norm) = &layer.attention_norm {
            share(normed, n_embd, |rows| norm.apply(rows));
        }
        self.attend(layer, lengths, normed, Buffers { gemm, qkv, mixed, attention });
        layer.out.apply(gemm, Matrix::of_rows(mixed, layer.out.n_in), Output::Add, hidden);
        normed.clone_from(hidden);
        share(normed, n_embd, |rows| layer.feed_forward_norm.apply(rows));
        let inner = self.inner(gemm, layer, normed, up);
        layer.down.apply(gemm, inner, Output::Add, hidden);
    }

    /// Queries, keys and values of `input`, and what the tokens see of each other, into `mixed`.
    fn attend(&self, layer: &Layer, lengths: &[usize], input: &[f32], buffers: Buffers<'_>) {
        let Buffers { gemm, qkv, mixed, attention } = buffers;
        let heads = self.shape.heads;
        let n_tokens = input.len() / self.embeddings.n_embd;
        qkv.resize(n_tokens * heads.n_qkv(), 0.0);
        mixed.resize(n_tokens * heads.n_out(), 0.0);
        layer.qkv.apply(gemm, Matrix::of_rows(input, layer.qkv.n_in), Output::Replace, qkv);
        let n_threads = rayon::current_num_threads();
        let (mut qkv_rest, mut mixed_rest) = (qkv.as_mut_slice(), mixed.as_mut_slice());
        for len in lengths {
            let (qkv, others) = qkv_rest.split_at_mut(len * heads.n_qkv());
            let (mixed, other_mixed) = mixed_rest.split_at_mut(len * heads.n_out());
            (qkv_rest, mixed_rest) = (others, other_mixed);
            layer.place(heads, qkv);
            // A sequence alone in its pack has as many threads as there are; in others each thread has its pack.
            if lengths.len() > 1 || n_threads == 1 || len * len * heads.n_out() < ATTENTION_SHARE_FROM {
                self.attention(layer, gemm).run(qkv, 0, mixed, attention);
                continue;
            }
            let (n_rows, qkv) = (len.div_ceil(n_threads), &*qkv);
            let parts = mixed.par_chunks_mut(n_rows * heads.n_out()).enumerate();
            parts.for_each_init(<(GemmExecutor, Scratch)>::default, |(gemm, scratch), (idx, part)| {
                self.attention(layer, gemm).run(qkv, idx * n_rows, part, scratch);
            });
        }
    }

    fn attention<'a>(&'a self, layer: &Layer, gemm: &'a GemmExecutor) -> Attention<'a> {
        let heads = self.shape.heads;
        let scale = 1.0 / (heads.head_dim as f32).sqrt();
        Attention { gemm, heads, sight: layer.sight, bias: &self.shape.distance_bias, scale }
    }

    /// The inner state of the feed-forward part, `[n_tokens, down.n_in]`, in `up`.
    fn inner<'a>(&self, gemm: &GemmExecutor, layer: &Layer, input: &[f32], up: &'a mut Vec<f32>) -> Matrix<'a> {
        let n_up = layer.up.n_out;
        up.resize(input.len() / layer.up.n_in * n_up, 0.0);
        layer.up.apply(gemm, Matrix::of_rows(input, layer.up.n_in), Output::Replace, up);
        let activation = self.shape.activation;
        match self.shape.feed_forward {
            FeedForward::Plain => share(up, n_up, |rows| activation.apply(rows)),
            FeedForward::Gated => share(up, n_up, |rows| {
                for row in rows.chunks_exact_mut(n_up) {
                    let (gate, other) = row.split_at_mut(n_up / 2);
                    activation.apply(gate);
                    multiply(gate, other);
                }
            }),
        }
        Matrix { n_cols: layer.down.n_in, ..Matrix::of_rows(up, n_up) }
    }
}

/// What attention works with, and where it writes.
struct Buffers<'a> {
    gemm: &'a GemmExecutor,
    qkv: &'a mut Vec<f32>,
    mixed: &'a mut Vec<f32>,
    attention: &'a mut Scratch,
}

impl Layer {
    /// Norms and turns the heads of queries and keys of one sequence, `[len, n_qkv]`.
    fn place(&self, heads: Heads, qkv: &mut [f32]) {
        if self.head_norms.is_none() && self.rotation.is_none() {
            return;
        }
        let n_queries = heads.n_heads * heads.head_dim;
        let n_keys = heads.n_kv_heads * heads.head_dim;
        for (position, row) in qkv.chunks_exact_mut(heads.n_qkv()).enumerate() {
            if let Some(norms) = &self.head_norms {
                norms.queries.apply(&mut row[..n_queries]);
                norms.keys.apply(&mut row[n_queries..n_queries + n_keys]);
            }
            if let Some(rotation) = &self.rotation {
                rotation.turn(&mut row[..n_queries + n_keys], heads.head_dim, position);
            }
        }
    }
}

/// Shares the sequences out: packs of about [`PACK_TOKENS`], as many for each thread. Longest first, each to the
/// emptiest pack.
fn packs(batch: &[&Sequence], n_threads: usize) -> Vec<Vec<usize>> {
    let n_tokens: usize = batch.iter().map(|sequence| sequence.tokens.len()).sum();
    let wanted = n_tokens.div_ceil(PACK_TOKENS).next_multiple_of(n_threads);
    let mut packs: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); wanted.clamp(1, batch.len().max(1))];
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&idx| std::cmp::Reverse(batch[idx].tokens.len()));
    for idx in order {
        let emptiest = packs.iter_mut().min_by_key(|(n_tokens, _)| *n_tokens).expect("there is a pack");
        emptiest.0 += batch[idx].tokens.len();
        emptiest.1.push(idx);
    }
    packs.into_iter().map(|(_, pack)| pack).filter(|pack| !pack.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_hold_every_sequence_once_and_are_even() {
        let sequences: Vec<Sequence> = (1..40).map(|len| Sequence::single(vec![0; len * 7])).collect();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        for n_threads in [1, 2, 8] {
            let packs = packs(&batch, n_threads);
            let mut all: Vec<usize> = packs.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..39).collect::<Vec<_>>());
            assert!(packs.len().is_multiple_of(n_threads), "{}", packs.len());
            let sizes: Vec<usize> =
                packs.iter().map(|pack| pack.iter().map(|&idx| sequences[idx].tokens.len()).sum()).collect();
            assert!(sizes.iter().max() <= sizes.iter().min().map(|size| size + 7 * 39).as_ref(), "{sizes:?}");
        }
        assert_eq!(packs(&batch[..1], 8), [[0]]);
    }
}
