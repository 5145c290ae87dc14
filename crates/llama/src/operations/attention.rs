//! Attention over a cache in 16-bit floats: rows that look at much the same cells together, others one by one.

use ingle_kernels::{Attention, Cells, HEAD_STEP, KeysValues, LANES, LEAST_LANES, Queries, QueryRows, RowMasks};

use super::{ComputeParams, PoolFunctions, SCRATCH, sizes, source};
use crate::ffi::sys;

/// Fewer rows are computed one by one. A row alone gives the same numbers whatever others there are, a tile rounds by what
/// its rows see together: answers shall not depend on how many others there are, as far as that can be had.
const LEAST_TILED_ROWS: usize = 64;
/// Units that each thread should find, so that all end at about the same time.
const UNITS: usize = 4;
/// …and at least this many of them, if need be with fewer rows in a tile.
const LEAST_UNITS: usize = 2;

/// Attention with a mask and nothing else.
///
/// # Safety
/// As [`super::compute`].
pub(super) unsafe fn attend(pool: &PoolFunctions, params: &ComputeParams, node: &sys::ggml_tensor) -> bool {
    // SAFETY: handed on from the caller.
    let sources = unsafe { [source(node, 0), source(node, 1), source(node, 2), source(node, 3)] };
    let [Some(queries), Some(keys), Some(values), Some(mask)] = sources else { return false };
    let Some(attention) = Attention::detect().filter(|_| node.src[4].is_null()) else { return false };
    let sources = [queries, keys, values, mask];
    let Some(shape) = AttentionShape::of(node, sources) else { return false };
    let operation = Operation { attention, shape, sources, node };
    // SAFETY: the shape is that of the tensors, and all threads come here.
    unsafe {
        match operation.tile_rows(params.n_threads as usize) {
            _ if operation.shape.n_rows < LEAST_TILED_ROWS => operation.row_by_row(params),
            // Too many heads share their keys, or too many threads the rows.
            0 => return false,
            n_tile_rows => operation.in_tiles(pool, params, n_tile_rows),
        }
    }
    true
}

/// One attention, with its tensors: queries, keys, values and mask.
struct Operation<'a> {
    attention: Attention,
    shape: AttentionShape,
    sources: [&'a sys::ggml_tensor; 4],
    node: &'a sys::ggml_tensor,
}

impl Operation<'_> {
    /// Rows of a tile, 0 where tiles do not pay.
    fn tile_rows(&self, n_threads: usize) -> usize {
        let shape = &self.shape;
        let n_rows = (shape.n_rows * shape.n_groups / (LEAST_UNITS * n_threads)).min(LANES / shape.group);
        if n_rows * shape.group < LEAST_LANES { 0 } else { n_rows }
    }

    /// # Safety
    /// The shape is that of the tensors; every thread calls it, and nobody else writes the results.
    unsafe fn row_by_row(&self, params: &ComputeParams) {
        let shape = &self.shape;
        let n_units = shape.n_rows * shape.n_groups;
        let n_threads = params.n_threads as usize;
        // Groups load keys and values once for all their heads; single heads are spread more evenly over the threads.
        let n_heads = if n_units.is_multiple_of(n_threads) || n_units >= 8 * n_threads { shape.group } else { 1 };
        let n_parts = shape.group / n_heads;
        for unit in (params.thread_idx as usize..n_units * n_parts).step_by(n_threads) {
            let (row, head) = (unit / (shape.n_groups * n_parts), unit % (shape.n_groups * n_parts) * n_heads);
            // SAFETY: each unit is one thread's.
            unsafe { self.attend_row(row, head, n_heads) };
        }
    }

    /// # Safety
    /// As [`Self::row_by_row`]; the pool runs this graph.
    unsafe fn in_tiles(&self, pool: &PoolFunctions, params: &ComputeParams, n_tile_rows: usize) {
        let shape = &self.shape;
        let n_threads = params.n_threads as usize;
        let n_blocks = shape.n_rows.div_ceil(n_tile_rows);
        // Cells are looked for once in a unit.
        let n_parts = (UNITS * n_threads).div_ceil(n_blocks).clamp(1, shape.n_groups);
        // SAFETY: the caller's promise.
        unsafe {
            if params.thread_idx == 0 {
                (pool.set_chunk)(params.pool, params.n_threads);
            }
            (pool.barrier)(params.pool);
        }
        let mut unit = params.thread_idx as usize;
        while unit < n_blocks * n_parts {
            // Last rows see most: they are the longest to compute, and come first.
            let (block, part) = (n_blocks - 1 - unit / n_parts, unit % n_parts);
            let first = block * n_tile_rows;
            let rows = (first, (first + n_tile_rows).min(shape.n_rows));
            let groups = (shape.n_groups * part / n_parts, shape.n_groups * (part + 1) / n_parts);
            // SAFETY: each unit is taken by one thread.
            unsafe {
                self.attend_rows(rows, groups);
                unit = (pool.add_chunk)(params.pool, 1) as usize;
            }
        }
    }

    /// Rows `from..to`, at most a tile of them, of groups `first..last`.
    ///
    /// # Safety
    /// The shape is that of the tensors, and no other thread computes these.
    unsafe fn attend_rows(&self, (from, to): (usize, usize), (first, last): (usize, usize)) {
        let shape = &self.shape;
        let mask = self.sources[3];
        let n_rows = to - from;
        // SAFETY: rows of the mask, which ends with the last cell of the last row.
        let masks = unsafe {
            let start = mask.data.cast::<u8>().add(from * mask.nb[1]).cast::<u16>();
            let stride = mask.nb[1] / 2;
            let values = std::slice::from_raw_parts(start.cast_const(), (n_rows - 1) * stride + shape.n_cells);
            RowMasks { values, stride, n_cells: shape.n_cells, n_rows }
        };
        let is_tile = SCRATCH.with_borrow_mut(|scratch| self.attention.find(&mut scratch.tile, masks, shape.group));
        for group in first..last {
            let head = group * shape.group;
            // SAFETY: these heads are this thread's.
            unsafe {
                if !is_tile || !self.attend_tile((from, to), group) {
                    (from..to).for_each(|row| self.attend_row(row, head, shape.group));
                }
            }
        }
    }

    /// Rows of a group as the tile that was found last; `false` when they have to be computed one by one.
    ///
    /// # Safety
    /// As [`Self::attend_rows`].
    unsafe fn attend_tile(&self, (from, to): (usize, usize), group: usize) -> bool {
        let shape = &self.shape;
        let [queries, keys, values, _] = self.sources;
        let head = group * shape.group;
        // SAFETY: offsets inside the tensors; a slice ends with the last float that belongs to it.
        let (rows, cells) = unsafe {
            let start = queries.data.cast::<u8>().add(from * queries.nb[1] + head * queries.nb[2]).cast::<f32>();
            let (row_stride, head_stride) = (queries.nb[1] / size_of::<f32>(), queries.nb[2] / size_of::<f32>());
            let n_floats = (to - from - 1) * row_stride + (shape.group - 1) * head_stride + shape.dim;
            let floats = std::slice::from_raw_parts(start.cast_const(), n_floats);
            let rows = QueryRows { values: floats, row_stride, head_stride, dim: shape.dim, scale: shape.scale };
            let (keys, key_stride) = shape.halves(keys, group);
            let (values, value_stride) = shape.halves(values, group);
            (rows, KeysValues { keys, key_stride, values, value_stride })
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let is_computed = self.attention.attend_tile(&mut scratch.tile, rows, cells);
            for row in (from..to).filter(|_| is_computed) {
                // SAFETY: the place of these heads of the row.
                let out = unsafe { self.place(row, head, shape.group) };
                out.copy_from_slice(scratch.tile.row(row - from, shape.dim));
            }
            is_computed
        })
    }

    /// Where the results of heads `head..head + n_heads` of a row go.
    ///
    /// # Safety
    /// They exist, and nobody else has the place.
    #[expect(clippy::mut_from_ref, reason = "threads share the tensor and not its parts")]
    unsafe fn place(&self, row: usize, head: usize, n_heads: usize) -> &mut [f32] {
        let shape = &self.shape;
        // SAFETY: the caller's promise.
        unsafe {
            let out = self.node.data.cast::<f32>().add((row * shape.n_heads + head) * shape.dim);
            std::slice::from_raw_parts_mut(out, n_heads * shape.dim)
        }
    }

    /// Heads `head..head + n_heads` of a row; they share their keys.
    ///
    /// # Safety
    /// The shape is that of the tensors, and no other thread computes these heads.
    unsafe fn attend_row(&self, row: usize, head: usize, n_heads: usize) {
        let shape = &self.shape;
        let [queries, keys, values, mask] = self.sources;
        let group = head / shape.group;
        // SAFETY: offsets inside the tensors; a slice ends with the last float that belongs to it.
        let (head_queries, cells, out) = unsafe {
            let start = queries.data.cast::<u8>().add(row * queries.nb[1] + head * queries.nb[2]).cast::<f32>();
            let stride = queries.nb[2] / size_of::<f32>();
            let n_floats = (n_heads - 1) * stride + shape.dim;
            let head_queries = Queries {
                values: std::slice::from_raw_parts(start.cast_const(), n_floats),
                stride,
                n_heads,
                dim: shape.dim,
                scale: shape.scale,
            };
            let hidden = mask.data.cast::<u8>().add(row * mask.nb[1]).cast::<u16>();
            let (keys, key_stride) = shape.halves(keys, group);
            let (values, value_stride) = shape.halves(values, group);
            let mask = std::slice::from_raw_parts(hidden.cast_const(), shape.n_cells);
            (head_queries, Cells { keys, key_stride, values, value_stride, mask }, self.place(row, head, n_heads))
        };
        SCRATCH.with_borrow_mut(|scratch| self.attention.attend(&mut scratch.attention, head_queries, cells, out));
    }
}

/// Sizes of an attention.
struct AttentionShape {
    dim: usize,
    n_rows: usize,
    n_heads: usize,
    /// Heads that share keys and values.
    group: usize,
    n_groups: usize,
    n_cells: usize,
    scale: f32,
}

impl AttentionShape {
    /// `None` for a form that is left to ggml.
    fn of(node: &sys::ggml_tensor, [queries, keys, values, mask]: [&sys::ggml_tensor; 4]) -> Option<Self> {
        let [dim, n_rows, n_heads, 1] = sizes(queries)? else { return None };
        let [key_dim, n_cells, n_groups, 1] = sizes(keys)? else { return None };
        let [mask_cells, mask_rows, 1, 1] = sizes(mask)? else { return None };
        let is_half = |tensor: &sys::ggml_tensor| {
            tensor.type_ == sys::GGML_TYPE_F16 && tensor.nb[0] == size_of::<u16>() && tensor.nb[1].is_multiple_of(2)
        };
        let is_float = |tensor: &sys::ggml_tensor| {
            tensor.type_ == sys::GGML_TYPE_F32
                && tensor.nb[0] == size_of::<f32>()
                && (tensor.nb[1] | tensor.nb[2]).is_multiple_of(4)
        };
        let [scale, max_bias, softcap] = [0, 1, 2].map(|idx| f32::from_bits(node.op_params[idx] as u32));
        let fits = sizes(values)? == [dim, n_cells, n_groups, 1]
            && sizes(node)? == [dim, n_heads, n_rows, 1]
            && key_dim == dim
            && dim.is_multiple_of(HEAD_STEP)
            && n_heads.is_multiple_of(n_groups)
            && mask_cells >= n_cells
            && mask_rows >= n_rows;
        let forms = is_float(queries) && is_float(node) && is_half(keys) && is_half(values) && is_half(mask);
        let is_whole = node.nb[1] == dim * size_of::<f32>() && node.nb[2] == n_heads * node.nb[1];
        let is_plain = max_bias == 0.0 && softcap == 0.0;
        let group = n_heads / n_groups;
        (fits && forms && is_whole && is_plain).then_some(Self {
            dim,
            n_rows,
            n_heads,
            group,
            n_groups,
            n_cells,
            scale,
        })
    }

    /// Keys or values of a group, and the floats from one cell to the next.
    ///
    /// # Safety
    /// The shape is that of the tensor.
    unsafe fn halves<'a>(&self, tensor: &'a sys::ggml_tensor, group: usize) -> (&'a [u16], usize) {
        let stride = tensor.nb[1] / 2;
        // SAFETY: the slice ends with the last float of the last cell.
        unsafe {
            let start = tensor.data.cast::<u8>().add(group * tensor.nb[2]).cast::<u16>();
            (std::slice::from_raw_parts(start.cast_const(), (self.n_cells - 1) * stride + self.dim), stride)
        }
    }
}
