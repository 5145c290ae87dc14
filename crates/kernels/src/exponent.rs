//! Sums of exponentials: softmax denominators and what goes with them.

use crate::isa::kernel;
use crate::peak::BlockMaxima;

/// Running sums kept side by side; part of the result's definition, since float addition is not associative.
const LANES: usize = 32;

/// Values a partial sum covers before it is added up in f64.
pub const EXP_BLOCK: usize = 512;

/// Below this the result is 0: e^−87 is the end of the normal f32 numbers.
const UNDERFLOW: f32 = -87.0;

/// `e^x` for `x <= 0` (−∞ included), relative error below 3e-7; 0 below −87. Branch-free, so that loops over it
/// become vector code.
#[inline(always)]
pub fn exp_non_positive(x: f32) -> f32 {
    // Adding 1.5·2^23 rounds to an integer that then stands in the low bits of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    /// ln 2 with few digits, so that its product with a small integer is exact, and the rest of it.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let power = shifted - ROUNDER;
    let rest = (x - power * LN_2_HIGH) - power * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    series = series * rest + 1.0 / 720.0;
    series = series * rest + 1.0 / 120.0;
    series = series * rest + 1.0 / 24.0;
    series = series * rest + 1.0 / 6.0;
    series = series * rest + 0.5;
    series = series * rest + 1.0;
    series = series * rest + 1.0;
    let two_to_power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < UNDERFLOW { 0.0 } else { series * two_to_power }
}

#[inline(always)]
fn block_sum(block: &[f32], max: f32) -> f64 {
    let mut sums = [0f32; LANES];
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += exp_non_positive(chunk[lane] - max);
        }
    }
    for (lane, &value) in tail.iter().enumerate() {
        sums[lane] += exp_non_positive(value - max);
    }
    total(&sums)
}

#[inline(always)]
fn total(sums: &[f32; LANES]) -> f64 {
    let mut total = 0.0;
    for &sum in sums {
        total += f64::from(sum);
    }
    total
}

#[inline(always)]
fn sum_exp_body(row: &[f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for block in row.chunks(EXP_BLOCK) {
        sum += block_sum(block, max);
    }
    sum
}

kernel! {
    /// Σ e^(x − max) over a sound `row`, `[n]`; `max` is its largest value and finite.
    pub fn sum_exp, sum_exp_on(row: &[f32], max: f32) -> f64 = sum_exp_body;
}

#[inline(always)]
fn at_least_body(row: &[f32], block_maxima: &[f32], block_len: usize, max: f32, threshold: f32) -> f64 {
    let mut sum = 0.0;
    for (block, &block_max) in row.chunks(block_len).zip(block_maxima) {
        if block_max < threshold {
            continue;
        }
        let mut sums = [0f32; LANES];
        let (chunks, tail) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let weight = exp_non_positive(chunk[lane] - max);
                sums[lane] += if chunk[lane] >= threshold { weight } else { 0.0 };
            }
        }
        for (lane, &value) in tail.iter().enumerate() {
            sums[lane] += if value >= threshold { exp_non_positive(value - max) } else { 0.0 };
        }
        sum += total(&sums);
    }
    sum
}

kernel! {
    fn at_least_of, at_least_on(
        row: &[f32],
        block_maxima: &[f32],
        block_len: usize,
        max: f32,
        threshold: f32
    ) -> f64 = at_least_body;
}

/// Σ e^(x − max) over the values of `row` that are `>= threshold`; `maxima` is its scan, `max` its largest value and
/// finite.
pub fn sum_exp_at_least(row: &[f32], maxima: &BlockMaxima, max: f32, threshold: f32) -> f64 {
    at_least_of(row, maxima.values(), maxima.block_len(), max, threshold)
}

#[inline(always)]
fn block_sums_body(row: &[f32], max: f32, sums: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for (block, slot) in row.chunks(EXP_BLOCK).zip(sums) {
        *slot = block_sum(block, max);
        sum += *slot;
    }
    sum
}

kernel! {
    fn block_sums_of, block_sums_on(row: &[f32], max: f32, sums: &mut [f64]) -> f64 = block_sums_body;
}

/// As [`sum_exp`], and leaves the part of each [`EXP_BLOCK`] values in `sums`, `[n / EXP_BLOCK rounded up]`, so that a
/// draw finds its block without looking at the others again.
pub fn exp_block_sums(row: &[f32], max: f32, sums: &mut Vec<f64>) -> f64 {
    sums.resize(row.len().div_ceil(EXP_BLOCK), 0.0);
    block_sums_of(row, max, sums)
}

/// The softmax denominator of a row and the first moment that its entropy needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpMoments {
    /// Σ e^(x − max)
    pub sum: f64,
    /// Σ e^(x − max) · (x − max)
    pub first: f64,
}

impl ExpMoments {
    /// Entropy of the softmax in nats.
    pub fn entropy(&self) -> f64 {
        self.sum.ln() - self.first / self.sum
    }
}

#[inline(always)]
fn moments_body(row: &[f32], max: f32) -> ExpMoments {
    let mut moments = ExpMoments { sum: 0.0, first: 0.0 };
    for block in row.chunks(EXP_BLOCK) {
        let (mut sums, mut firsts) = ([0f32; LANES], [0f32; LANES]);
        let (chunks, tail) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let (weight, first) = moment(chunk[lane] - max);
                sums[lane] += weight;
                firsts[lane] += first;
            }
        }
        for (lane, &value) in tail.iter().enumerate() {
            let (weight, first) = moment(value - max);
            sums[lane] += weight;
            firsts[lane] += first;
        }
        moments.sum += total(&sums);
        moments.first += total(&firsts);
    }
    moments
}

/// `e^x` and `e^x · x`, the latter 0 where `e^x` is (−∞ · 0 would be NaN).
#[inline(always)]
fn moment(x: f32) -> (f32, f32) {
    let weight = exp_non_positive(x);
    (weight, if x < UNDERFLOW { 0.0 } else { weight * x })
}

kernel! {
    /// [`ExpMoments`] of a sound `row`, `[n]`; `max` is its largest value and finite.
    pub fn exp_moments, exp_moments_on(row: &[f32], max: f32) -> ExpMoments = moments_body;
}
