use super::*;

/// An outcome whose tokens have this mean logprob and whose text compresses by this ratio.
fn outcome(avg_logprob: f64, compression_ratio: f64, temperature: f32) -> Outcome {
    let written = Written { tokens: vec![1; 9], sum_logprob: 10.0 * avg_logprob, no_speech_prob: 0.0 };
    Outcome { written, temperature, compression_ratio, text: "text".into() }
}

#[test]
fn where_all_temperatures_fail_the_likeliest_counts() {
    let options = HearingOptions::default();
    let pick = |outcomes: &[(f64, f64)]| {
        let outcomes: Vec<Outcome> = outcomes.iter().map(|&(logprob, ratio)| outcome(logprob, ratio, 0.0)).collect();
        chosen(&options, &outcomes)
    };
    // The last one will do, however likely the others are.
    assert_eq!(pick(&[(-0.2, 3.0), (-0.9, 1.5)]), 1);
    // All fail: the likeliest of those that do not repeat themselves.
    assert_eq!(pick(&[(-0.2, 3.0), (-1.5, 1.5), (-1.2, 2.0), (-2.0, 1.0)]), 2);
    // All repeat themselves: the likeliest of all, and of equals the first.
    assert_eq!(pick(&[(-0.5, 3.0), (-0.2, 9.0), (-0.3, 2.5)]), 1);
    assert_eq!(pick(&[(-0.5, 3.0), (-0.5, 3.0)]), 0);
}
