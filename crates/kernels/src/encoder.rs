//! What an encoder does to rows of its hidden state between two matrix products.
//!
//! The same lanes and no fused multiply-add, as everywhere here: the result does not depend on the instruction set.

use crate::exponent::exp_non_positive;
use crate::isa::kernel;

/// Sums kept side by side.
const LANES: usize = 16;

#[inline(always)]
fn sum_of(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += value(chunk[lane]);
        }
    }
    for (lane, &number) in tail.iter().enumerate() {
        sums[lane] += value(number);
    }
    sums.iter().sum()
}

#[inline(always)]
fn layer_norm_body(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let n = weight.len();
    for row in rows.chunks_exact_mut(n) {
        let mean = sum_of(row, |number| number) / n as f32;
        let variance = sum_of(row, |number| (number - mean) * (number - mean)) / n as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((number, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
            *number = (*number - mean) * scale * weight + bias;
        }
    }
}

kernel! {
    /// Layer normalisation (arXiv:1607.06450) of `rows`, `[n_rows, n]`, in place; `weight` and `bias` are `[n]`.
    pub fn layer_norm, layer_norm_on(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) -> () = layer_norm_body;
}

#[inline(always)]
fn rms_norm_body(rows: &mut [f32], weight: &[f32], epsilon: f32) {
    let n = weight.len();
    for row in rows.chunks_exact_mut(n) {
        let mean_square = sum_of(row, |number| number * number) / n as f32;
        let scale = 1.0 / (mean_square + epsilon).sqrt();
        for (number, weight) in row.iter_mut().zip(weight) {
            *number = *number * scale * weight;
        }
    }
}

kernel! {
    /// Root-mean-square normalisation (arXiv:1910.07467) of `rows`, `[n_rows, n]`, in place; `weight` is `[n]`.
    pub fn rms_norm, rms_norm_on(rows: &mut [f32], weight: &[f32], epsilon: f32) -> () = rms_norm_body;
}

/// The error function, absolute error below 5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let mut series = 1.061_405_4;
    series = series * t - 1.453_152;
    series = series * t + 1.421_413_8;
    series = series * t - 0.284_496_74;
    series = series * t + 0.254_829_6;
    let value = 1.0 - series * t * exp_non_positive(-size * size);
    if x < 0.0 { -value } else { value }
}

#[inline(always)]
fn gelu_body(numbers: &mut [f32]) {
    for number in numbers {
        *number = 0.5 * *number * (1.0 + erf(*number * std::f32::consts::FRAC_1_SQRT_2));
    }
}

kernel! {
    /// The Gaussian error linear unit (arXiv:1606.08415), in place.
    pub fn gelu, gelu_on(numbers: &mut [f32]) -> () = gelu_body;
}

/// `1 / (1 + e^−x)` without overflow.
#[inline(always)]
fn logistic(x: f32) -> f32 {
    let small = exp_non_positive(-x.abs());
    let of_size = 1.0 / (1.0 + small);
    if x < 0.0 { small * of_size } else { of_size }
}

#[inline(always)]
fn gelu_tanh_body(numbers: &mut [f32]) {
    // sqrt(2 / π)
    const SLOPE: f32 = 0.797_884_6;
    for number in numbers {
        let x = *number;
        let inner = SLOPE * (x + 0.044_715 * x * x * x);
        // 0.5 · (1 + tanh y) is the logistic function of 2y.
        *number = x * logistic(2.0 * inner);
    }
}

kernel! {
    /// The GELU by its tanh approximation, in place.
    pub fn gelu_tanh, gelu_tanh_on(numbers: &mut [f32]) -> () = gelu_tanh_body;
}

#[inline(always)]
fn silu_body(numbers: &mut [f32]) {
    for number in numbers {
        *number *= logistic(*number);
    }
}

kernel! {
    /// The sigmoid linear unit (arXiv:1702.03118), in place.
    pub fn silu, silu_on(numbers: &mut [f32]) -> () = silu_body;
}

#[inline(always)]
fn softmax_body(row: &mut [f32]) {
    let mut peaks = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            peaks[lane] = peaks[lane].max(chunk[lane]);
        }
    }
    let peak = tail.iter().chain(&peaks).fold(f32::NEG_INFINITY, |peak, &number| peak.max(number));
    for number in row.iter_mut() {
        *number = exp_non_positive(*number - peak);
    }
    let scale = 1.0 / sum_of(row, |number| number);
    for number in row {
        *number *= scale;
    }
}

kernel! {
    /// The softmax of one row, in place. Entries of −∞ become 0; one entry at least must be finite.
    pub fn softmax, softmax_on(row: &mut [f32]) -> () = softmax_body;
}

#[inline(always)]
fn multiply_body(numbers: &mut [f32], factors: &[f32]) {
    for (number, factor) in numbers.iter_mut().zip(factors) {
        *number *= factor;
    }
}

kernel! {
    /// Multiplies number by number, in place.
    pub fn multiply, multiply_on(numbers: &mut [f32], factors: &[f32]) -> () = multiply_body;
}

#[inline(always)]
fn rotate_halves_body(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

kernel! {
    /// Rotary position embedding (arXiv:2104.09864) of one head, in place: number `i` and number `i + n` turn together,
    /// where `n` is the length of `cosines` and `sines`; the head has at least `2n` numbers.
    pub fn rotate_halves, rotate_halves_on(head: &mut [f32], cosines: &[f32], sines: &[f32]) -> () = rotate_halves_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// Numbers between −6 and 6 in no order; 77 of them, so that loops have a tail.
    fn numbers() -> Vec<f32> {
        (0..77).map(|idx| ((idx * 37 % 77) as f32 - 38.0) / 6.3).collect()
    }

    fn assert_close(actual: &[f32], expected: impl Iterator<Item = f64>, tolerance: f64) {
        for (idx, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!((f64::from(*actual) - expected).abs() <= tolerance, "{idx}: {actual} instead of {expected}");
        }
    }

    /// The error function by its power series, in f64.
    fn exact_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn units_are_those_of_the_papers() {
        let inputs: Vec<f64> = numbers().into_iter().map(f64::from).collect();
        for isa in Isa::all_available() {
            let mut actual = numbers();
            gelu_on(isa, &mut actual);
            let exact = |x: &f64| if x.abs() < 5.0 { exact_erf(x / 2f64.sqrt()) } else { x.signum() };
            assert_close(&actual, inputs.iter().map(|x| 0.5 * x * (1.0 + exact(x))), 2e-6);
            let mut actual = numbers();
            gelu_tanh_on(isa, &mut actual);
            let slope = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = |x: &f64| 0.5 * x * (1.0 + (slope * (x + 0.044715 * x.powi(3))).tanh());
            assert_close(&actual, inputs.iter().map(tanh), 2e-6);
            let mut actual = numbers();
            silu_on(isa, &mut actual);
            assert_close(&actual, inputs.iter().map(|x| x / (1.0 + (-x).exp())), 2e-6);
        }
    }

    #[test]
    fn norms_are_those_of_the_papers() {
        let (weight, bias): (Vec<f32>, Vec<f32>) =
            (0..77).map(|idx| (1.0 + idx as f32 / 77.0, idx as f32 / 9.0)).unzip();
        let x: Vec<f64> = numbers().into_iter().map(f64::from).collect();
        let mean = x.iter().sum::<f64>() / 77.0;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 77.0;
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / 77.0;
        let affine =
            |value: f64, idx: usize, with_bias: f64| value * f64::from(weight[idx]) + with_bias * f64::from(bias[idx]);
        for isa in Isa::all_available() {
            let mut actual = numbers().repeat(2);
            layer_norm_on(isa, &mut actual, &weight, &bias, 1e-5);
            let expected = |idx: usize| affine((x[idx] - mean) / (variance + 1e-5).sqrt(), idx, 1.0);
            assert_close(&actual[77..], (0..77).map(expected), 1e-5);
            let mut actual = numbers();
            rms_norm_on(isa, &mut actual, &weight, 1e-5);
            assert_close(&actual, (0..77).map(|idx| affine(x[idx] / (mean_square + 1e-5).sqrt(), idx, 0.0)), 1e-5);
        }
    }

    #[test]
    fn a_softmax_sums_to_one() {
        let x: Vec<f64> = numbers().into_iter().map(f64::from).collect();
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        for isa in Isa::all_available() {
            let mut actual = numbers();
            actual.extend([f32::NEG_INFINITY; 3]);
            softmax_on(isa, &mut actual);
            assert_close(&actual, x.iter().map(|x| x.exp() / total).chain([0.0; 3]), 1e-6);
        }
    }

    #[test]
    fn a_rotation_turns_pairs_and_keeps_their_length() {
        for isa in Isa::all_available() {
            let mut head = [1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 9.0];
            rotate_halves_on(isa, &mut head, &[0.0, 1.0, 0.6], &[1.0, 0.0, 0.8]);
            assert_close(&head, [0.0, 0.0, 1.2 - 3.2, 1.0, 3.0, 2.4 + 1.6, 9.0].into_iter(), 1e-6);
            let mut product = [2.0, 3.0];
            multiply_on(isa, &mut product, &[4.0, 0.5]);
            assert_eq!(product, [8.0, 1.5]);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for isa in Isa::all_available() {
            for apply in [gelu_on, gelu_tanh_on, silu_on, softmax_on] {
                let (mut here, mut baseline) = (numbers(), numbers());
                apply(isa, &mut here);
                apply(Isa::all_available()[0], &mut baseline);
                assert!(here.iter().zip(&baseline).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}
