//! Every loop against its scalar twin, and every instruction set against the others to the last bit.

use proptest::prelude::*;

use crate::isa::Isa;
use crate::*;

/// Plain loops that say what each kernel means.
mod scalar {
    use super::*;

    pub fn argmax(row: &[f32]) -> Result<Peak, RowFault> {
        if let Some(index) = row.iter().position(|x| x.is_nan()) {
            return Err(RowFault::NotANumber { index });
        }
        let mut best: Option<Peak> = None;
        for (index, &value) in row.iter().enumerate() {
            if best.is_none_or(|peak| value > peak.value) {
                best = Some(Peak { index, value });
            }
        }
        best.ok_or(RowFault::Empty)
    }

    pub fn top_k(row: &[f32], k: usize) -> Vec<Candidate> {
        let mut all = at_least(row, f32::NEG_INFINITY);
        all.sort_by(by_rank);
        all.truncate(k);
        all
    }

    pub fn at_least(row: &[f32], threshold: f32) -> Vec<Candidate> {
        (0..row.len())
            .filter(|&i| row[i] >= threshold && row[i] > f32::NEG_INFINITY)
            .map(|i| Candidate { index: i as u32, value: row[i], weight: 0.0 })
            .collect()
    }

    pub fn sum_exp(row: &[f32], max: f32) -> f64 {
        row.iter().map(|&x| f64::from(x - max).exp()).sum()
    }

    pub fn masked(row: &[f32], mask: &[u32]) -> Vec<f32> {
        let allowed = |i: usize| mask[i / 32] >> (i % 32) & 1 == 1;
        (0..row.len()).map(|i| if allowed(i) { row[i] } else { f32::NEG_INFINITY }).collect()
    }
}

/// A logit: mostly ordinary, often one of a few values (ties), sometimes −∞.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -30.0f32..30.0,
        3 => prop_oneof![Just(0.0f32), Just(-0.0), Just(1.5), Just(29.5)],
        1 => Just(f32::NEG_INFINITY),
    ]
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![prop::collection::vec(logit(), 0..200), prop::collection::vec(logit(), 4000..9000)]
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * (1.0 + b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn argmax_is_the_scalar_argmax(mut row in row(), nan_at in prop::option::weighted(0.2, 0usize..9000)) {
        if let Some(index) = nan_at.filter(|&index| index < row.len()) {
            row[index] = f32::NAN;
        }
        prop_assert_eq!(argmax(&row), scalar::argmax(&row));
        let mut maxima = BlockMaxima::default();
        match scalar::argmax(&row) {
            Ok(peak) => {
                prop_assert_eq!(maxima.scan(&row), Ok(()));
                prop_assert_eq!(maxima.peak(&row), Some(peak));
                prop_assert_eq!(maxima.max(), peak.value);
            }
            Err(fault) => prop_assert_eq!(maxima.scan(&row), Err(fault)),
        }
    }

    #[test]
    fn selection_is_the_head_of_a_sort(row in row(), k in 0usize..300, threshold in -35.0f32..35.0) {
        let mut maxima = BlockMaxima::default();
        prop_assume!(maxima.scan(&row).is_ok());
        let (mut pivots, mut best) = (Vec::new(), Vec::new());
        top_k(&row, &maxima, k, &mut pivots, &mut best);
        best.sort_by(by_rank);
        prop_assert_eq!(&best, &scalar::top_k(&row, k));
        gather_at_least(&row, &maxima, threshold, &mut best);
        prop_assert_eq!(&best, &scalar::at_least(&row, threshold));
    }

    #[test]
    fn a_refreshed_block_is_a_scanned_block(mut row in row(), at in 0usize..9000, value in logit()) {
        let mut maxima = BlockMaxima::default();
        prop_assume!(at < row.len());
        prop_assert_eq!(maxima.scan(&row), Ok(()));
        row[at] = value;
        maxima.refresh(&row, at);
        prop_assert_eq!(maxima.peak(&row), scalar::argmax(&row).ok());
    }

    #[test]
    fn a_divided_row_is_divided_everywhere(mut row in row(), divisor in 0.01f32..100.0) {
        let (mut maxima, mut copy) = (BlockMaxima::default(), Vec::new());
        prop_assume!(maxima.scan(&row).is_ok());
        copy_divided(&row, divisor, &mut copy);
        let expected: Vec<f32> = row.iter().map(|x| x / divisor).collect();
        prop_assert_eq!(&copy, &expected);
        divide_row(&mut row, divisor);
        prop_assert_eq!(&row, &expected);
        maxima.divide(divisor);
        prop_assert_eq!(maxima.peak(&row), scalar::argmax(&row).ok());
    }

    #[test]
    fn sums_are_the_f64_sums(row in row()) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assume!(max.is_finite());
        let expected = scalar::sum_exp(&row, max);
        prop_assert!(close(sum_exp(&row, max), expected));
        let mut sums = Vec::new();
        prop_assert_eq!(exp_block_sums(&row, max, &mut sums), sum_exp(&row, max));
        prop_assert!(close(sums.iter().sum(), expected));
        let moments = exp_moments(&row, max);
        prop_assert!(close(moments.sum, expected));
        let entropy: f64 = row.iter().map(|&x| f64::from(x - max).exp() / expected)
            .filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum();
        prop_assert!(close(moments.entropy(), entropy), "{} {}", moments.entropy(), entropy);
    }

    #[test]
    fn a_sum_above_a_threshold_is_the_sum_of_what_is_gathered(row in row(), threshold in -35.0f32..35.0) {
        let mut maxima = BlockMaxima::default();
        prop_assume!(maxima.scan(&row).is_ok() && maxima.max().is_finite());
        let max = maxima.max();
        let above: Vec<f32> = scalar::at_least(&row, threshold).iter().map(|c| c.value).collect();
        prop_assert!(close(sum_exp_at_least(&row, &maxima, max, threshold), scalar::sum_exp(&above, max)));
    }

    #[test]
    fn mean_and_deviation_skip_what_is_excluded(row in row()) {
        let finite: Vec<f64> = row.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
        let got = mean_deviation(&row);
        prop_assert_eq!(got.count, finite.len());
        prop_assume!(!finite.is_empty());
        let mean = finite.iter().sum::<f64>() / finite.len() as f64;
        let variance = finite.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / finite.len() as f64;
        prop_assert!((got.mean - mean).abs() < 1e-5);
        prop_assert!((got.deviation - variance.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn a_mask_excludes_what_it_does_not_name(row in row(), words in prop::collection::vec(any::<u32>(), 300)) {
        let mut out = Vec::new();
        prop_assert_eq!(copy_masked(&row, &words, &mut out), Ok(false));
        prop_assert_eq!(&out, &scalar::masked(&row, &words));
        if !row.is_empty() {
            // Under the mask, without a copy.
            let mut maxima = BlockMaxima::default();
            prop_assert_eq!(maxima.scan_masked(&row, &words), Ok(()));
            let expected = scalar::argmax(&out).ok().filter(|peak| peak.value > f32::NEG_INFINITY);
            let found = maxima.masked_peak(&row, &words).filter(|peak| peak.value > f32::NEG_INFINITY);
            prop_assert_eq!(found, expected);
            let (mut best, mut pivots) = (Vec::new(), Vec::new());
            for k in [1, 7, 400, 100_000] {
                masked_top_k((&row, &words), &maxima, k, &mut pivots, &mut best);
                best.sort_by(by_rank);
                prop_assert_eq!(&best, &scalar::top_k(&out, k));
            }
            gather_masked(&row, &words, &maxima, 0.0, &mut best);
            prop_assert_eq!(&best, &scalar::at_least(&out, 0.0));
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits(row in row(), words in prop::collection::vec(any::<u32>(), 300)) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assume!(max.is_finite());
        let run = |isa: Isa| {
            let mut maxima = vec![0.0; row.len().div_ceil(64)];
            let mut sums = vec![0.0; row.len().div_ceil(EXP_BLOCK)];
            let (mut masked, mut divided) = (vec![0.0; row.len()], vec![0.0; row.len()]);
            let faults = (
                peak::fill_maxima_on(isa, &row, 64, &mut maxima),
                mask::copy_masked_on(isa, &row, &words, &mut masked),
            );
            stats::divide_on(isa, &row, 0.7, &mut divided);
            stats::divide_row_on(isa, &mut divided, 1.3);
            let moments = exponent::exp_moments_on(isa, &row, max);
            let floats = [
                exponent::sum_exp_on(isa, &row, max),
                exponent::block_sums_on(isa, &row, max, &mut sums),
                exponent::at_least_on(isa, &row, &maxima, 64, max, 0.5),
                moments.sum,
                moments.first,
                stats::finite_sum_on(isa, &row).0,
                stats::squares_on(isa, &row, 0.25),
            ];
            let bits = floats.map(f64::to_bits);
            let rows: Vec<u32> = maxima.iter().chain(&masked).chain(&divided).map(|x| x.to_bits()).collect();
            (faults, bits, sums.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), rows, peak::best_block_on(isa, &row))
        };
        let sets = Isa::all_available();
        let expected = run(sets[0]);
        for isa in sets {
            prop_assert_eq!(&run(isa), &expected, "{:?}", isa);
        }
    }
}

#[test]
fn exponential_is_within_three_ulp_of_f64() {
    let mut worst: f64 = 0.0;
    for step in 0..870_000 {
        let x = -(step as f32) * 1e-4;
        let exact = f64::from(x).exp();
        worst = worst.max((f64::from(exp_non_positive(x)) - exact).abs() / exact);
    }
    assert!(worst < 3e-7, "relative error {worst}");
    assert_eq!(exp_non_positive(0.0), 1.0);
    assert_eq!(exp_non_positive(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp_non_positive(f32::MIN), 0.0);
}

#[test]
fn a_short_mask_and_a_hidden_nan_are_reported() {
    let mut row = vec![0.0f32; 100];
    let mut out = Vec::new();
    assert_eq!(copy_masked(&row, &[u32::MAX; 3], &mut out), Err(MaskTooShort { needed_words: 4, words: 3 }));
    for index in [0, 40, 99] {
        row[index] = f32::NAN;
        assert_eq!(copy_masked(&row, &[0; 4], &mut out), Ok(true));
        row[index] = 0.0;
    }
    assert_eq!(copy_masked(&row, &[0; 4], &mut out), Ok(false));
    assert_eq!(argmax(&out), Ok(Peak { index: 0, value: f32::NEG_INFINITY }));
}
