//! Medians, quantiles and intervals of small samples.

use super::random::Random;

/// Samples drawn for an interval.
const DRAWS: usize = 2000;

/// A median with the interval in which it lies with a probability of 95 %.
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

/// Median and interval by the percentile bootstrap (Efron, 1979): the spread of the medians of samples that are drawn
/// from `values` with replacement. Equal values give equal intervals, whenever they are computed.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let medians = resampled(values, 1);
    interval(median(values), medians)
}

/// Median and interval of the ratio `a / b` of two samples that were not taken in pairs.
pub(crate) fn ratio_spread(a: &[f64], b: &[f64]) -> Spread {
    let ratios = resampled(a, 1).into_iter().zip(resampled(b, 2)).map(|(a, b)| a / b).collect();
    interval(median(a) / median(b), ratios)
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
    use super::{median, quantile, ratio_spread, spread};

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
    fn a_ratio_beyond_the_noise_has_an_interval_without_one() {
        let (a, b) = ([10.0, 10.2, 9.9, 10.1, 10.0], [8.0, 8.1, 7.9, 8.0, 8.05]);
        let ratio = ratio_spread(&a, &b);
        assert!((ratio.median - 1.25).abs() < 0.01 && ratio.low > 1.2, "{ratio:?}");
        let same = ratio_spread(&a, &a);
        assert!(same.low <= 1.0 && same.high >= 1.0, "{same:?}");
    }
}
