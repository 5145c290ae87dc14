use super::{TimedWord, first_frames, over_tokens, smoothed, with_signs};

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
}

#[test]
fn signs_belong_to_words() {
    let word =
        |text: &str| TimedWord { text: text.into(), tokens: vec![1], start_secs: 0.0, end_secs: 1.0, probability: 1.0 };
    let found = with_signs([" \"", "Hi", ",", " you", "!"].map(word).to_vec());
    let texts: Vec<&str> = found.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, [" \"Hi,", " you!"]);
}
