//! The product of a matrix in blocks of 4, 5 or 8 bits (ggml's Q4_0, Q4_1, Q5_0, Q5_1, Q8_0) and a few columns of floats.
//!
//! ggml takes a weight block apart anew for each column. Here it is taken apart once for eight columns, and two blocks at a
//! time fill a 512-bit register, so that prompts and steps with several sequences cost a fraction, and a single column
//! less too. Columns are rounded to 8 bits by blocks of 32, as ggml does. Every form is read as unsigned numbers with a
//! scale and an offset for each block; an offset is multiplied by the sum of the column's block.
//!
//! There is a version for AVX-512 with VNNI only: [`Product::detect`] says whether this CPU can run it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Weights of a block.
pub const BLOCK: usize = 32;
/// Two blocks fill a register: row lengths are multiples of this.
pub const STEP: usize = 2 * BLOCK;
/// Blocks whose scales are handled at once.
const GROUP: usize = 16;
/// Columns for which a weight is taken apart once.
const TILE: usize = 8;

/// How a block of weights is laid out. Scales and offsets are 16-bit floats; of 4-bit weights the low halves of 16 bytes
/// are the first 16, and fifth bits stand together in front of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Scale, 4 bits; 8 stands for 0.
    Q4_0,
    /// Scale, offset, 4 bits.
    Q4_1,
    /// Scale, 5 bits; 16 stands for 0.
    Q5_0,
    /// Scale, offset, 5 bits.
    Q5_1,
    /// Scale, 8 bits with a sign.
    Q8_0,
}

impl Form {
    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
        }
    }
}

// Forms as constants of generic functions.
const Q4_0: u8 = Form::Q4_0 as u8;
const Q4_1: u8 = Form::Q4_1 as u8;
const Q5_0: u8 = Form::Q5_0 as u8;
const Q5_1: u8 = Form::Q5_1 as u8;
const Q8_0: u8 = Form::Q8_0 as u8;

/// What the generic functions know of a form.
struct Layout<const FORM: u8>;

impl<const FORM: u8> Layout<FORM> {
    const FORM: Form = match FORM {
        Q4_0 => Form::Q4_0,
        Q4_1 => Form::Q4_1,
        Q5_0 => Form::Q5_0,
        Q5_1 => Form::Q5_1,
        _ => Form::Q8_0,
    };
    const BYTES: usize = Self::FORM.block_bytes();
    const HAS_OFFSET: bool = matches!(Self::FORM, Form::Q4_1 | Form::Q5_1);
    const HAS_FIFTH: bool = matches!(Self::FORM, Form::Q5_0 | Form::Q5_1);
    /// Where the fifth bits or the weights begin.
    const BODY: usize = if Self::HAS_OFFSET { 4 } else { 2 };
    /// The unsigned number that stands for 0, where there is no offset.
    const ZERO: f32 = match Self::FORM {
        Form::Q4_0 => 8.0,
        Form::Q5_0 => 16.0,
        Form::Q8_0 => 128.0,
        Form::Q4_1 | Form::Q5_1 => 0.0,
    };
}

/// Columns in 8-bit blocks, written by [`Product::round`]: `n` weights as bytes, then the scale of each block as a 16-bit
/// float, then the sum of each block's bytes as a 16-bit integer.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// All columns one after the other, [`column_bytes`] each.
    pub bytes: &'a [u8],
    /// Weights of a column, a multiple of [`STEP`].
    pub n: usize,
}

/// Bytes of a rounded column of `n` weights: as many as ggml's own form of it takes.
pub const fn column_bytes(n: usize) -> usize {
    n + n / BLOCK * 4
}

/// The right to run the product: the CPU has what it needs.
#[derive(Debug, Clone, Copy)]
pub struct Product(());

impl Product {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_it = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("f16c");
            has_it.then_some(Self(()))
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Rounds `column`, `[n]` with `n` a multiple of [`STEP`], into `rounded`, [`column_bytes`] long.
    ///
    /// # Panics
    /// When the lengths are not these.
    pub fn round(self, column: &[f32], rounded: &mut [u8]) {
        assert!(column.len().is_multiple_of(STEP), "two blocks at a time");
        assert_eq!(rounded.len(), column_bytes(column.len()), "place for the column");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the value exists only after the CPU reported these sets.
        unsafe {
            round(column, rounded);
        }
    }

    /// Products of the weight rows `rows` with every column: `put(row_idx, column_idx, product)`.
    ///
    /// # Panics
    /// When a row or a column is cut off.
    pub fn multiply(self, rows: Rows<'_>, columns: Columns<'_>, put: &mut impl FnMut(usize, usize, f32)) {
        match rows.form {
            Form::Q4_0 => multiply::<Q4_0>(rows, columns, put),
            Form::Q4_1 => multiply::<Q4_1>(rows, columns, put),
            Form::Q5_0 => multiply::<Q5_0>(rows, columns, put),
            Form::Q5_1 => multiply::<Q5_1>(rows, columns, put),
            Form::Q8_0 => multiply::<Q8_0>(rows, columns, put),
        }
    }
}

/// Rows of weights.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Their layout.
    pub form: Form,
    /// All rows; the last one ends with its last block.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Called by whoever holds a [`Product`].
fn multiply<const FORM: u8>(rows: Rows<'_>, columns: Columns<'_>, put: &mut impl FnMut(usize, usize, f32)) {
    let Columns { bytes, n } = columns;
    let (used, column_len) = (n / BLOCK * Layout::<FORM>::BYTES, column_bytes(n));
    assert!(n > 0 && n.is_multiple_of(STEP), "two blocks at a time");
    assert!(used <= rows.stride && rows.bytes.len() + (rows.stride - used) >= rows.stride, "at least one whole row");
    assert!(bytes.len().is_multiple_of(column_len), "whole columns");
    let n_rows = (rows.bytes.len() + (rows.stride - used)) / rows.stride;
    for (tile_idx, tile) in bytes.chunks(TILE * column_len).enumerate() {
        let n_columns = tile.len() / column_len;
        for row_idx in 0..n_rows {
            let row = &rows.bytes[row_idx * rows.stride..][..used];
            let mut products = [0.0; TILE];
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Product` exists only after the CPU reported these sets; the lengths were checked.
            unsafe {
                match n_columns {
                    1 => tile_products::<FORM, 1>(row, tile, n, &mut products),
                    2 => tile_products::<FORM, 2>(row, tile, n, &mut products),
                    3 => tile_products::<FORM, 3>(row, tile, n, &mut products),
                    4 => tile_products::<FORM, 4>(row, tile, n, &mut products),
                    5 => tile_products::<FORM, 5>(row, tile, n, &mut products),
                    6 => tile_products::<FORM, 6>(row, tile, n, &mut products),
                    7 => tile_products::<FORM, 7>(row, tile, n, &mut products),
                    _ => tile_products::<FORM, TILE>(row, tile, n, &mut products),
                }
            }
            for (idx, &product) in products[..n_columns].iter().enumerate() {
                put(row_idx, tile_idx * TILE + idx, product);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,f16c")]
fn round(column: &[f32], rounded: &mut [u8]) {
    let (quants, scales) = rounded.split_at_mut(column.len());
    let (scales, sums) = scales.split_at_mut(column.len() / BLOCK * 2);
    let blocks = column.as_chunks::<BLOCK>().0.iter().zip(quants.as_chunks_mut::<BLOCK>().0);
    let places = scales.as_chunks_mut::<2>().0.iter_mut().zip(sums.as_chunks_mut::<2>().0);
    for ((block, quants), (scale, sum)) in blocks.zip(places) {
        // SAFETY: a block has 32 floats.
        let (low, high) = unsafe { (_mm512_loadu_ps(block.as_ptr()), _mm512_loadu_ps(block.as_ptr().add(16))) };
        let most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        let (step, inverse) = if most > 0.0 { (most / 127.0, 127.0 / most) } else { (0.0, 0.0) };
        let inverse = _mm512_set1_ps(inverse);
        let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        // SAFETY: a block has 32 bytes.
        unsafe {
            _mm_storeu_si128(quants.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(low));
            _mm_storeu_si128(quants.as_mut_ptr().add(16).cast(), _mm512_cvtepi32_epi8(high));
        }
        let total = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
        let half = _mm_extract_epi16::<0>(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(step)));
        *scale = (half as u16).to_ne_bytes();
        *sum = (total as i16).to_ne_bytes();
    }
}

/// Products of one weight row with `N` columns. `row` has `n / 32` blocks, `columns` `N` rounded columns of `n` weights.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile_products<const FORM: u8, const N: usize>(row: &[u8], columns: &[u8], n: usize, products: &mut [f32; TILE]) {
    let (n_blocks, column_len) = (n / BLOCK, column_bytes(n));
    let zero = _mm512_setzero_ps();
    let (mut sums, mut offsets) = ([zero; N], [zero; N]);
    for group in (0..n_blocks).step_by(GROUP) {
        let n_here = GROUP.min(n_blocks - group);
        let bytes = Layout::<FORM>::BYTES;
        let (scale, offset) = group_scales::<FORM>(&row[group * bytes..][..n_here * bytes]);
        let lanes = ((1_u32 << n_here) - 1) as __mmask16;
        let mut scales = [zero; N];
        for idx in 0..N {
            let at = idx * column_len + n + group * 2;
            // SAFETY: masked loads touch the `n_here` scales and sums that the column has from here on.
            let (steps, totals) = unsafe {
                let start = columns.as_ptr().add(at);
                let totals = _mm256_maskz_loadu_epi16(lanes, start.add(n_blocks * 2).cast());
                (_mm256_maskz_loadu_epi16(lanes, start.cast()), totals)
            };
            let steps = _mm512_cvtph_ps(steps);
            let totals = _mm512_mul_ps(steps, _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(totals)));
            scales[idx] = _mm512_mul_ps(scale, steps);
            offsets[idx] = _mm512_fmadd_ps(offset, totals, offsets[idx]);
        }
        // The lanes of two blocks: eight of the first, eight of the second.
        let mut pair = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        let two = _mm512_set1_epi32(2);
        for block in (group..group + n_here).step_by(2) {
            let weights = two_blocks::<FORM>(&row[block * bytes..][..2 * bytes]);
            for idx in 0..N {
                // SAFETY: the column has 64 bytes from here on.
                let column =
                    unsafe { _mm512_loadu_si512(columns.as_ptr().add(idx * column_len + block * BLOCK).cast()) };
                let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, column);
                let factors = _mm512_permutexvar_ps(pair, scales[idx]);
                sums[idx] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), factors, sums[idx]);
            }
            pair = _mm512_add_epi32(pair, two);
        }
    }
    for (sum, offset) in sums.iter_mut().zip(offsets) {
        *sum = _mm512_add_ps(*sum, offset);
    }
    match sums.first_chunk::<TILE>() {
        Some(sums) => {
            // SAFETY: there are eight products.
            unsafe { _mm256_storeu_ps(products.as_mut_ptr(), totals(sums)) }
        }
        None => products.iter_mut().zip(sums).for_each(|(product, sum)| *product = total(sum)),
    }
}

/// The sum of 16 floats. The order of the additions is that of [`totals`], so that a product does not depend on how many
/// columns there are.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn total(sum: __m512) -> f32 {
    let sum = _mm512_add_ps(sum, _mm512_shuffle_ps::<0b01_00_11_10>(sum, sum));
    let sum = _mm512_add_ps(sum, _mm512_shuffle_ps::<0b10_11_00_01>(sum, sum));
    let sum = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps::<1>(sum));
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    _mm_cvtss_f32(sum)
}

/// The sums of eight registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn totals(sums: &[__m512; TILE]) -> __m256 {
    // Of two registers: the sums of floats two places apart, by turns.
    let pair = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    // Of four: one float each in every quarter.
    let four = |at: usize| {
        let (a, b) = (pair(sums[at], sums[at + 1]), pair(sums[at + 2], sums[at + 3]));
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let quarters =
            _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
        _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps::<1>(quarters))
    };
    let (first, second) = (four(0), four(4));
    let (low, high) = (_mm256_permute2f128_ps::<0x20>(first, second), _mm256_permute2f128_ps::<0x31>(first, second));
    _mm256_add_ps(low, high)
}

/// The weights of two blocks as unsigned bytes, in order.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn two_blocks<const FORM: u8>(blocks: &[u8]) -> __m512i {
    let (first, second) = blocks.split_at(Layout::<FORM>::BYTES);
    let body = Layout::<FORM>::BODY;
    if FORM == Q8_0 {
        // SAFETY: a block has 32 bytes behind its scale.
        let (first, second) = unsafe {
            let load = |block: &[u8]| _mm256_loadu_si256(block.as_ptr().add(body).cast());
            (load(first), load(second))
        };
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
        return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
    }
    let at = if Layout::<FORM>::HAS_FIFTH { body + 4 } else { body };
    // SAFETY: a block ends with 16 bytes of low bits.
    let (first_low, second_low) = unsafe {
        let load = |block: &[u8]| _mm_loadu_si128(block.as_ptr().add(at).cast());
        (load(first), load(second))
    };
    let first_low = _mm256_set_m128i(_mm_srli_epi16::<4>(first_low), first_low);
    let second_low = _mm256_set_m128i(_mm_srli_epi16::<4>(second_low), second_low);
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first_low), second_low);
    let low = _mm512_and_si512(both, _mm512_set1_epi8(0x0f));
    if !Layout::<FORM>::HAS_FIFTH {
        return low;
    }
    let fifth =
        |block: &[u8]| u64::from(u32::from_le_bytes([block[body], block[body + 1], block[body + 2], block[body + 3]]));
    _mm512_or_si512(low, _mm512_maskz_set1_epi8(fifth(first) | fifth(second) << 32, 0x10))
}

/// Scales and offsets of at most 16 blocks as floats; lanes without a block are 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn group_scales<const FORM: u8>(blocks: &[u8]) -> (__m512, __m512) {
    let mut pairs = [0_u32; GROUP];
    for (pair, block) in pairs.iter_mut().zip(blocks.chunks_exact(Layout::<FORM>::BYTES)) {
        *pair = u32::from_ne_bytes([block[0], block[1], block[2], block[3]]);
    }
    // SAFETY: the array has 16 words.
    let pairs = unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) };
    let scales = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs));
    if Layout::<FORM>::HAS_OFFSET {
        return (scales, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(pairs))));
    }
    (scales, _mm512_mul_ps(scales, _mm512_set1_ps(-Layout::<FORM>::ZERO)))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::{BLOCK, Columns, Form, Product, Rows, STEP, column_bytes};

    const FORMS: [Form; 5] = [Form::Q4_0, Form::Q4_1, Form::Q5_0, Form::Q5_1, Form::Q8_0];

    /// A 16-bit float of a normal number, bit by bit.
    fn half(bits: u16) -> f32 {
        let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, bits & 1023);
        let size = (1.0 + f32::from(fraction) / 1024.0) * 2_f32.powi(i32::from(exponent) - 15);
        if sign == 1 { -size } else { size }
    }

    /// The weights of a block, as ggml's own words define them.
    fn weights(form: Form, block: &[u8]) -> [f32; BLOCK] {
        let number = |at: usize| half(u16::from_le_bytes([block[at], block[at + 1]]));
        let low = |idx: usize, at: usize| match idx {
            0..16 => block[at + idx] & 15,
            _ => block[at + idx - 16] >> 4,
        };
        let fifth = |idx: usize, at: usize| block[at + idx / 8] >> (idx % 8) & 1;
        std::array::from_fn(|idx| match form {
            Form::Q4_0 => number(0) * (f32::from(low(idx, 2)) - 8.0),
            Form::Q4_1 => number(0) * f32::from(low(idx, 4)) + number(2),
            Form::Q5_0 => number(0) * (f32::from(low(idx, 6) | fifth(idx, 2) << 4) - 16.0),
            Form::Q5_1 => number(0) * f32::from(low(idx, 8) | fifth(idx, 4) << 4) + number(2),
            Form::Q8_0 => number(0) * f32::from(block[2 + idx] as i8),
        })
    }

    /// The product in the simplest words, of unrounded columns; with the sum of squared weights.
    fn plain(form: Form, row: &[u8], column: &[f32]) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for (block, values) in row.chunks(form.block_bytes()).zip(column.chunks(BLOCK)) {
            for (weight, value) in weights(form, block).iter().zip(values) {
                sums.0 += f64::from(*weight) * f64::from(*value);
                sums.1 += f64::from(*weight).powi(2);
            }
        }
        sums
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_plain_sum(
            form in 0_usize..5, n_steps in 1_usize..40, n_rows in 1_usize..4, n_columns in 1_usize..20, gap in 0_usize..3,
            seed: u64,
        ) {
            let Some(product) = Product::detect() else { return Ok(()) };
            let (form, n) = (FORMS[form], n_steps * STEP);
            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
            let used = n / BLOCK * form.block_bytes();
            let stride = used + gap * 4;
            let mut bytes = vec![0_u8; n_rows * stride - gap * 4];
            for row in bytes.chunks_mut(stride) {
                for block in row[..used].chunks_exact_mut(form.block_bytes()) {
                    block.iter_mut().for_each(|byte| *byte = random() as u8);
                    let word = random();
                    // Scales from 2^-6 to 2^-5, offsets of the other sign.
                    block[..2].copy_from_slice(&((9 << 10 | word & 1023) as u16).to_le_bytes());
                    if matches!(form, Form::Q4_1 | Form::Q5_1) {
                        block[2..4].copy_from_slice(&((1 << 15 | 11 << 10 | word >> 10 & 1023) as u16).to_le_bytes());
                    }
                }
            }
            let columns: Vec<Vec<f32>> =
                (0..n_columns).map(|_| (0..n).map(|_| (random() % 2001) as f32 / 1000.0 - 1.0).collect()).collect();
            let mut rounded = vec![0; n_columns * column_bytes(n)];
            for (column, bytes) in columns.iter().zip(rounded.chunks_mut(column_bytes(n))) {
                product.round(column, bytes);
            }
            let mut found = vec![f32::NAN; n_rows * n_columns];
            product.multiply(Rows { form, bytes: &bytes, stride }, Columns { bytes: &rounded, n }, &mut |row, column, value| {
                found[row * n_columns + column] = value;
            });
            for row in 0..n_rows {
                for column in 0..n_columns {
                    let (expected, squares) = plain(form, &bytes[row * stride..][..used], &columns[column]);
                    let value = f64::from(found[row * n_columns + column]);
                    // Rounding to 8 bits errs by at most half a step of 1 / 127 for each weight, with random sign.
                    let tolerance = 5.0 * squares.sqrt() * 0.5 / 127.0 + 1e-3 * expected.abs() + 1e-3;
                    prop_assert!((value - expected).abs() <= tolerance, "{form:?}: {value} {expected} n {n}");
                }
            }
        }
    }

    #[test]
    fn a_product_does_not_depend_on_the_number_of_columns() {
        let Some(product) = Product::detect() else { return };
        let n = 5 * STEP;
        let bytes: Vec<u8> = (0..n / BLOCK * Form::Q8_0.block_bytes()).map(|idx| (idx * 37 % 97) as u8).collect();
        let column: Vec<f32> = (0..n).map(|idx| ((idx * 71 % 113) as f32).sin()).collect();
        let mut rounded = vec![0; column_bytes(n)];
        product.round(&column, &mut rounded);
        let products = |n_columns: usize| {
            let mut found = Vec::new();
            let columns = rounded.repeat(n_columns);
            let rows = Rows { form: Form::Q8_0, bytes: &bytes, stride: bytes.len() };
            product.multiply(rows, Columns { bytes: &columns, n }, &mut |_, _, value| found.push(value.to_bits()));
            found
        };
        let alone = products(1)[0];
        for n_columns in 2..20 {
            assert!(products(n_columns).iter().all(|&found| found == alone), "{n_columns}");
        }
    }

    #[test]
    fn zeros_stay_zeros_and_lengths_are_checked() {
        let Some(product) = Product::detect() else { return };
        let mut rounded = vec![1; column_bytes(STEP)];
        product.round(&[0.0; STEP], &mut rounded);
        assert!(rounded.iter().all(|&byte| byte == 0));
        for form in FORMS {
            let short = std::panic::catch_unwind(|| {
                let columns = Columns { bytes: &[0; column_bytes(STEP)], n: STEP };
                let bytes = vec![0; 2 * form.block_bytes() - 1];
                let rows = Rows { form, bytes: &bytes, stride: 2 * form.block_bytes() };
                product.multiply(rows, columns, &mut |_, _, _| {});
            });
            assert!(short.is_err(), "{form:?}");
        }
    }
}
