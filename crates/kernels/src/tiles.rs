//! Attention of many rows of queries that look at much the same cells: those of a prompt.
//!
//! Rows and the heads that share keys and values are the lanes of registers, [`LANES`] of them, and go through the cells
//! that any of them sees together, [`CELLS`] at a time, with a running softmax (Milakov and Gimelshein 2018, "Online
//! normalizer calculation for softmax"; Dao and others 2022, "FlashAttention"). With queries in the lanes, softmax needs no
//! sums across a register and keys and values are used as they lie in the cache. Sums are in 32-bit floats.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::attention::{Attention, HEAD_STEP};
#[cfg(target_arch = "x86_64")]
use crate::exponent::exp_non_positive;

/// Most queries, rows times heads, of a tile.
pub const LANES: usize = 64;
/// Registers of the lanes.
const REGISTERS: usize = LANES / HEAD_STEP;
/// Cells between two looks at the largest scores, a multiple of [`STEPS`].
const CELLS: usize = 96;
/// Cells, or floats of a head, whose sums fit into registers together.
const STEPS: usize = 6;
/// So many lanes have to look at a cell, on average, before a tile is quicker than row by row.
pub const LEAST_LANES: usize = 28;

/// What each row of a tile may look at.
#[derive(Debug, Clone, Copy)]
pub struct RowMasks<'a> {
    /// Row `r` has its `n_cells` 16-bit floats at `r * stride`: −∞ hides a cell, anything else shows it.
    pub values: &'a [u16],
    /// Floats from one row to the next.
    pub stride: usize,
    /// Cells.
    pub n_cells: usize,
    /// Rows.
    pub n_rows: usize,
}

/// The queries of a tile.
#[derive(Debug, Clone, Copy)]
pub struct QueryRows<'a> {
    /// Head `h` of row `r` has its `dim` floats at `r * row_stride + h * head_stride`.
    pub values: &'a [f32],
    /// Floats from one row to the next.
    pub row_stride: usize,
    /// Floats from one head to the next.
    pub head_stride: usize,
    /// Floats of a head, a multiple of [`HEAD_STEP`].
    pub dim: usize,
    /// Factor of every product of a query and a key.
    pub scale: f32,
}

/// One head of a cache.
#[derive(Debug, Clone, Copy)]
pub struct KeysValues<'a> {
    /// 16-bit floats: the key of cell `c` has its `dim` floats at `c * key_stride`.
    pub keys: &'a [u16],
    /// Floats from one key to the next.
    pub key_stride: usize,
    /// The values, in the same way.
    pub values: &'a [u16],
    /// Floats from one value to the next.
    pub value_stride: usize,
}

/// A tile: what its rows look at, and buffers that one thread uses again and again.
#[derive(Debug, Default)]
pub struct Tile {
    n_rows: usize,
    n_heads: usize,
    n_cells: usize,
    /// Cells that any row looks at, in order.
    cells: Vec<u32>,
    /// The lanes that look at each of them.
    lanes: Vec<u64>,
    /// `[cells / 32, n_rows]`, which of 32 cells a row sees.
    seen: Vec<u32>,
    /// `[dim, LANES]`.
    queries: Vec<f32>,
    /// `[CELLS, dim]`, keys and then values.
    floats: Vec<f32>,
    /// `[CELLS, LANES]`.
    weights: Vec<f32>,
    /// `[dim, LANES]`.
    sums: Vec<f32>,
    /// `[n_rows, n_heads, dim]`, and what the last register has beyond.
    out: Vec<f32>,
}

impl Tile {
    /// Floats that [`Attention::attend_tile`] has computed for a row, `[n_heads, dim]`.
    ///
    /// # Panics
    /// When the tile has no such row, or nothing was computed.
    pub fn row(&self, row: usize, dim: usize) -> &[f32] {
        let len = self.n_heads * dim;
        &self.out[row * len..][..len]
    }
}

impl Attention {
    /// Finds what the rows of a tile look at, for `n_heads` heads of each. Answers whether they have enough in common to
    /// be computed together.
    ///
    /// # Panics
    /// When there are no or more than [`LANES`] queries, or the masks are too short for the numbers beside them.
    pub fn find(self, tile: &mut Tile, masks: RowMasks<'_>, n_heads: usize) -> bool {
        let RowMasks { values, stride, n_cells, n_rows } = masks;
        assert!((1..=LANES).contains(&(n_rows * n_heads)), "a tile of queries");
        assert!(values.len() >= (n_rows - 1) * stride + n_cells, "masks of every row");
        assert!(n_cells <= u32::MAX as usize, "cells have 32-bit numbers");
        (tile.n_rows, tile.n_heads, tile.n_cells) = (n_rows, n_heads, n_cells);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the value exists only after the CPU reported these sets.
        unsafe {
            find(tile, masks)
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Softmax over the cells that were found last, of query · key · scale, times the values; [`Tile::row`] has the results.
    /// Zeros for a row that sees no cell. Answers `false`, without results, when a value is not finite: times the weight 0
    /// it would reach rows that do not see its cell.
    ///
    /// # Panics
    /// When a slice is too short for the numbers beside it, or `dim` is no multiple of [`HEAD_STEP`].
    pub fn attend_tile(self, tile: &mut Tile, queries: QueryRows<'_>, cells: KeysValues<'_>) -> bool {
        let QueryRows { dim, row_stride, head_stride, .. } = queries;
        let last = tile.n_cells.saturating_sub(1);
        let reaches = |len: usize, stride: usize| {
            let end = last.checked_mul(stride).and_then(|start| start.checked_add(dim));
            tile.n_cells == 0 || end.is_some_and(|end| len >= end)
        };
        assert!(dim > 0 && dim.is_multiple_of(HEAD_STEP), "whole registers");
        assert!(tile.n_rows > 0 && tile.n_heads > 0, "cells were looked for");
        let steps = [(tile.n_rows - 1).checked_mul(row_stride), (tile.n_heads - 1).checked_mul(head_stride), Some(dim)];
        let end = steps.into_iter().try_fold(0_usize, |end, step| end.checked_add(step?));
        assert!(end.is_some_and(|end| queries.values.len() >= end), "queries of every row");
        assert!(reaches(cells.keys.len(), cells.key_stride), "keys of every cell");
        assert!(reaches(cells.values.len(), cells.value_stride), "values of every cell");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `find`; the lengths were checked.
        unsafe {
            attend(tile, queries, cells)
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn find(tile: &mut Tile, masks: RowMasks<'_>) -> bool {
    /// −∞ as a 16-bit float.
    const HIDDEN: i16 = 0xfc00_u16 as i16;
    let hidden = _mm512_set1_epi16(HIDDEN);
    let n_heads = tile.n_heads;
    let everyone = lanes(masks.n_rows * n_heads);
    tile.cells.clear();
    tile.lanes.clear();
    tile.seen.clear();
    let (mut n_seen, mut n_cells) = (0, 0);
    for first in (0..masks.n_cells).step_by(32) {
        let n = (masks.n_cells - first).min(32);
        let within = if n == 32 { u32::MAX } else { (1 << n) - 1 };
        let mut any = 0;
        for row in 0..masks.n_rows {
            let chunk = &masks.values[row * masks.stride + first..][..n];
            // SAFETY: a masked load touches the lanes of the chunk only.
            let values = unsafe { _mm512_maskz_loadu_epi16(within, chunk.as_ptr().cast()) };
            let seen = _mm512_mask_cmpneq_epi16_mask(within, values, hidden);
            n_seen += seen.count_ones() as usize;
            any |= seen;
            tile.seen.push(seen);
        }
        n_cells += any.count_ones() as usize;
    }
    if n_seen * n_heads < LEAST_LANES * n_cells {
        return false;
    }
    for (idx, seen) in tile.seen.chunks_exact(masks.n_rows).enumerate() {
        let (mut any, all) = seen.iter().fold((0, u32::MAX), |(any, all), seen| (any | seen, all & seen));
        while any != 0 {
            let bit = any.trailing_zeros();
            let shown = if all >> bit & 1 == 1 {
                everyone
            } else {
                let sees = |(row, seen): (usize, &u32)| {
                    if seen >> bit & 1 == 1 { lanes(n_heads) << (row * n_heads) } else { 0 }
                };
                seen.iter().enumerate().map(sees).fold(0, |shown, row| shown | row)
            };
            tile.cells.push(idx as u32 * 32 + bit);
            tile.lanes.push(shown);
            any &= any - 1;
        }
    }
    true
}

/// The first `n` lanes.
#[cfg(target_arch = "x86_64")]
const fn lanes(n: usize) -> u64 {
    if n == LANES { u64::MAX } else { (1 << n) - 1 }
}

/// # Safety
/// The lengths are those that [`Attention::attend_tile`] checks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn attend(tile: &mut Tile, queries: QueryRows<'_>, cells: KeysValues<'_>) -> bool {
    let dim = queries.dim;
    tile.queries.resize(dim * LANES, 0.0);
    tile.floats.resize(2 * CELLS * dim, 0.0);
    tile.weights.resize(CELLS * LANES, 0.0);
    tile.sums.clear();
    tile.sums.resize(dim * LANES, 0.0);
    // SAFETY: handed on from the caller.
    unsafe { turn_queries(tile, queries) };
    let (keys, values) = tile.floats.split_at_mut(CELLS * dim);
    // Finite, so that a lane without any cell has differences that are numbers.
    let mut most = [_mm512_set1_ps(f32::MIN); REGISTERS];
    let mut totals = [_mm512_setzero_ps(); REGISTERS];
    for (list, lanes) in tile.cells.chunks(CELLS).zip(tile.lanes.chunks(CELLS)) {
        // SAFETY: the list holds cells of the cache, no more than there is room for.
        let are_finite = unsafe {
            widen(cells.keys, cells.key_stride, list, dim, keys);
            widen(cells.values, cells.value_stride, list, dim, values)
        };
        if !are_finite {
            return false;
        }
        let weights = &mut tile.weights[..list.len() * LANES];
        for (keys, weights) in keys.chunks(STEPS * dim).zip(weights.chunks_mut(STEPS * LANES)) {
            match weights.len() / LANES {
                1 => scores::<1>(&tile.queries, keys, dim, weights),
                2 => scores::<2>(&tile.queries, keys, dim, weights),
                3 => scores::<3>(&tile.queries, keys, dim, weights),
                4 => scores::<4>(&tile.queries, keys, dim, weights),
                5 => scores::<5>(&tile.queries, keys, dim, weights),
                _ => scores::<STEPS>(&tile.queries, keys, dim, weights),
            }
        }
        let shrink = soften(weights, lanes, &mut most, &mut totals);
        for (idx, sums) in tile.sums.chunks_mut(STEPS * LANES).enumerate() {
            let at = (idx * STEPS, dim);
            match sums.len() / LANES {
                1 => add::<1>(weights, values, at, &shrink, sums),
                2 => add::<2>(weights, values, at, &shrink, sums),
                3 => add::<3>(weights, values, at, &shrink, sums),
                4 => add::<4>(weights, values, at, &shrink, sums),
                5 => add::<5>(weights, values, at, &shrink, sums),
                _ => add::<STEPS>(weights, values, at, &shrink, sums),
            }
        }
    }
    turn_sums(tile, dim, &totals);
    true
}

/// Queries, scaled, with their lane as the last dimension. Lanes without a query stay as they are: nobody reads theirs.
///
/// # Safety
/// As [`attend`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn turn_queries(tile: &mut Tile, queries: QueryRows<'_>) {
    let scale = _mm512_set1_ps(queries.scale);
    let n_lanes = tile.n_rows * tile.n_heads;
    for first in (0..n_lanes).step_by(HEAD_STEP) {
        for at in (0..queries.dim).step_by(HEAD_STEP) {
            let mut square = [_mm512_setzero_ps(); HEAD_STEP];
            for (idx, values) in square.iter_mut().enumerate().take(n_lanes - first) {
                let (row, head) = ((first + idx) / tile.n_heads, (first + idx) % tile.n_heads);
                let from = row * queries.row_stride + head * queries.head_stride + at;
                // SAFETY: a head of a row has `dim` floats.
                *values = _mm512_mul_ps(unsafe { _mm512_loadu_ps(queries.values.as_ptr().add(from)) }, scale);
            }
            for (idx, values) in transpose(square).into_iter().enumerate() {
                store(&mut tile.queries[(at + idx) * LANES + first..], values);
            }
        }
    }
}

/// Sums over their totals, `[n_rows, n_heads, dim]`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn turn_sums(tile: &mut Tile, dim: usize, totals: &[__m512; REGISTERS]) {
    let n_lanes = tile.n_rows * tile.n_heads;
    tile.out.resize(n_lanes.next_multiple_of(HEAD_STEP) * dim, 0.0);
    for (first, &total) in (0..n_lanes).step_by(HEAD_STEP).zip(totals) {
        let is_empty = _mm512_cmpeq_ps_mask(total, _mm512_setzero_ps());
        let factor = _mm512_mask_blend_ps(is_empty, _mm512_div_ps(_mm512_set1_ps(1.0), total), _mm512_setzero_ps());
        for at in (0..dim).step_by(HEAD_STEP) {
            let mut square = [_mm512_setzero_ps(); HEAD_STEP];
            for (idx, values) in square.iter_mut().enumerate() {
                *values = _mm512_mul_ps(load(&tile.sums[(at + idx) * LANES + first..]), factor);
            }
            for (idx, values) in transpose(square).into_iter().enumerate() {
                store(&mut tile.out[(first + idx) * dim + at..], values);
            }
        }
    }
}

/// 16-bit floats of the cells of `list` as 32-bit ones, `[list.len(), dim]`. Are all of them finite?
///
/// # Safety
/// `halves` has `dim` floats for each cell of `list`, and `out` room for them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn widen(halves: &[u16], stride: usize, list: &[u32], dim: usize, out: &mut [f32]) -> bool {
    /// All bits of the exponent: ±∞ or not a number.
    const EXPONENT: i16 = 0x7c00;
    let exponent = _mm256_set1_epi16(EXPONENT);
    let mut endless = 0;
    for (&cell, out) in list.iter().zip(out.chunks_exact_mut(dim)) {
        for at in (0..dim).step_by(HEAD_STEP) {
            // SAFETY: the caller's promise.
            let values = unsafe { _mm256_loadu_si256(halves.as_ptr().add(cell as usize * stride + at).cast()) };
            endless |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(values, exponent), exponent);
            store(&mut out[at..], _mm512_cvtph_ps(values));
        }
    }
    endless == 0
}

/// Products of all queries with `N` keys, `[N, LANES]`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn scores<const N: usize>(queries: &[f32], keys: &[f32], dim: usize, out: &mut [f32]) {
    assert!(keys.len() >= N * dim && out.len() >= N * LANES, "keys and room for their products");
    let mut dots = [[_mm512_setzero_ps(); REGISTERS]; N];
    for (at, queries) in queries.chunks_exact(LANES).take(dim).enumerate() {
        let queries = load_lanes(queries);
        for (idx, dots) in dots.iter_mut().enumerate() {
            // SAFETY: there are `N` keys of `dim` floats.
            let key = _mm512_set1_ps(unsafe { *keys.get_unchecked(idx * dim + at) });
            for (dot, query) in dots.iter_mut().zip(queries) {
                *dot = _mm512_fmadd_ps(key, query, *dot);
            }
        }
    }
    for (dots, out) in dots.into_iter().zip(out.chunks_exact_mut(LANES)) {
        for (idx, dot) in dots.into_iter().enumerate() {
            store(&mut out[idx * HEAD_STEP..], dot);
        }
    }
}

/// Turns scores, `[cells, LANES]`, into exponentials relative to the largest score of each lane so far, 0 where a lane does
/// not see a cell. Answers with the factor of all earlier sums, if any changes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn soften(
    weights: &mut [f32],
    lanes: &[u64],
    most: &mut [__m512; REGISTERS],
    totals: &mut [__m512; REGISTERS],
) -> Option<[__m512; REGISTERS]> {
    let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
    let before = *most;
    for (scores, lanes) in weights.chunks_exact_mut(LANES).zip(lanes) {
        for (idx, most) in most.iter_mut().enumerate() {
            let place = &mut scores[idx * HEAD_STEP..];
            let shown = _mm512_mask_blend_ps((lanes >> (idx * HEAD_STEP)) as u16, hidden, load(place));
            *most = _mm512_max_ps(*most, shown);
            store(place, shown);
        }
    }
    let mut sums = [[0.0; HEAD_STEP]; REGISTERS];
    let mut highest = [[0.0; HEAD_STEP]; REGISTERS];
    for (place, &most) in highest.iter_mut().zip(&*most) {
        store(place, most);
    }
    for scores in weights.chunks_exact_mut(LANES) {
        let registers = scores.as_chunks_mut::<HEAD_STEP>().0.iter_mut();
        for ((values, most), sums) in registers.zip(&highest).zip(&mut sums) {
            for ((value, most), sum) in values.iter_mut().zip(most).zip(sums) {
                *value = exp_non_positive(*value - most);
                *sum += *value;
            }
        }
    }
    let is_higher = before.iter().zip(&*most).any(|(before, most)| _mm512_cmpneq_ps_mask(*before, *most) != 0);
    let mut factors = [_mm512_set1_ps(1.0); REGISTERS];
    for (idx, factor) in factors.iter_mut().enumerate() {
        if is_higher {
            let mut differences = [0.0; HEAD_STEP];
            store(&mut differences, _mm512_sub_ps(before[idx], most[idx]));
            *factor = load(&differences.map(exp_non_positive));
        }
        totals[idx] = _mm512_fmadd_ps(totals[idx], *factor, load(&sums[idx]));
    }
    is_higher.then_some(factors)
}

/// Adds weighted values of the floats `at..at + N` of a head to their sums, `[N, LANES]`, which shrink before.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add<const N: usize>(
    weights: &[f32],
    values: &[f32],
    (at, dim): (usize, usize),
    shrink: &Option<[__m512; REGISTERS]>,
    out: &mut [f32],
) {
    assert!(out.len() >= N * LANES && at + N <= dim && values.len() >= weights.len() / LANES * dim, "room and values");
    let mut sums = [[_mm512_setzero_ps(); REGISTERS]; N];
    for (sums, out) in sums.iter_mut().zip(out.chunks_exact(LANES)) {
        for (idx, sum) in sums.iter_mut().enumerate() {
            *sum = load(&out[idx * HEAD_STEP..]);
            if let Some(factors) = shrink {
                *sum = _mm512_mul_ps(*sum, factors[idx]);
            }
        }
    }
    for (cell, weights) in weights.chunks_exact(LANES).enumerate() {
        let weights = load_lanes(weights);
        for (idx, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `dim` values for each cell with weights.
            let value = _mm512_set1_ps(unsafe { *values.get_unchecked(cell * dim + at + idx) });
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = _mm512_fmadd_ps(value, weight, *sum);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(LANES)) {
        for (idx, sum) in sums.into_iter().enumerate() {
            store(&mut out[idx * HEAD_STEP..], sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn load(values: &[f32]) -> __m512 {
    let values = &values[..HEAD_STEP];
    // SAFETY: the slice has 16 floats.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn store(place: &mut [f32], values: __m512) {
    let place = &mut place[..HEAD_STEP];
    // SAFETY: the slice has 16 floats.
    unsafe { _mm512_storeu_ps(place.as_mut_ptr(), values) };
}

/// A row of [`LANES`] floats.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn load_lanes(values: &[f32]) -> [__m512; REGISTERS] {
    let mut registers = [_mm512_setzero_ps(); REGISTERS];
    for (register, values) in registers.iter_mut().zip(values.as_chunks::<HEAD_STEP>().0) {
        *register = load(values);
    }
    registers
}

/// Rows become columns: pairs of floats, then of pairs, then of quarters of registers change places.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn transpose(rows: [__m512; HEAD_STEP]) -> [__m512; HEAD_STEP] {
    let zero = _mm512_setzero_ps();
    let (mut pairs, mut fours, mut halves, mut out) = ([zero; 16], [zero; 16], [zero; 16], [zero; 16]);
    for idx in 0..8 {
        pairs[2 * idx] = _mm512_unpacklo_ps(rows[2 * idx], rows[2 * idx + 1]);
        pairs[2 * idx + 1] = _mm512_unpackhi_ps(rows[2 * idx], rows[2 * idx + 1]);
    }
    // In each quarter q of `fours[4 i + j]`: float 4 q + j of rows 4 i to 4 i + 3.
    for first in (0..16).step_by(4) {
        for idx in 0..2 {
            let low = _mm512_castps_pd(pairs[first + idx]);
            let high = _mm512_castps_pd(pairs[first + 2 + idx]);
            fours[first + 2 * idx] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            fours[first + 2 * idx + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    for idx in 0..4 {
        // Quarters 0 and 2, then 1 and 3, of rows 0 to 7 and of rows 8 to 15.
        halves[idx] = _mm512_shuffle_f32x4::<0x88>(fours[idx], fours[4 + idx]);
        halves[4 + idx] = _mm512_shuffle_f32x4::<0xdd>(fours[idx], fours[4 + idx]);
        halves[8 + idx] = _mm512_shuffle_f32x4::<0x88>(fours[8 + idx], fours[12 + idx]);
        halves[12 + idx] = _mm512_shuffle_f32x4::<0xdd>(fours[8 + idx], fours[12 + idx]);
    }
    for idx in 0..4 {
        out[idx] = _mm512_shuffle_f32x4::<0x88>(halves[idx], halves[8 + idx]);
        out[4 + idx] = _mm512_shuffle_f32x4::<0x88>(halves[4 + idx], halves[12 + idx]);
        out[8 + idx] = _mm512_shuffle_f32x4::<0xdd>(halves[idx], halves[8 + idx]);
        out[12 + idx] = _mm512_shuffle_f32x4::<0xdd>(halves[4 + idx], halves[12 + idx]);
    }
    out
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attention::tests::{half, plain};

    proptest! {
        #[test]
        fn it_is_the_softmax_over_what_each_row_sees(
            n_rows in 1_usize..LANES + 1, heads in 1_usize..LANES + 1, n_registers in 1_usize..18, n_cells in 1_usize..300,
            gap in 0_usize..20, hidden in 0_u64..4, seed: u64,
        ) {
            let Some(attention) = Attention::detect() else { return Ok(()) };
            let n_heads = heads.min(LANES / n_rows);
            let dim = n_registers * HEAD_STEP;
            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
            let stride = dim + gap;
            let mut halves = |n: usize| -> (Vec<u16>, Vec<f32>) { (0..n).map(|_| half(random())).unzip() };
            let ((keys, key_floats), (values, value_floats)) = (halves(n_cells * stride), halves(n_cells * stride));
            let mask_stride = n_cells + gap;
            // From everything shown to a quarter of it, and a row that sees nothing.
            let mut mask: Vec<u16> =
                (0..n_rows * mask_stride).map(|_| if random() % 4 < hidden { 0xfc00 } else { 0 }).collect();
            mask[(n_rows - 1) * mask_stride..].fill(if seed % 2 == 0 { 0xfc00 } else { 0 });
            let row_stride = n_heads * stride;
            let queries: Vec<f32> = (0..n_rows * row_stride).map(|_| (random() % 8001) as f32 / 1000.0 - 4.0).collect();

            let mut tile = used_tile(attention, seed);
            look_at(&mut tile, attention, RowMasks { values: &mask, stride: mask_stride, n_cells, n_rows }, n_heads);
            let rows = QueryRows { values: &queries, row_stride, head_stride: stride, dim, scale: 0.25 };
            let cells = KeysValues { keys: &keys, key_stride: stride, values: &values, value_stride: stride };
            prop_assert!(attention.attend_tile(&mut tile, rows, cells));
            for row in 0..n_rows {
                let sees = |cell: &usize| mask[row * mask_stride + cell] == 0;
                let floats = |floats: &[f32], cell: usize| floats[cell * stride..][..dim].to_vec();
                let seen: Vec<_> = (0..n_cells)
                    .filter(sees)
                    .map(|cell| (floats(&key_floats, cell), floats(&value_floats, cell)))
                    .collect();
                for (head, found) in tile.row(row, dim).chunks(dim).enumerate() {
                    let query = &queries[row * row_stride + head * stride..][..dim];
                    let expected = if seen.is_empty() { vec![0.0; dim] } else { plain(query, &seen, 0.25) };
                    for (value, expected) in found.iter().zip(expected) {
                        prop_assert!((f64::from(*value) - expected).abs() < 1e-5, "{row} {head}: {value} {expected}");
                    }
                }
            }
        }
    }

    /// Has the cells found, also where they do not pay.
    fn look_at(tile: &mut Tile, attention: Attention, masks: RowMasks<'_>, n_heads: usize) {
        if !attention.find(tile, masks, n_heads) {
            let sees = |row: usize, cell: usize| masks.values[row * masks.stride + cell] != 0xfc00;
            for cell in 0..masks.n_cells {
                let rows = (0..masks.n_rows).filter(|&row| sees(row, cell));
                let shown = rows.fold(0, |shown, row| shown | lanes(n_heads) << (row * n_heads));
                if shown != 0 {
                    tile.cells.push(cell as u32);
                    tile.lanes.push(shown);
                }
            }
        }
    }

    /// A tile that something else was computed with, of other sizes.
    fn used_tile(attention: Attention, seed: u64) -> Tile {
        let mut tile = Tile::default();
        let (n_rows, n_cells, dim) =
            (1 + seed as usize % LANES, 1 + seed as usize % 200, HEAD_STEP * (1 + seed as usize % 9));
        let mask = vec![0; n_rows * n_cells];
        look_at(&mut tile, attention, RowMasks { values: &mask, stride: n_cells, n_cells, n_rows }, 1);
        let queries = vec![3.0; n_rows * dim];
        let halves = vec![0x7bff; n_cells * dim];
        let rows = QueryRows { values: &queries, row_stride: dim, head_stride: dim, dim, scale: 1.0 };
        let cells = KeysValues { keys: &halves, key_stride: dim, values: &halves, value_stride: dim };
        assert!(attention.attend_tile(&mut tile, rows, cells), "the largest numbers are finite");
        tile
    }

    #[test]
    fn values_without_end_are_left_to_others() {
        let Some(attention) = Attention::detect() else { return };
        let (n_cells, dim) = (40, HEAD_STEP);
        let queries = vec![0.5; 32 * dim];
        let mask = vec![0; 32 * n_cells];
        let keys = vec![0; n_cells * dim];
        for endless in [0x7c00, 0xfc00, 0x7e01] {
            let mut values = vec![0x3c00; n_cells * dim];
            values[17 * dim + 3] = endless;
            let mut tile = Tile::default();
            assert!(attention.find(&mut tile, RowMasks { values: &mask, stride: n_cells, n_cells, n_rows: 32 }, 1));
            let rows = QueryRows { values: &queries, row_stride: dim, head_stride: dim, dim, scale: 1.0 };
            let cells = KeysValues { keys: &keys, key_stride: dim, values: &values, value_stride: dim };
            assert!(!attention.attend_tile(&mut tile, rows, cells), "{endless:x}");
        }
    }

    #[test]
    fn a_tile_pays_where_rows_see_the_same() {
        let Some(attention) = Attention::detect() else { return };
        let pays = |n_rows: usize, sees: &dyn Fn(usize, usize) -> bool| {
            let shown = |idx: usize| if sees(idx / 1000, idx % 1000) { 0 } else { 0xfc00 };
            let values: Vec<u16> = (0..n_rows * 1000).map(shown).collect();
            attention.find(&mut Tile::default(), RowMasks { values: &values, stride: 1000, n_cells: 1000, n_rows }, 3)
        };
        assert!(pays(21, &|row, cell| cell <= 300 + row), "a prompt");
        assert!(pays(21, &|row, cell| (row < 10) == (cell < 500)), "two prompts");
        assert!(!pays(21, &|row, cell| cell / 40 == row), "answers of sequences of their own");
        assert!(!pays(8, &|_, _| true), "few rows");
    }
}
