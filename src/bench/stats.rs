//! Medians, quantiles and intervals of small samples.

use super::random::Random;

/// Samples drawn for the interval of a ratio.
const DRAWS: usize = 2000;

/// The fewest samples whose range holds the median with a probability of 95 %: that of `n` misses it when all lie on one
/// side, which has the probability 2^(1-n).
pub(crate) const LEAST_FOR_INTERVAL: usize = 6;

/// A median with the interval in which it lies with a probability of at least 95 %; of fewer than [`LEAST_FOR_INTERVAL`]
/// samples with their range, which promises less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The value below which a share `q` of `values` lies, between two of them on a straight line; NaN for none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

/// The same for values that are in order.
pub(crate) fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Median and interval by order statistics, which ask nothing of how the values are distributed; all NaN for none.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |idx: Option<usize>| idx.and_then(|idx| sorted.get(idx)).copied().unwrap_or(f64::NAN);
    let outside = n_outside(sorted.len());
    let high = sorted.len().checked_sub(1 + outside);
    Spread { median: quantile_of_sorted(&sorted, 0.5), low: at(Some(outside)), high: at(high) }
}

/// How many of `n` values in order lie outside of the interval on either side: the most with which it still holds the
/// median with a probability of 95 %, from the binomial distribution with 1/2.
fn n_outside(n: usize) -> usize {
    // From here on the normal distribution is as good.
    if n > 100 {
        return ((n as f64 - 1.96 * (n as f64).sqrt()) / 2.0) as usize;
    }
    let mut probability = 0.5_f64.powi(n as i32);
    let (mut sum, mut outside) = (probability, 0);
    while outside < n {
        // To the probability that one more lies below the median.
        probability *= (n - outside) as f64 / (outside + 1) as f64;
        sum += probability;
        if 2.0 * sum > 0.05 {
            break;
        }
        outside += 1;
    }
    outside
}

/// Ratio of the medians of two samples that were not taken in pairs, with its interval by the percentile bootstrap (Efron,
/// 1979); where one of them is too small for that, from the smallest quotient to the largest. Equal values give equal
/// intervals, whenever they are computed.
pub(crate) fn ratio_spread(a: &[f64], b: &[f64]) -> Spread {
    let middle = median(a) / median(b);
    if a.len().min(b.len()) < LEAST_FOR_INTERVAL {
        let (a, b) = (range(a), range(b));
        return Spread { median: middle, low: a.0 / b.1, high: a.1 / b.0 };
    }
    let ratios = resampled(a, 1).into_iter().zip(resampled(b, 2)).map(|(a, b)| a / b).collect();
    interval(middle, ratios)
}

/// Mean of the differences `a - b` of two samples that were taken in pairs, with its interval of 95 % (normal).
pub(crate) fn difference_spread(a: &[f64], b: &[f64]) -> Spread {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let error = 1.96 * (variance / n).sqrt();
    Spread { median: mean, low: mean - error, high: mean + error }
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

fn resampled(values: &[f64], seed: u64) -> Vec<f64> {
    if values.is_empty() {
        return Vec::new();
    }
    let mut random = Random::new(seed);
    let mut draw = || median(&(0..values.len()).map(|_| values[random.below(values.len())]).collect::<Vec<_>>());
    (0..DRAWS).map(|_| draw()).collect()
}

fn interval(median: f64, mut draws: Vec<f64>) -> Spread {
    draws.sort_by(f64::total_cmp);
    Spread { median, low: quantile_of_sorted(&draws, 0.025), high: quantile_of_sorted(&draws, 0.975) }
}

#[cfg(test)]
mod tests {
    use super::{difference_spread, median, n_outside, quantile, ratio_spread, spread};

    #[test]
    fn quantiles_lie_on_a_line_between_values() {
        let cases: [(&[f64], f64, f64); 6] = [
            (&[3.0, 1.0, 2.0], 0.5, 2.0),
            (&[1.0, 2.0], 0.5, 1.5),
            (&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9, 4.6),
            (&[7.0], 0.99, 7.0),
            (&[1.0, 9.0], 0.0, 1.0),
            (&[1.0, 9.0], 1.0, 9.0),
        ];
        for (values, q, expected) in cases {
            assert!((quantile(values, q) - expected).abs() < 1e-12, "{values:?} at {q}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_interval_holds_the_median_and_narrows_with_the_sample() {
        let sample = |n: usize| (0..n).map(|idx| 100.0 + (idx * 37 % 11) as f64).collect::<Vec<_>>();
        let (few, many) = (spread(&sample(5)), spread(&sample(400)));
        for spread in [few, many] {
            assert!(spread.low <= spread.median && spread.median <= spread.high, "{spread:?}");
        }
        assert!(many.high - many.low < few.high - few.low, "{few:?} {many:?}");
        assert_eq!(spread(&[2.0; 9]).low, 2.0);
        assert_eq!(spread(&sample(5)), few, "the same numbers again");
    }

    #[test]
    fn an_interval_misses_the_median_in_five_of_a_hundred_at_most() {
        // The ranks are those of the tables of the sign test.
        for (n, outside) in [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (50, 17), (100, 39), (101, 40)] {
            assert_eq!(n_outside(n), outside, "{n}");
        }
        let sample: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!((spread(&sample).low, spread(&sample).high), (2.0, 8.0));
        let few = spread(&[3.0, 1.0, 2.0]);
        assert_eq!((few.low, few.median, few.high), (1.0, 2.0, 3.0), "a range");
        assert!(spread(&[]).low.is_nan() && spread(&[]).high.is_nan());
    }

    #[test]
    fn pairs_are_compared_by_their_differences() {
        let same = difference_spread(&[1.0, 0.0, 1.0], &[1.0, 0.0, 1.0]);
        assert_eq!((same.low, same.median, same.high), (0.0, 0.0, 0.0));
        let worse = difference_spread(&[0.0, 0.0, 0.0, 1.0], &[1.0, 0.0, 1.0, 1.0]);
        assert!((worse.median + 0.5).abs() < 1e-12 && worse.low < -1.0 && worse.high > 0.0, "{worse:?}");
    }

    #[test]
    fn a_ratio_beyond_the_noise_has_an_interval_without_one() {
        let (a, b) = ([10.0, 10.2, 9.9, 10.1, 10.0], [8.0, 8.1, 7.9, 8.0, 8.05]);
        let ratio = ratio_spread(&a, &b);
        assert!((ratio.median - 1.25).abs() < 0.01 && ratio.low > 1.2, "{ratio:?}");
        let same = ratio_spread(&a, &a);
        assert!(same.low <= 1.0 && same.high >= 1.0, "{same:?}");
    }
}
