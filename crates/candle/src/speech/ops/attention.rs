//! Multi-head attention over keys and values that lie head beside head in their rows.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions};
use rten_simd::SimdOp;
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{ExtendInit, Softmax};

use super::{f32_slice, row_stride};

/// Rows of queries whose scores are held at once: with 1,500 keys their scores still fit the second-level cache.
const ROWS_AT_ONCE: usize = 64;

/// Below this many query rows packing the keys costs more than it saves.
const PACKED_FROM_ROWS: usize = 16;

/// Which keys a query sees.
pub enum Visible {
    /// All of them.
    All,
    /// Query `t` of item `i` sees the first `past[i] + t + 1`.
    Causal {
        /// `[n_items]`
        past: Vec<usize>,
    },
}

/// `softmax(q kᵀ / √n_dims) v` for each head.
pub struct Attention {
    /// Heads; each has the width of a row divided by this.
    pub n_heads: usize,
    /// Which keys a query sees.
    pub visible: Visible,
    /// `[n_items]`: the entry of keys and values that each item of queries reads. Items that read the same one must
    /// follow each other.
    pub source: Vec<usize>,
}

/// A part of a batch that one thread computes: some rows of one head.
struct Work {
    item: usize,
    /// Following items that read the same keys and are computed with this one.
    n_items: usize,
    head: usize,
}

impl Attention {
    /// `queries` `[n_items, n_queries, width]`, `keys` and `values` `[n_sources, n_keys, width]`, to
    /// `[n_items, n_queries, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit each other.
    pub fn forward(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        self.check(queries.dims3()?, keys.dims3()?, values.dims3()?)?;
        if queries.device().is_cpu() {
            return queries.apply_op3_no_bwd(keys, values, &OnCpu(self));
        }
        self.composed(queries, keys, values)
    }

    fn check(&self, q: (usize, usize, usize), k: (usize, usize, usize), v: (usize, usize, usize)) -> Result<()> {
        let seen = match &self.visible {
            Visible::All => k.1,
            Visible::Causal { past } => past.iter().max().map_or(0, |past| past + q.1),
        };
        let fits = k == v
            && q.2 == k.2
            && q.2.is_multiple_of(self.n_heads.max(1))
            && self.source.len() == q.0
            && self.source.iter().all(|&source| source < k.0)
            && seen <= k.1;
        if !fits {
            candle_core::bail!("queries {q:?}, keys {k:?} and values {v:?} of {} heads do not fit", self.n_heads);
        }
        Ok(())
    }

    /// The same in candle's own operations.
    pub(super) fn composed(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (n_items, n_queries, width) = queries.dims3()?;
        let n_keys = keys.dim(1)?;
        let source: Vec<u32> = self.source.iter().map(|&source| source as u32).collect();
        let source = Tensor::new(source, queries.device())?;
        let heads = |tensor: &Tensor| {
            let n_rows = tensor.dim(1)?;
            tensor
                .contiguous()?
                .reshape((n_items, n_rows, self.n_heads, width / self.n_heads))?
                .transpose(1, 2)?
                .contiguous()
        };
        let queries = heads(queries)?;
        let keys = heads(&keys.contiguous()?.index_select(&source, 0)?)?;
        let values = heads(&values.contiguous()?.index_select(&source, 0)?)?;
        let scale = 1.0 / ((width / self.n_heads) as f64).sqrt();
        let mut scores = (queries.matmul(&keys.t()?)? * scale)?;
        if let Visible::Causal { past } = &self.visible {
            let hidden =
                |item: usize, query: usize, key: usize| if key <= past[item] + query { 0.0 } else { f32::NEG_INFINITY };
            let mask: Vec<f32> = (0..n_items * n_queries * n_keys)
                .map(|at| hidden(at / (n_queries * n_keys), at / n_keys % n_queries, at % n_keys))
                .collect();
            let mask = Tensor::from_vec(mask, (n_items, 1, n_queries, n_keys), scores.device())?;
            scores = scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?;
        weights.matmul(&values)?.transpose(1, 2)?.contiguous()?.reshape((n_items, n_queries, width))
    }

    /// Work for the threads. Queries of several items that see all keys of the same source are one matrix.
    fn work(&self, n_items: usize) -> Vec<Work> {
        let mut work = Vec::new();
        let mut item = 0;
        while item < n_items {
            let same = self.source[item..].iter().take_while(|&&source| source == self.source[item]).count();
            let n_items = if matches!(self.visible, Visible::All) { same } else { 1 };
            work.extend((0..self.n_heads).map(|head| Work { item, n_items, head }));
            item += n_items;
        }
        work
    }
}

struct OnCpu<'a>(&'a Attention);

/// Rows of a tensor `[n, n_rows, width]` in memory.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    item_stride: usize,
    row_stride: usize,
}

impl<'a> Rows<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (item_stride, row_stride) = (layout.stride()[0], row_stride(layout)?);
        Ok(Self { values: f32_slice(storage, layout)?, item_stride, row_stride })
    }

    /// `n_rows` rows of one item from `first` on, `columns` columns from `column` on.
    fn matrix(&self, item: usize, first: usize, n_rows: usize, columns: std::ops::Range<usize>) -> Matrix<'a, f32> {
        let start = item * self.item_stride + first * self.row_stride + columns.start;
        let shape = [n_rows, columns.len()];
        NdTensorView::from_slice_with_strides(shape, &self.values[start..], [self.row_stride, 1])
            .expect("the layout of a tensor covers its rows; this is a bug")
    }
}

impl CustomOp3 for OnCpu<'_> {
    fn name(&self) -> &'static str {
        "speech-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (queries, keys, values) = (Rows::new(s1, l1)?, Rows::new(s2, l2)?, Rows::new(s3, l3)?);
        let (n_items, n_queries, width) = l1.shape().dims3()?;
        let tensors = Tensors { queries, keys, values, n_queries, n_keys: l2.shape().dims3()?.1 };
        let n_dims = width / self.0.n_heads;
        let work = self.0.work(n_items);
        let parts: Vec<Vec<f32>> = work.par_iter().map(|part| self.0.part(&tensors, part, n_dims)).collect();
        let mut output = vec![0.0; n_items * n_queries * width];
        for (part, values) in work.iter().zip(&parts) {
            let rows = output[part.item * n_queries * width..].chunks_mut(width);
            for (row, values) in rows.zip(values.chunks(n_dims)) {
                row[part.head * n_dims..][..n_dims].copy_from_slice(values);
            }
        }
        Ok((CpuStorage::F32(output), (n_items, n_queries, width).into()))
    }
}

struct Tensors<'a> {
    queries: Rows<'a>,
    keys: Rows<'a>,
    values: Rows<'a>,
    n_queries: usize,
    n_keys: usize,
}

impl Attention {
    /// One head of one or several items: `[n_items · n_queries, n_dims]`.
    fn part(&self, tensors: &Tensors, part: &Work, n_dims: usize) -> Vec<f32> {
        let columns = part.head * n_dims..(part.head + 1) * n_dims;
        let n_rows = part.n_items * tensors.n_queries;
        let rows = Rows { item_stride: 0, ..tensors.queries };
        let contiguous_items = tensors.queries.item_stride == tensors.n_queries * tensors.queries.row_stride;
        debug_assert!(contiguous_items || part.n_items == 1, "items that are computed together follow each other");
        let start = part.item * tensors.queries.item_stride;
        let queries = Rows { values: &rows.values[start..], ..rows };
        let source = self.source[part.item];
        let n_seen = match &self.visible {
            Visible::All => tensors.n_keys,
            Visible::Causal { past } => past[part.item] + tensors.n_queries,
        };
        let keys = tensors.keys.matrix(source, 0, n_seen, columns.clone());
        let values = tensors.values.matrix(source, 0, n_seen, columns.clone());
        let executor = GemmExecutor::<f32>::default();
        let packed =
            (n_rows >= PACKED_FROM_ROWS).then(|| (executor.prepack_b(keys.transposed()), executor.prepack_b(values)));
        let (keys, values) = match &packed {
            Some((keys, values)) => (GemmInputB::Packed(keys), GemmInputB::Packed(values)),
            None => (GemmInputB::Unpacked(keys.transposed()), GemmInputB::Unpacked(values)),
        };
        let mut output = Vec::with_capacity(n_rows * n_dims);
        for first in (0..n_rows).step_by(ROWS_AT_ONCE) {
            let n = ROWS_AT_ONCE.min(n_rows - first);
            let block = queries.matrix(0, first, n, columns.clone());
            let mut scores = product(block, keys, 1.0 / (n_dims as f32).sqrt());
            for (row, scores) in scores.chunks_mut(n_seen).enumerate() {
                self.softmax(scores, part.item, first + row);
            }
            output.extend(product(NdTensorView::from_data([n, n_seen], &scores[..]), values, 1.0));
        }
        output
    }

    /// Scores of one query become weights; keys it does not see weigh nothing.
    fn softmax(&self, scores: &mut [f32], item: usize, query: usize) {
        let n_seen = match &self.visible {
            Visible::All => scores.len(),
            Visible::Causal { past } => past[item] + query + 1,
        };
        let (seen, hidden) = scores.split_at_mut(n_seen);
        Softmax::new_mut(seen).dispatch();
        hidden.fill(0.0);
    }
}

/// `factor · a b`, `[a's rows, b's columns]`.
fn product(a: Matrix<f32>, b: GemmInputB<f32>, factor: f32) -> Vec<f32> {
    let n_values = rten_tensor::MatrixLayout::rows(&a) * b.cols();
    let mut output = Vec::with_capacity(n_values);
    output.extend_init(|room| {
        let options = GemmUninitOptions { alpha: factor, ..Default::default() };
        let room = &mut room[..n_values];
        let written = GemmExecutor::<f32>::default().gemm_uninit(room, GemmInputA::Unpacked(a), b, options);
        written.expect("the shapes of attention were compared; this is a bug")
    });
    output
}
