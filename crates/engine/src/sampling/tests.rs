//! Bad input, reproducibility and the laws every distribution obeys. Equality with llama.cpp is tested in `llama`.

use proptest::prelude::*;

use super::*;

fn sampler(n_vocab: usize, change: impl FnOnce(&mut SamplingParams)) -> Sampler {
    let mut params = SamplingParams::neutral();
    change(&mut params);
    Sampler::new(params, n_vocab, 1).expect("valid parameters")
}

/// A bell of `n` logits, always the same.
fn bell(n: usize, deviation: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * deviation).collect()
}

#[test]
fn numbers_out_of_range_are_named() {
    type Change = fn(&mut SamplingParams);
    let cases: &[(&str, Change)] = &[
        ("temperature", |p| p.temperature = f32::NAN),
        ("temperature", |p| p.temperature = -0.1),
        ("temperature", |p| p.temperature = f32::INFINITY),
        ("dynatemp_range", |p| p.dynatemp_range = -1.0),
        ("dynatemp_exponent", |p| p.dynatemp_exponent = f32::NAN),
        ("top_k", |p| p.top_k = Some(0)),
        ("top_p", |p| p.top_p = 1.01),
        ("top_p", |p| p.top_p = f32::NAN),
        ("min_p", |p| p.min_p = -0.5),
        ("typical_p", |p| p.typical_p = 2.0),
        ("top_n_sigma", |p| p.top_n_sigma = Some(0.0)),
        ("xtc_probability", |p| p.xtc = Some(Xtc { probability: 7.0, threshold: 0.1 })),
        ("xtc_threshold", |p| p.xtc = Some(Xtc { probability: 0.5, threshold: f32::NAN })),
        ("min_keep", |p| p.min_keep = usize::MAX),
        ("repeat_penalty", |p| p.repeat_penalty = 0.0),
        ("presence_penalty", |p| p.presence_penalty = f32::NEG_INFINITY),
        ("frequency_penalty", |p| p.frequency_penalty = 1e9),
        ("repeat_last_n", |p| p.repeat_last_n = MAX_WINDOW + 1),
        ("dry_multiplier", |p| p.dry = Some(Dry { multiplier: -1.0, ..Dry::default() })),
        ("dry_base", |p| p.dry = Some(Dry { base: 0.5, ..Dry::default() })),
        ("dry_allowed_length", |p| p.dry = Some(Dry { allowed_length: u32::MAX, ..Dry::default() })),
        ("dry_penalty_last_n", |p| p.dry = Some(Dry { penalty_last_n: usize::MAX, ..Dry::default() })),
        ("mirostat_tau", |p| p.mirostat = Some(Mirostat { version: MirostatVersion::V1, tau: -1.0, eta: 0.1 })),
        ("mirostat_eta", |p| p.mirostat = Some(Mirostat { version: MirostatVersion::V2, tau: 1.0, eta: f32::NAN })),
        ("logit_bias", |p| p.logit_bias = vec![(0, f32::NAN)]),
        ("logit_bias", |p| p.logit_bias = vec![(0, f32::INFINITY)]),
        ("top_logprobs", |p| p.top_logprobs = Some(100_000)),
        ("samplers", |p| p.samplers = vec![SamplerKind::TopK; 1000]),
    ];
    for (expected, change) in cases {
        let mut params = SamplingParams::default();
        change(&mut params);
        match params.validate() {
            Err(SamplingError::OutOfRange { field, .. }) => assert_eq!(field, *expected),
            other => panic!("{expected}: {other:?}"),
        }
        assert!(Sampler::new(params, 10, 0).is_err());
    }
    for params in [SamplingParams::default(), SamplingParams::neutral(), SamplingParams::greedy()] {
        assert_eq!(params.validate(), Ok(()));
    }
    let biased = SamplingParams { logit_bias: vec![(10, 1.0)], ..SamplingParams::default() };
    let unknown = SamplingError::UnknownToken { field: "logit_bias", token: 10, n_vocab: 10 };
    assert_eq!(Sampler::new(biased, 10, 0).err(), Some(unknown));
}

#[test]
fn bad_rows_are_errors_on_every_path() {
    let paths = || {
        [
            sampler(40, |p| p.temperature = 0.0),
            sampler(40, |p| (p.temperature, p.repeat_penalty) = (0.0, 1.1)),
            sampler(40, |_| {}),
            sampler(40, |p| p.top_p = 0.9),
            sampler(40, |p| p.top_logprobs = Some(3)),
        ]
    };
    let check = |row: &[f32], mask: Option<&[u32]>, expected: SamplingError| {
        for mut sampler in paths() {
            assert_eq!(sampler.sample(row, mask), Err(expected.clone()), "{:?}", sampler.params());
        }
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = vec![0.0; 40];
        row[33] = bad;
        check(&row, None, SamplingError::BadLogit { index: 33 });
        check(&row, Some(&[!0, !0]), SamplingError::BadLogit { index: 33 });
    }
    check(&[f32::NEG_INFINITY; 40], None, SamplingError::NoCandidate);
    check(&[0.0; 40], Some(&[0, 0]), SamplingError::NoCandidate);
    check(&[0.0; 40], Some(&[0, 1 << 8]), SamplingError::NoCandidate);
    check(&[0.0; 40], Some(&[!0]), SamplingError::MaskLength { words: 1, needed_words: 2 });
    check(&[0.0; 39], None, SamplingError::RowLength { row_len: 39, n_vocab: 40 });
    check(&[], None, SamplingError::RowLength { row_len: 0, n_vocab: 40 });
    let mut banned = sampler(3, |p| p.logit_bias = (0..3).map(|token| (token, f32::NEG_INFINITY)).collect());
    assert_eq!(banned.sample(&[1.0, 2.0, 3.0], None), Err(SamplingError::NoCandidate));
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let row = [1.0, 5.0, -3.0, 5.0];
    let token = |change: fn(&mut SamplingParams), mask: Option<&[u32]>| {
        let mut sampler = sampler(4, |p| {
            p.temperature = 0.0;
            change(p);
        });
        sampler.prime(&[1, 1]);
        sampler.sample(&row, mask).expect("a sound row").token
    };
    assert_eq!(token(|_| {}, None), 1);
    assert_eq!(token(|_| {}, Some(&[0b1101])), 3);
    assert_eq!(token(|p| p.repeat_penalty = 1.5, None), 3);
    assert_eq!(token(|p| (p.top_k, p.min_p) = (Some(2), 0.1), None), 1);
    assert_eq!(token(|p| p.logit_bias = vec![(2, 100.0)], None), 2);
    // XTC acts before the temperature and drops the first of the two top choices.
    assert_eq!(token(|p| p.xtc = Some(Xtc { probability: 1.0, threshold: 0.1 }), None), 3);
}

#[test]
fn a_seed_repeats_a_sequence_and_a_clone_goes_on_alike() {
    let row = bell(1000, 2.0);
    let draw = |sampler: &mut Sampler| -> Vec<u32> {
        (0..50)
            .map(|_| {
                let token = sampler.sample(&row, None).expect("a sound row").token;
                sampler.accept(token);
                token
            })
            .collect()
    };
    let penalised = |seed| sampler(1000, |p| (p.seed, p.frequency_penalty, p.top_p) = (seed, 0.3, 0.98));
    let (mut first, mut again, mut other) = (penalised(Some(7)), penalised(Some(7)), penalised(None));
    assert_eq!((first.seed(), other.seed()), (7, 1));
    assert_eq!(draw(&mut first), draw(&mut again));
    assert_ne!(draw(&mut again), draw(&mut other));
    let mut twin = again.clone();
    assert_eq!(draw(&mut again), draw(&mut twin));
}

#[test]
fn tokens_are_drawn_as_often_as_the_distribution_says() {
    let row = bell(2000, 2.5);
    for top_p in [1.0, 0.9] {
        let mut sampler = sampler(2000, |p| p.top_p = top_p);
        let distribution = sampler.distribution(&row, None).expect("a sound row");
        let n_draws = 40_000;
        let mut counts = vec![0u32; 2000];
        for _ in 0..n_draws {
            counts[sampler.sample(&row, None).expect("a sound row").token as usize] += 1;
        }
        let mut n_expected = 0;
        for (token, p) in distribution {
            let (count, expected) = (f64::from(counts[token as usize]), f64::from(p) * f64::from(n_draws));
            assert!((count - expected).abs() <= 5.0 * expected.sqrt() + 3.0, "{token}: {count} of {expected}");
            n_expected += counts[token as usize];
        }
        assert_eq!(n_expected, n_draws, "nothing outside the distribution is drawn");
    }
}

#[test]
fn log_probabilities_are_those_of_the_raw_row() {
    let row = [2.0, f32::NEG_INFINITY, 1.0, -30_000.0, 0.0];
    let mut sampler = sampler(5, |p| {
        (p.temperature, p.top_k, p.top_logprobs) = (0.2, Some(1), Some(20));
        p.logit_bias = vec![(0, -1000.0)];
    });
    let sampled = sampler.sample(&row, None).expect("a sound row");
    let sum = (2.0f64.exp() + 1.0f64.exp() + 1.0).ln();
    let logprob = sampled.logprob.expect("asked for");
    assert_eq!(sampled.token, 2);
    assert!((f64::from(logprob.logprob) - (1.0 - sum)).abs() < 1e-6);
    let tokens: Vec<u32> = logprob.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [0, 2, 4, 3]);
    assert_eq!(logprob.top[3].1, LOGPROB_FLOOR);
    assert!(logprob.top.iter().all(|(_, logprob)| logprob.is_finite() && *logprob <= 0.0));
    let masked = sampler.sample(&row, Some(&[0b1000])).expect("one token left");
    assert_eq!((masked.token, masked.logprob.map(|l| l.logprob)), (3, Some(LOGPROB_FLOOR)));
}

#[test]
fn only_the_window_counts_and_the_prompt_is_part_of_it() {
    let row = [1.0f32; 8];
    let mut sampler = sampler(8, |p| (p.presence_penalty, p.repeat_last_n) = (50.0, 3));
    let penalised = |sampler: &mut Sampler| -> Vec<u32> {
        let low = sampler.distribution(&row, None).expect("a sound row");
        let mut low: Vec<u32> = low.into_iter().filter(|(_, p)| *p < 1e-6).map(|(token, _)| token).collect();
        low.sort_unstable();
        low
    };
    assert!(penalised(&mut sampler).is_empty());
    sampler.prime(&[7, 6, 5, 4, 3]);
    assert_eq!(penalised(&mut sampler), [3, 4, 5]);
    sampler.accept(0);
    assert_eq!(penalised(&mut sampler), [0, 3, 4]);
    [0, 0, 0].into_iter().for_each(|token| sampler.accept(token));
    assert_eq!(penalised(&mut sampler), [0]);
}

#[test]
fn a_breaker_stops_a_repetition() {
    let row = [0.0f32; 10];
    let probability_of_3 = |breakers: DryBreakers| {
        let mut sampler =
            sampler(10, |p| p.dry = Some(Dry { multiplier: 5.0, penalty_last_n: 20, breakers, ..Dry::default() }));
        sampler.prime(&[1, 2, 9, 3, 7, 1, 2, 9]);
        let left = sampler.distribution(&row, None).expect("a sound row");
        left.iter().find(|(token, _)| *token == 3).map(|(_, p)| *p)
    };
    let free = Some(0.1);
    assert!(probability_of_3(DryBreakers::default()) < Some(0.01));
    assert_eq!(probability_of_3(DryBreakers::from_sequences(&[vec![9]])), free);
    assert_eq!(probability_of_3(DryBreakers::from_sequences(&[vec![2, 9], vec![]])), free);
    assert!(probability_of_3(DryBreakers::from_sequences(&[vec![2, 8], vec![6]])) < Some(0.01));
}

#[test]
fn a_nucleus_of_a_huge_flat_vocabulary_is_exact() {
    let row = bell(262_144, 1.0);
    check_nuclei(&row);
    check_nuclei(&row.iter().map(|x| x.round()).collect::<Vec<_>>());
    check_nuclei(&row.iter().map(|x| (x * 2.0).round() * 2.0).collect::<Vec<_>>());
}

fn check_nuclei(row: &[f32]) {
    let mut weights: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    let sum: f64 = weights.iter().sum();
    for top_p in [0.02, 0.5, 0.95, 0.9999] {
        let left = sampler(row.len(), |p| p.top_p = top_p).distribution(row, None).expect("a sound row");
        let share = |n: usize| weights[..n].iter().sum::<f64>() / sum;
        let (with_last, before_last) = (share(left.len()), share(left.len() - 1));
        assert!(with_last >= f64::from(top_p) - 2e-7, "{top_p}: {} tokens reach {with_last}", left.len());
        assert!(before_last <= f64::from(top_p) + 2e-7, "{top_p}: one token less reaches {before_last}");
        assert!(left.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
}

/// The centre of equally likely tokens is their logit; rounding must not push it above them.
#[test]
fn equal_tokens_are_all_typical() {
    for n in 1..300 {
        let mut row = vec![f32::NEG_INFINITY; 400];
        row[..n].fill(0.0);
        let left = sampler(400, |p| p.typical_p = 0.99).distribution(&row, None).expect("a sound row");
        assert!(left.len() as f64 >= 0.98 * n as f64, "{} of {n}", left.len());
    }
}

#[test]
fn mirostat_learns_only_from_tokens_that_are_accepted() {
    let row = bell(500, 3.0);
    let settings = Mirostat { version: MirostatVersion::V2, tau: 1.0, eta: 1.0 };
    let mut sampler = sampler(500, |p| p.mirostat = Some(settings));
    let before = sampler.distribution(&row, None).expect("a sound row");
    let token = sampler.sample(&row, None).expect("a sound row").token;
    sampler.accept((token + 1) % 500);
    assert_eq!(sampler.distribution(&row, None).expect("a sound row"), before, "a forced token teaches nothing");
    let mut n_kept = Vec::new();
    for _ in 0..20 {
        let token = sampler.sample(&row, None).expect("a sound row").token;
        sampler.accept(token);
        n_kept.push(sampler.distribution(&row, None).expect("a sound row").len());
    }
    n_kept.dedup();
    assert!(n_kept.len() > 3, "the limit moves: {n_kept:?}");
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let unit = || prop_oneof![0.0f32..=1.0, Just(0.0f32), Just(1.0f32)];
    let truncation =
        (prop::option::of(1u32..3000), unit(), unit(), unit(), prop::option::of(0.01f32..20.0), 0usize..2000);
    let temperature = (prop_oneof![Just(0.0f32), 1e-30f32..1e-3, 0.1f32..100.0], 0.0f32..3.0, 0.0f32..5.0);
    let penalties = (0.1f32..3.0, -2.0f32..2.0, -2.0f32..2.0, 0usize..40, unit(), 0.0f32..5.0);
    let kinds = prop::sample::subsequence(DEFAULT_SAMPLERS.to_vec(), 0..=9).prop_shuffle();
    let mirostat = prop::option::weighted(0.2, (any::<bool>(), 0.0f32..10.0, 0.0f32..2.0));
    (truncation, temperature, penalties, kinds, mirostat).prop_map(|(cut, heat, penalty, samplers, mirostat)| {
        let version = |first| if first { MirostatVersion::V1 } else { MirostatVersion::V2 };
        SamplingParams {
            temperature: heat.0,
            dynatemp_range: heat.1,
            dynatemp_exponent: heat.2,
            top_k: cut.0,
            top_p: cut.1,
            min_p: cut.2,
            typical_p: cut.3,
            top_n_sigma: cut.4,
            min_keep: cut.5,
            xtc: Some(Xtc { probability: penalty.4, threshold: penalty.4 / 3.0 }),
            repeat_penalty: penalty.0,
            presence_penalty: penalty.1,
            frequency_penalty: penalty.2,
            repeat_last_n: penalty.3,
            dry: Some(Dry { multiplier: penalty.5, ..Dry::default() }),
            mirostat: mirostat.map(|(first, tau, eta)| Mirostat { version: version(first), tau, eta }),
            samplers,
            top_logprobs: Some(5),
            ..SamplingParams::neutral()
        }
    })
}

fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => -30.0f32..30.0,
        2 => Just(1.0f32),
        1 => Just(f32::NEG_INFINITY),
        1 => prop_oneof![Just(f32::MIN), Just(f32::MAX), Just(-1e-40f32), Just(3e4f32)],
    ];
    prop_oneof![prop::collection::vec(logit.clone(), 1..40), prop::collection::vec(logit, 500..3000)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever the parameters, their order and the row: probabilities are numbers that add up to 1, and what is drawn
    /// is one of them and allowed.
    #[test]
    fn every_chain_leaves_a_distribution(
        params in any_params(),
        row in any_row(),
        prompt in prop::collection::vec(0u32..12, 0..60),
        words in prop::option::of(prop::collection::vec(any::<u32>(), 100)),
    ) {
        let mask = words.as_deref();
        let allowed = |token: usize| mask.is_none_or(|words| words[token / 32] >> (token % 32) & 1 == 1);
        prop_assume!((0..row.len()).any(|token| allowed(token) && row[token] > f32::NEG_INFINITY));
        let mut sampler = Sampler::new(params, row.len(), 3).expect("valid parameters");
        sampler.prime(&prompt);
        for _ in 0..3 {
            let left = sampler.distribution(&row, mask).expect("a sound row");
            let sum: f64 = left.iter().map(|(_, p)| f64::from(*p)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4, "sum {}", sum);
            prop_assert!(left.iter().all(|(token, p)| p.is_finite() && *p >= 0.0 && allowed(*token as usize)));
            let sampled = sampler.sample(&row, mask).expect("a sound row");
            prop_assert!(allowed(sampled.token as usize));
            let logprob = sampled.logprob.expect("asked for");
            prop_assert!(logprob.logprob.is_finite() && logprob.top.iter().all(|(_, p)| p.is_finite()));
            sampler.accept(sampled.token);
        }
    }
}
