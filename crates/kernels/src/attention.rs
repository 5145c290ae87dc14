//! Attention of one row of queries over the cells of a cache in 16-bit floats.
//!
//! A cache that several sequences share has many cells that a row must not look at. ggml goes through them one by one and
//! head by head; here they are found once for all heads, 32 at a time, and heads that share their keys and values load
//! them once. Sums are in 32-bit floats.
//!
//! There is a version for AVX-512 only: [`Attention::detect`] says whether this CPU can run it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use crate::exponent::exp_non_positive;

/// Floats of a register: the length of a head is a multiple of this.
pub const HEAD_STEP: usize = 16;
/// −∞ as a 16-bit float: the mask of a cell that must not be looked at.
const HIDDEN: i16 = 0xfc00_u16 as i16;
/// Heads that are handled at once, so that their sums fit into registers.
const HEADS: usize = 4;
/// Registers of a head that are handled at once.
const WIDTH: usize = 4;

/// Queries of the heads that share one head of keys and values, for one row.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// Head `h` has its `dim` floats at `h * stride`.
    pub values: &'a [f32],
    /// Floats from one head to the next.
    pub stride: usize,
    /// Heads.
    pub n_heads: usize,
    /// Floats of a head, a multiple of [`HEAD_STEP`].
    pub dim: usize,
    /// Factor of every product of a query and a key.
    pub scale: f32,
}

/// One head of a cache.
#[derive(Debug, Clone, Copy)]
pub struct Cells<'a> {
    /// 16-bit floats: the key of cell `c` has its `dim` floats at `c * key_stride`.
    pub keys: &'a [u16],
    /// Floats from one key to the next.
    pub key_stride: usize,
    /// The values, in the same way.
    pub values: &'a [u16],
    /// Floats from one value to the next.
    pub value_stride: usize,
    /// By cell: −∞ as a 16-bit float hides it, anything else shows it.
    pub mask: &'a [u16],
}

/// Buffers that one thread uses again and again.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    /// Cells that are looked at.
    cells: Vec<u32>,
    /// `[n_heads, padded]`, the weights of those cells.
    weights: Vec<f32>,
}

/// The right to run it: the CPU has what it needs.
#[derive(Debug, Clone, Copy)]
pub struct Attention(());

impl Attention {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_it = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            has_it.then_some(Self(()))
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Softmax over the shown cells of query · key · scale, times the values: `out`, `[n_heads, dim]`. Zeros when no cell
    /// is shown.
    ///
    /// # Panics
    /// When a slice is too short for the numbers beside it, or `dim` is no multiple of [`HEAD_STEP`].
    pub fn attend(self, scratch: &mut AttentionScratch, queries: Queries<'_>, cells: Cells<'_>, out: &mut [f32]) {
        let Queries { dim, n_heads, .. } = queries;
        let n_cells = cells.mask.len();
        let reaches = |len: usize, n: usize, stride: usize| {
            let end = n.saturating_sub(1).checked_mul(stride).and_then(|start| start.checked_add(dim));
            n == 0 || end.is_some_and(|end| len >= end)
        };
        assert!(dim > 0 && dim.is_multiple_of(HEAD_STEP), "whole registers");
        assert!(n_cells <= u32::MAX as usize, "cells have 32-bit numbers");
        assert!(reaches(queries.values.len(), n_heads, queries.stride), "queries of every head");
        assert!(reaches(cells.keys.len(), n_cells, cells.key_stride), "keys of every cell");
        assert!(reaches(cells.values.len(), n_cells, cells.value_stride), "values of every cell");
        assert_eq!(out.len(), n_heads * dim, "place for every head");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the value exists only after the CPU reported these sets; the lengths were checked.
        unsafe {
            attend(scratch, queries, cells, out);
        }
    }
}

/// # Safety
/// The lengths are those that [`Attention::attend`] checks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn attend(scratch: &mut AttentionScratch, queries: Queries<'_>, cells: Cells<'_>, out: &mut [f32]) {
    let Queries { dim, n_heads, .. } = queries;
    shown(cells.mask, &mut scratch.cells);
    let n = scratch.cells.len();
    if n == 0 {
        return out.fill(0.0);
    }
    let padded = n.next_multiple_of(HEAD_STEP);
    scratch.weights.clear();
    scratch.weights.resize(n_heads * padded, f32::NEG_INFINITY);
    let list = &scratch.cells[..];
    for first in (0..n_heads).step_by(HEADS) {
        let weights = &mut scratch.weights[first * padded..];
        // SAFETY: handed on from the caller; the list holds cells of the mask.
        unsafe {
            match (n_heads - first).min(HEADS) {
                1 => scores::<1>(queries, first, cells, list, (weights, padded)),
                2 => scores::<2>(queries, first, cells, list, (weights, padded)),
                3 => scores::<3>(queries, first, cells, list, (weights, padded)),
                _ => scores::<HEADS>(queries, first, cells, list, (weights, padded)),
            }
        }
    }
    for (weights, out) in scratch.weights.chunks_exact_mut(padded).zip(out.chunks_exact_mut(dim)) {
        // The sums of the values are divided at the end; until then its place holds the factor.
        out[0] = 1.0 / exponentials(weights);
    }
    for first in (0..n_heads).step_by(HEADS) {
        let weights = &scratch.weights[first * padded..];
        let out = &mut out[first * dim..];
        // SAFETY: as above.
        unsafe {
            match (n_heads - first).min(HEADS) {
                1 => sums::<1>(cells, list, weights, padded, (out, dim)),
                2 => sums::<2>(cells, list, weights, padded, (out, dim)),
                3 => sums::<3>(cells, list, weights, padded, (out, dim)),
                _ => sums::<HEADS>(cells, list, weights, padded, (out, dim)),
            }
        }
    }
}

/// The cells that are not hidden, in order.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn shown(mask: &[u16], cells: &mut Vec<u32>) {
    cells.clear();
    let hidden = _mm512_set1_epi16(HIDDEN);
    for (idx, chunk) in mask.chunks(32).enumerate() {
        let lanes = if chunk.len() == 32 { u32::MAX } else { (1 << chunk.len()) - 1 };
        // SAFETY: a masked load touches the lanes of the chunk only.
        let values = unsafe { _mm512_maskz_loadu_epi16(lanes, chunk.as_ptr().cast()) };
        let mut bits = _mm512_mask_cmpneq_epi16_mask(lanes, values, hidden);
        while bits != 0 {
            cells.push(idx as u32 * 32 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
}

/// Scaled products of the queries of heads `first..first + H` with the keys of `list`, into rows of `padded`.
///
/// # Safety
/// As [`attend`]; `list` holds cells of the mask and `weights` `H` rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn scores<const H: usize>(
    queries: Queries<'_>,
    first: usize,
    cells: Cells<'_>,
    list: &[u32],
    (weights, padded): (&mut [f32], usize),
) {
    for (idx, &cell) in list.iter().enumerate() {
        let mut dots = [_mm512_setzero_ps(); H];
        for at in (0..queries.dim).step_by(HEAD_STEP) {
            // SAFETY: the key of a cell of the mask, and the query of a head, have `dim` floats.
            unsafe {
                let key = cells.keys.as_ptr().add(cell as usize * cells.key_stride + at);
                let key = _mm512_cvtph_ps(_mm256_loadu_si256(key.cast()));
                for (head, dot) in dots.iter_mut().enumerate() {
                    let query = queries.values.as_ptr().add((first + head) * queries.stride + at);
                    *dot = _mm512_fmadd_ps(_mm512_loadu_ps(query), key, *dot);
                }
            }
        }
        for (head, dot) in dots.into_iter().enumerate() {
            weights[head * padded + idx] = _mm512_reduce_add_ps(dot) * queries.scale;
        }
    }
}

/// Turns scores into their exponentials, relative to the largest one, and returns their sum. Lanes of −∞ become 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn exponentials(weights: &mut [f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; HEAD_STEP];
    for chunk in weights.as_chunks::<HEAD_STEP>().0 {
        most.iter_mut().zip(chunk).for_each(|(most, value)| *most = most.max(*value));
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; HEAD_STEP];
    for chunk in weights.as_chunks_mut::<HEAD_STEP>().0 {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = exp_non_positive(*value - most);
            *sum += *value;
        }
    }
    sums.into_iter().sum()
}

/// Weighted sums of the values of `list`, for `H` heads; the first float of each head in `out` is its factor before.
///
/// # Safety
/// As [`attend`]; `list` holds cells of the mask, `weights` and `out` have `H` rows of `padded` and `dim`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn sums<const H: usize>(
    cells: Cells<'_>,
    list: &[u32],
    weights: &[f32],
    padded: usize,
    (out, dim): (&mut [f32], usize),
) {
    let mut factors = [0.0; H];
    for (head, factor) in factors.iter_mut().enumerate() {
        *factor = out[head * dim];
    }
    let n_registers = dim / HEAD_STEP;
    for first in (0..n_registers).step_by(WIDTH) {
        let at = first * HEAD_STEP;
        let place = (&mut *out, dim, at);
        // SAFETY: handed on from the caller.
        unsafe {
            match (n_registers - first).min(WIDTH) {
                1 => part::<H, 1>(cells, list, (weights, padded), &factors, place),
                2 => part::<H, 2>(cells, list, (weights, padded), &factors, place),
                3 => part::<H, 3>(cells, list, (weights, padded), &factors, place),
                _ => part::<H, WIDTH>(cells, list, (weights, padded), &factors, place),
            }
        }
    }
}

/// The floats `at..at + W * 16` of [`sums`].
///
/// # Safety
/// As [`sums`]; the floats are part of a head.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn part<const H: usize, const W: usize>(
    cells: Cells<'_>,
    list: &[u32],
    (weights, padded): (&[f32], usize),
    factors: &[f32; H],
    (out, dim, at): (&mut [f32], usize, usize),
) {
    let mut sums = [[_mm512_setzero_ps(); W]; H];
    for (idx, &cell) in list.iter().enumerate() {
        let mut values = [_mm512_setzero_ps(); W];
        for (width, value) in values.iter_mut().enumerate() {
            let from = cell as usize * cells.value_stride + at + width * HEAD_STEP;
            // SAFETY: the value of a cell of the mask has `dim` floats.
            *value = unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(cells.values.as_ptr().add(from).cast())) };
        }
        for (head, sums) in sums.iter_mut().enumerate() {
            let weight = _mm512_set1_ps(weights[head * padded + idx]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = _mm512_fmadd_ps(weight, value, *sum);
            }
        }
    }
    for (head, sums) in sums.into_iter().enumerate() {
        for (width, sum) in sums.into_iter().enumerate() {
            let place = &mut out[head * dim + at + width * HEAD_STEP..][..HEAD_STEP];
            // SAFETY: the slice has 16 floats.
            unsafe { _mm512_storeu_ps(place.as_mut_ptr(), _mm512_mul_ps(sum, _mm512_set1_ps(factors[head]))) };
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{Attention, AttentionScratch, Cells, HEAD_STEP, Queries};

    /// Numbers from -1 to 1 that a 16-bit float holds exactly.
    pub(crate) fn half(random: u64) -> (u16, f32) {
        let fraction = (random & 1023) as u16;
        let sign = (random >> 10 & 1) as u16;
        let size = 0.5 * (1.0 + f32::from(fraction) / 1024.0);
        (sign << 15 | 14 << 10 | fraction, if sign == 1 { -size } else { size })
    }

    /// The definition, in f64.
    pub(crate) fn plain(query: &[f32], cells: &[(Vec<f32>, Vec<f32>)], scale: f32) -> Vec<f64> {
        let score = |key: &[f32]| {
            query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(scale)
        };
        let scores: Vec<f64> = cells.iter().map(|(key, _)| score(key)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let at = |idx: usize| {
            weights.iter().zip(cells).map(|(weight, (_, value))| weight * f64::from(value[idx])).sum::<f64>()
        };
        (0..query.len()).map(|idx| at(idx) / total).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_softmax_over_the_shown_cells(
            n_cells in 1_usize..150, n_heads in 1_usize..10, n_registers in 1_usize..18, gap in 0_usize..40, seed: u64,
        ) {
            let Some(attention) = Attention::detect() else { return Ok(()) };
            let dim = n_registers * HEAD_STEP;
            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
            let stride = dim + gap;
            let (mut keys, mut values, mut cells) = (vec![0; n_cells * stride], vec![0; n_cells * stride], Vec::new());
            let mut mask = vec![0xfc00_u16; n_cells];
            for cell in 0..n_cells {
                let (mut key, mut value) = (Vec::new(), Vec::new());
                for idx in 0..dim {
                    let (bits, number) = half(random());
                    keys[cell * stride + idx] = bits;
                    key.push(number);
                    let (bits, number) = half(random());
                    values[cell * stride + idx] = bits;
                    value.push(number);
                }
                if random() % 3 > 0 {
                    mask[cell] = 0;
                    cells.push((key, value));
                }
            }
            let queries: Vec<f32> = (0..n_heads * dim).map(|_| (random() % 4001) as f32 / 1000.0 - 2.0).collect();
            let scale = 0.125;
            let mut out = vec![f32::NAN; n_heads * dim];
            let head_queries = Queries { values: &queries, stride: dim, n_heads, dim, scale };
            let cache = Cells { keys: &keys, key_stride: stride, values: &values, value_stride: stride, mask: &mask };
            attention.attend(&mut AttentionScratch::default(), head_queries, cache, &mut out);
            for (query, found) in queries.chunks(dim).zip(out.chunks(dim)) {
                let expected = if cells.is_empty() { vec![0.0; dim] } else { plain(query, &cells, scale) };
                for (value, expected) in found.iter().zip(expected) {
                    prop_assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} {expected}");
                }
            }
        }
    }
}
