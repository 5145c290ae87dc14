//! The product of rows and a layer's weights in 16-bit floats (bf16: the upper half of an f32), with sums in f32.
//!
//! A bf16 holds 8 bits of a number instead of 24, and an instruction multiplies two pairs of them in each lane where it
//! multiplies one pair of f32: twice the numbers for each instruction, and half the bytes for each weight. Weights are
//! rounded and put in panels of [`PANEL`] columns once ([`Weights`]); rows are rounded once for each product ([`Rows`]).
//! Then up to 14 rows and a panel meet in registers, and bias, sum with what is there, and activation happen before the
//! tile leaves them. The order of a row's additions is that of its numbers: a result does not depend on the other rows.
//!
//! There is a version for AVX-512 with BF16 only: [`Bf16::detect`] says whether this CPU can run it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Columns of the weights that lie together: two registers.
pub const PANEL: usize = 2 * LANES;
/// 32-bit lanes of a register.
const LANES: usize = 16;
/// Rows of a tile: with two registers each, two for weights and one for a pair of the row, they fill the register file.
const TILE: usize = 14;

/// A register's worth of pairs, on a cache line of its own. A pair is two 16-bit floats; the first is the low half.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LANES]);

const ZERO: Line = Line([0; LANES]);

/// The right to run the product: the CPU has what it needs.
#[derive(Debug, Clone, Copy)]
pub struct Bf16(());

impl Bf16 {
    /// What a CPU needs, as Linux and the CPU's documentation call it.
    pub const NEEDS: &str = "AVX-512 BF16 (avx512_bf16)";

    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_it = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
            has_it.then_some(Self(()))
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Rounds rows of `x` into `part`. Row `i` are the numbers from `x[i * stride]` on.
    ///
    /// # Panics
    /// When the rows of `x` are not as many or not as long as those of the part.
    pub fn round(self, x: &[f32], stride: usize, part: Part<'_>) {
        let Part { lines, n, n_lines } = part;
        let n_rows = lines.len() / n_lines;
        assert!(n <= stride, "rows of {n} numbers, one each {stride}");
        assert!(x.len() >= n_rows.saturating_sub(1) * stride + n.min(n_rows * n), "whole rows");
        for (row, lines) in x.chunks(stride).zip(lines.chunks_exact_mut(n_lines)) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Bf16` exists only after the CPU reported these sets.
            unsafe {
                round(&row[..n], lines);
            }
        }
    }

    /// Writes the products of all `rows` with the columns of `pane` there: `rows · weightsᵀ + bias`, and whatever
    /// `finish` says.
    ///
    /// # Panics
    /// When shapes do not fit each other.
    pub fn multiply(self, rows: &Rows, weights: &Weights, finish: Finish, pane: Pane<'_>) {
        assert_eq!(rows.n, weights.n_in, "numbers of a row");
        assert_eq!(rows.n_rows, pane.n_rows, "rows of the result");
        assert_eq!(pane.stride, weights.n_out, "columns of the result");
        // Even tiles: a small last one would leave most of the multipliers waiting for each other.
        let n_tiles = rows.n_rows.div_ceil(TILE).max(1);
        for panel in pane.from / PANEL..pane.to.div_ceil(PANEL) {
            for tile in 0..n_tiles {
                let (from, to) = (tile * rows.n_rows / n_tiles, (tile + 1) * rows.n_rows / n_tiles);
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Bf16` exists only after the CPU reported these sets; shapes were compared above, and the
                // pane holds the panel's columns in all rows.
                unsafe {
                    multiply_tile(Tile { rows, weights, finish, panel, from, to }, &pane);
                }
            }
        }
    }
}

/// Rounded rows, `[n_rows, n]`.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Row after row, each on `n_lines` lines; behind the numbers of a row are zeros up to the end of their line.
    lines: Vec<Line>,
    n_rows: usize,
    n: usize,
    n_lines: usize,
}

/// Some rows of [`Rows`], still to be rounded.
#[derive(Debug)]
pub struct Part<'a> {
    lines: &'a mut [Line],
    n: usize,
    n_lines: usize,
}

impl Rows {
    /// Makes room for `n_rows` rows of `n` numbers, and hands it out in parts of `part_rows` rows, to be filled by
    /// [`Bf16::round`]. Memory is used again; what is not filled keeps numbers of earlier rows.
    ///
    /// # Panics
    /// When `n` or `part_rows` is 0.
    pub fn parts(&mut self, [n_rows, n]: [usize; 2], part_rows: usize) -> impl ExactSizeIterator<Item = Part<'_>> {
        assert!(n > 0 && part_rows > 0, "{n} numbers in a row, {part_rows} rows in a part");
        // An odd number of lines: rows of a tile would otherwise meet in few sets of the cache.
        let n_lines = n.div_ceil(2 * LANES) | 1;
        self.lines.resize(n_rows * n_lines, ZERO);
        (self.n_rows, self.n, self.n_lines) = (n_rows, n, n_lines);
        self.lines.chunks_mut(part_rows * n_lines).map(move |lines| Part { lines, n, n_lines })
    }
}

/// Weights of a layer, rounded to bf16, and its bias.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Panel after panel, `[n_in / 2, PANEL]` pairs each; columns that are not there are 0, as is the second of the last
    /// pair for an odd `n_in`.
    lines: Vec<Line>,
    /// `[n_panels * PANEL]`; 0 without a bias.
    bias: Vec<f32>,
    n_in: usize,
    n_out: usize,
}

impl Weights {
    /// Rounds and packs `weight`, `[n_out, n_in]` row-major, and takes the bias, `[n_out]`, as it is.
    ///
    /// # Panics
    /// When the lengths are not these.
    pub fn pack(weight: &[f32], bias: Option<&[f32]>, n_in: usize) -> Self {
        assert!(n_in > 0 && weight.len().is_multiple_of(n_in), "rows of {n_in} weights");
        let n_out = weight.len() / n_in;
        assert!(bias.is_none_or(|bias| bias.len() == n_out), "a bias for each of {n_out} outputs");
        let (n_pairs, n_panels) = (n_in.div_ceil(2), n_out.div_ceil(PANEL));
        let mut lines = vec![ZERO; n_panels * n_pairs * 2];
        for (idx, column) in weight.chunks_exact(n_in).enumerate() {
            let (panel, at) = (idx / PANEL, idx % PANEL);
            let places = lines[panel * n_pairs * 2..].iter_mut().skip(at / LANES).step_by(2);
            for (pair, line) in column.chunks(2).zip(places) {
                let second = pair.get(1).copied().unwrap_or(0.0);
                line.0[at % LANES] = u32::from(rounded(pair[0])) | u32::from(rounded(second)) << 16;
            }
        }
        let mut padded = bias.unwrap_or_default().to_vec();
        padded.resize(n_panels * PANEL, 0.0);
        Self { lines, bias: padded, n_in, n_out }
    }

    /// Numbers of a row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Columns of the result.
    pub fn n_out(&self) -> usize {
        self.n_out
    }
}

/// The nearest bf16, of two equally near ones the even one; numbers too small for normal floats become 0, as in the
/// instructions.
fn rounded(number: f32) -> u16 {
    let bits = number.to_bits();
    if number.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    if number.is_subnormal() {
        return (bits >> 16) as u16 & 0x8000;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// What becomes of the numbers that stand where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// Some columns of a row-major matrix, in all its rows, to be written by one thread while others write other columns.
#[derive(Debug)]
pub struct Pane<'a> {
    start: *mut f32,
    n_rows: usize,
    /// Columns of the matrix.
    stride: usize,
    /// The pane's columns, half-open; it begins with a panel and ends with one, or with the matrix.
    from: usize,
    to: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: a pane is the only way to its numbers while it lives, as a `&mut [f32]` would be.
unsafe impl Send for Pane<'_> {}

impl<'a> Pane<'a> {
    /// All of `matrix`, rows of `n_cols` one behind the other, in at most `n_panes` panes of whole panels, as even as
    /// may be.
    ///
    /// # Panics
    /// When the rows are not whole.
    pub fn split(matrix: &'a mut [f32], n_cols: usize, n_panes: usize) -> impl Iterator<Item = Self> + use<'a> {
        assert!(n_cols > 0 && matrix.len().is_multiple_of(n_cols), "rows of {n_cols} numbers");
        let (start, n_rows) = (matrix.as_mut_ptr(), matrix.len() / n_cols);
        let n_panels = n_cols.div_ceil(PANEL);
        let n_panes = n_panes.clamp(1, n_panels);
        let edge = move |idx: usize| (idx * n_panels / n_panes * PANEL).min(n_cols);
        (0..n_panes).map(move |idx| {
            // The closure is called once for each index, so no two panes hold the same columns.
            Self { start, n_rows, stride: n_cols, from: edge(idx), to: edge(idx + 1), of: PhantomData }
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(row: &[f32], lines: &mut [Line]) {
    let mut chunks = row.chunks(2 * LANES);
    for line in lines {
        let chunk = chunks.next().unwrap_or_default();
        let lanes = ((1_u64 << chunk.len()) - 1) as u32;
        let (low, high) = (lanes as __mmask16, (lanes >> 16) as __mmask16);
        // SAFETY: masked loads touch the numbers that are there; a line has 64 bytes.
        unsafe {
            let first = _mm512_maskz_loadu_ps(low, chunk.as_ptr());
            let second = _mm512_maskz_loadu_ps(high, chunk.as_ptr().wrapping_add(LANES));
            let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
            _mm512_store_si512(line.0.as_mut_ptr().cast(), pairs);
        }
    }
}

/// Rows `from..to`, at most [`TILE`], and one panel.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Tile<'a> {
    rows: &'a Rows,
    weights: &'a Weights,
    finish: Finish,
    panel: usize,
    from: usize,
    to: usize,
}

/// # Safety
/// Rows and panel must exist, and the pane must hold the panel's columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_tile(tile: Tile<'_>, pane: &Pane<'_>) {
    // SAFETY: the caller's promise is that of these functions.
    unsafe {
        match tile.to - tile.from {
            0 => {}
            1 => tile_of::<1>(tile, pane),
            2 => tile_of::<2>(tile, pane),
            3 => tile_of::<3>(tile, pane),
            4 => tile_of::<4>(tile, pane),
            5 => tile_of::<5>(tile, pane),
            6 => tile_of::<6>(tile, pane),
            7 => tile_of::<7>(tile, pane),
            8 => tile_of::<8>(tile, pane),
            9 => tile_of::<9>(tile, pane),
            10 => tile_of::<10>(tile, pane),
            11 => tile_of::<11>(tile, pane),
            12 => tile_of::<12>(tile, pane),
            13 => tile_of::<13>(tile, pane),
            _ => tile_of::<TILE>(tile, pane),
        }
    }
}

/// # Safety
/// As for [`multiply_tile`]; the tile has `N` rows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_of<const N: usize>(Tile { rows, weights, finish, panel, from, .. }: Tile<'_>, pane: &Pane<'_>) {
    let n_pairs = rows.n.div_ceil(2);
    let row_stride = rows.n_lines * LANES;
    let row = rows.lines[from * rows.n_lines..][..N * rows.n_lines].as_ptr().cast::<u32>();
    let weight = weights.lines[panel * n_pairs * 2..][..n_pairs * 2].as_ptr();
    let bias = weights.bias[panel * PANEL..][..PANEL].as_ptr();
    // SAFETY: the bias has a panel's numbers; a panel has two lines for each pair, a row has a pair for each. Stores and
    // loads of the result touch columns below the pane's end only.
    unsafe {
        let bias = [_mm512_loadu_ps(bias), _mm512_loadu_ps(bias.add(LANES))];
        let mut sums = [bias; N];
        for pair in 0..n_pairs {
            let first: __m512bh = std::mem::transmute(_mm512_load_si512(weight.add(pair * 2).cast()));
            let second: __m512bh = std::mem::transmute(_mm512_load_si512(weight.add(pair * 2 + 1).cast()));
            for (idx, sums) in sums.iter_mut().enumerate() {
                let number = _mm512_set1_epi32(*row.add(idx * row_stride + pair) as i32);
                let number: __m512bh = std::mem::transmute(number);
                sums[0] = _mm512_dpbf16_ps(sums[0], number, first);
                sums[1] = _mm512_dpbf16_ps(sums[1], number, second);
            }
        }
        let n_columns = (pane.to - panel * PANEL).min(PANEL);
        let lanes = ((1_u64 << n_columns) - 1) as u32;
        let lanes = [lanes as __mmask16, (lanes >> 16) as __mmask16];
        for (idx, sums) in sums.into_iter().enumerate() {
            let place = pane.start.add((from + idx) * pane.stride + panel * PANEL);
            for (half, mut sum) in sums.into_iter().enumerate() {
                let place = place.wrapping_add(half * LANES);
                if finish == Finish::Add {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes[half], place));
                }
                _mm512_mask_storeu_ps(place, lanes[half], sum);
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::{Bf16, Finish, PANEL, Pane, Rows, TILE, Weights, rounded};

    /// Numbers from -1 to 1 in no order.
    fn random(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn widened(number: f32) -> f64 {
        f64::from(f32::from_bits(u32::from(rounded(number)) << 16))
    }

    /// The product of rows of `x`, one each `stride` numbers, on top of what is in `out`.
    fn multiply(
        bf16: Bf16,
        x: &[f32],
        stride: usize,
        weights: &Weights,
        finish: Finish,
        n_panes: usize,
        out: &mut [f32],
    ) {
        let n_rows = out.len() / weights.n_out();
        let mut rows = Rows::default();
        for (part, x) in rows.parts([n_rows, weights.n_in()], 3).zip(x.chunks(3 * stride)) {
            bf16.round(x, stride, part);
        }
        for pane in Pane::split(out, weights.n_out(), n_panes) {
            bf16.multiply(&rows, weights, finish, pane);
        }
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_rounded_numbers(
            n_rows in 0_usize..40, n_in in 1_usize..150, n_out in 1_usize..150, gap in 0_usize..5, n_panes in 1_usize..7,
            has_bias: bool, adds: bool, seed: u64,
        ) {
            let Some(bf16) = Bf16::detect() else { return Ok(()) };
            let stride = n_in + gap;
            let (x, weight) = (random(seed, n_rows * stride), random(seed ^ 1 << 20, n_out * n_in));
            let (bias, before) = (random(seed ^ 2 << 20, n_out), random(seed ^ 3 << 20, n_rows * n_out));
            let weights = Weights::pack(&weight, has_bias.then_some(&bias), n_in);
            let finish = if adds { Finish::Add } else { Finish::Replace };
            let mut out = before.clone();
            multiply(bf16, &x, stride, &weights, finish, n_panes, &mut out);
            for (at, value) in out.iter().enumerate() {
                let (row, column) = (at / n_out, at % n_out);
                let products = x[row * stride..][..n_in].iter().zip(&weight[column * n_in..]);
                let mut expected: f64 = products.map(|(a, b)| widened(*a) * widened(*b)).sum();
                expected += if has_bias { f64::from(bias[column]) } else { 0.0 };
                expected += if adds { f64::from(before[at]) } else { 0.0 };
                // Each of the sums in f32 may err by half a unit of the last place of at most 150.
                prop_assert!((f64::from(*value) - expected).abs() < 2e-4, "{row} {column}: {value} {expected}");
            }
        }

        #[test]
        fn the_cpu_rounds_as_the_weights_are_rounded(bits: u32) {
            let Some(bf16) = Bf16::detect() else { return Ok(()) };
            let number = f32::from_bits(bits);
            let mut rows = Rows::default();
            rows.parts([1, 1], 1).for_each(|part| bf16.round(&[number], 1, part));
            prop_assert_eq!(rows.lines[0].0[0], u32::from(rounded(number)), "{}", number);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let Some(bf16) = Bf16::detect() else { return };
        let (n_in, n_out) = (77, PANEL + 5);
        let weights = Weights::pack(&random(1, n_in * n_out), Some(&random(2, n_out)), n_in);
        let row = random(3, n_in);
        let mut alone = vec![0.0; n_out];
        multiply(bf16, &row, n_in, &weights, Finish::Replace, 1, &mut alone);
        for n_rows in 2..3 * TILE {
            let mut x = random(4, n_rows * n_in);
            let last = (n_rows - 1) * n_in;
            x[last..].copy_from_slice(&row);
            let mut out = vec![0.0; n_rows * n_out];
            multiply(bf16, &x, n_in, &weights, Finish::Replace, 2, &mut out);
            let found = &out[(n_rows - 1) * n_out..];
            assert!(found.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{n_rows} rows");
        }
    }

    #[test]
    fn memory_of_longer_rows_is_used_again_and_shapes_are_checked() {
        let Some(bf16) = Bf16::detect() else { return };
        let weights = Weights::pack(&[1.0; 3], None, 3);
        let mut rows = Rows::default();
        rows.parts([2, 90], 2).for_each(|part| bf16.round(&[7.0; 180], 90, part));
        rows.parts([2, 3], 2).for_each(|part| bf16.round(&[1.0; 6], 3, part));
        let mut out = [0.0; 2];
        Pane::split(&mut out, 1, 1).for_each(|pane| bf16.multiply(&rows, &weights, Finish::Replace, pane));
        assert_eq!(out, [3.0, 3.0]);
        let refused = |of: &(dyn Fn() + std::panic::RefUnwindSafe)| std::panic::catch_unwind(of).is_err();
        assert!(refused(&|| Rows::default().parts([2, 3], 2).for_each(|part| bf16.round(&[1.0; 5], 3, part))));
        assert!(refused(&|| drop(Weights::pack(&[1.0; 5], None, 3))));
        assert!(refused(&|| drop(Weights::pack(&[1.0; 6], Some(&[1.0]), 3))));
        assert!(refused(&|| {
            let mut rows = Rows::default();
            rows.parts([2, 2], 2).for_each(|part| bf16.round(&[1.0; 4], 2, part));
            let mut out = [0.0; 2];
            let weights = Weights::pack(&[1.0; 3], None, 3);
            Pane::split(&mut out, 1, 1).for_each(|pane| bf16.multiply(&rows, &weights, Finish::Replace, pane));
        }));
    }
}
