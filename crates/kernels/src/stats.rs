//! Mean and deviation of a row, and a row divided by a number.

use crate::isa::kernel;

const LANES: usize = 32;
const BLOCK: usize = 1024;

/// Mean and standard deviation (of the population) of the values of a row above −∞.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanDeviation {
    /// Their mean; 0 when there is none.
    pub mean: f64,
    /// Their standard deviation; 0 when there is none.
    pub deviation: f64,
    /// How many there are.
    pub count: usize,
}

/// Sum of the values above −∞ and how many they are.
#[inline(always)]
fn finite_sum(row: &[f32]) -> (f64, usize) {
    let (mut sum, mut count) = (0.0, 0);
    for block in row.chunks(BLOCK) {
        let (mut sums, mut counts) = ([0f32; LANES], [0u32; LANES]);
        let (chunks, tail) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let finite = chunk[lane] > f32::NEG_INFINITY;
                sums[lane] += if finite { chunk[lane] } else { 0.0 };
                counts[lane] += u32::from(finite);
            }
        }
        for (lane, &value) in tail.iter().enumerate() {
            let finite = value > f32::NEG_INFINITY;
            sums[lane] += if finite { value } else { 0.0 };
            counts[lane] += u32::from(finite);
        }
        for lane in 0..LANES {
            sum += f64::from(sums[lane]);
            count += counts[lane] as usize;
        }
    }
    (sum, count)
}

#[inline(always)]
fn squares(row: &[f32], mean: f32) -> f64 {
    let mut sum = 0.0;
    for block in row.chunks(BLOCK) {
        let mut sums = [0f32; LANES];
        let (chunks, tail) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += square(chunk[lane], mean);
            }
        }
        for (lane, &value) in tail.iter().enumerate() {
            sums[lane] += square(value, mean);
        }
        for lane_sum in sums {
            sum += f64::from(lane_sum);
        }
    }
    sum
}

#[inline(always)]
fn square(value: f32, mean: f32) -> f32 {
    let distance = value - mean;
    if value > f32::NEG_INFINITY { distance * distance } else { 0.0 }
}

kernel! {
    fn finite_sum_of, finite_sum_on(row: &[f32]) -> (f64, usize) = finite_sum;
}
kernel! {
    fn squares_of, squares_on(row: &[f32], mean: f32) -> f64 = squares;
}

/// [`MeanDeviation`] of a sound `row`, `[n]`, in two passes.
pub fn mean_deviation(row: &[f32]) -> MeanDeviation {
    let (sum, count) = finite_sum_of(row);
    if count == 0 {
        return MeanDeviation { mean: 0.0, deviation: 0.0, count };
    }
    let mean = sum / count as f64;
    let deviation = (squares_of(row, mean as f32) / count as f64).sqrt();
    MeanDeviation { mean, deviation, count }
}

#[inline(always)]
fn divide(row: &[f32], divisor: f32, out: &mut [f32]) {
    for (target, &value) in out.iter_mut().zip(row) {
        *target = value / divisor;
    }
}

kernel! {
    fn divide_of, divide_on(row: &[f32], divisor: f32, out: &mut [f32]) -> () = divide;
}

/// Copies `row`, `[n]`, into `out`, every value divided by `divisor`.
pub fn copy_divided(row: &[f32], divisor: f32, out: &mut Vec<f32>) {
    out.resize(row.len(), 0.0);
    divide_of(row, divisor, out);
}

#[inline(always)]
fn divide_in_place(row: &mut [f32], divisor: f32) {
    for value in row {
        *value /= divisor;
    }
}

kernel! {
    /// Divides every value of `row`, `[n]`, by `divisor`.
    pub fn divide_row, divide_row_on(row: &mut [f32], divisor: f32) -> () = divide_in_place;
}
