use super::{SIGNS, TimedWord, first_frames, over_tokens, shorten, smoothed, usual_secs, with_signs};

#[test]
fn the_path_follows_the_attention() {
    // Three rows over nine frames; each looks at its own third.
    let attention: Vec<f32> = (0..27).map(|at| if (at % 9) / 3 == at / 9 { 1.0 } else { -1.0 }).collect();
    assert_eq!(first_frames(&attention, 9), [0, 3, 6]);
    // More rows than frames: every row still has a frame.
    assert_eq!(first_frames(&[0.0; 5], 1), [0; 5]);
}

#[test]
fn medians_and_deviations() {
    assert_eq!(smoothed(&[0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), [0.0; 8]);
    assert_eq!(smoothed(&[1.0, 2.0]), [1.0, 2.0]);
    let found = over_tokens(&[1.0, 5.0, 3.0, 5.0], 2);
    assert!((found[0] + 1.0).abs() < 1e-3);
    assert!((found[2] - 1.0).abs() < 1e-3);
    // Weights as small as those of frames that no head looks at.
    let tiny = over_tokens(&[1e-9, 3e-9], 1);
    assert!((tiny[0] + 1.0).abs() < 1e-3 && (tiny[1] - 1.0).abs() < 1e-3, "{tiny:?}");
    assert!(over_tokens(&[0.5; 4], 2).iter().all(|value| *value == 0.0));
}

fn word(text: &str, start_secs: f64, end_secs: f64) -> TimedWord {
    TimedWord { text: text.into(), tokens: vec![1], start_secs, end_secs, probability: 1.0 }
}

#[test]
fn the_usual_word_is_the_median_and_not_long() {
    let of = |durations: &[f64]| {
        let words: Vec<TimedWord> = durations.iter().map(|&secs| word(" a", 1.0, 1.0 + secs)).collect();
        (usual_secs(&words) * 1000.0).round() / 1000.0
    };
    assert_eq!((of(&[]), of(&[0.0, 0.0])), (0.0, 0.0));
    assert_eq!((of(&[0.3]), of(&[0.1, 0.3, 0.2]), of(&[0.1, 0.4, 0.0, 0.2, 0.3])), (0.3, 0.2, 0.25));
    assert_eq!(of(&[2.0, 3.0]), 0.7);
}

#[test]
fn words_at_the_ends_of_sentences_are_not_long() {
    let mut words = [word(" so", 0.0, 0.25), word(".", 0.25, 2.0), word(" And", 2.0, 4.0), word(" on", 4.0, 6.0)];
    shorten(&mut words, 0.5);
    let times = words.map(|word| (word.start_secs, word.end_secs));
    assert_eq!(times, [(0.0, 0.25), (0.25, 0.75), (3.5, 4.0), (4.0, 6.0)]);
}

#[test]
fn signs_are_those_of_the_reference() {
    // Parts of the list, in its order.
    assert!([".", "()", "+,-", "?@", " !", ""].iter().all(|text| SIGNS.contains(text.trim())));
    assert!(!["...", "--", "?!", "a", "\"."].iter().any(|text| SIGNS.contains(text.trim())));
    assert_eq!(SIGNS.len(), 32);
}

#[test]
fn signs_belong_to_words() {
    let found =
        with_signs([" (", " \"", "Hi", ",", " you", "!", "\"", " --"].map(|text| word(text, 0.0, 1.0)).to_vec());
    let texts: Vec<&str> = found.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, [" ( \"Hi,", " you!\"", " --"]);
    assert_eq!(found.iter().map(|word| word.tokens.len()).sum::<usize>(), 8);
}
