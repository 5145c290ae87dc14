use super::*;

fn segment(start_secs: f64, end_secs: f64, n_tokens: usize) -> HeardSegment {
    HeardSegment {
        start_secs,
        end_secs,
        text: String::new(),
        // A timestamp at each end.
        tokens: std::iter::once(100).chain(std::iter::repeat_n(1, n_tokens)).chain([100]).collect(),
        words: Vec::new(),
        temperature: 0.0,
        avg_logprob: 0.0,
        compression_ratio: 1.0,
        no_speech_prob: 0.0,
    }
}

fn aligned(words: &[(f64, f64)], usual_secs: f64) -> Aligned {
    let word = |&(start_secs, end_secs): &(f64, f64)| TimedWord {
        text: " a".into(),
        tokens: vec![1],
        start_secs,
        end_secs,
        probability: 1.0,
    };
    Aligned { words: words.iter().map(word).collect(), usual_secs }
}

/// Times of the words and of the segment, for one segment from `own.0` to `own.1`; words last 0.3 s usually.
fn check(own: (f64, f64), words: &[(f64, f64)], last_speech_secs: f64, wanted: &[(f64, f64)], fitted: (f64, f64)) {
    let mut segments = [segment(own.0, own.1, words.len())];
    give_words(&mut segments, aligned(words, 0.3), 50, last_speech_secs);
    let [segment] = &segments;
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let found: Vec<(f64, f64)> = segment.words.iter().map(|word| (word.start_secs, word.end_secs)).collect();
    let same = found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| near(a.0, b.0) && near(a.1, b.1));
    assert!(same, "{found:?} where {wanted:?} is");
    assert!(near(segment.start_secs, fitted.0) && near(segment.end_secs, fitted.1), "{segment:?}");
}

/// Figures worked out by hand from the reference's rules.
#[test]
fn words_at_borders_are_as_the_reference_has_them() {
    // Usual words: the segment takes their ends.
    check((0.0, 2.0), &[(0.1, 0.4), (0.5, 0.9)], 0.0, &[(0.1, 0.4), (0.5, 0.9)], (0.1, 0.9));
    // A long first word behind a pause keeps its last 0.6 s; without a pause it stays.
    check((3.0, 5.0), &[(2.6, 4.0), (4.0, 4.5)], 0.0, &[(3.4, 4.0), (4.0, 4.5)], (3.4, 4.5));
    check((3.0, 5.0), &[(2.6, 4.0), (4.0, 4.5)], 3.0, &[(2.6, 4.0), (4.0, 4.5)], (2.6, 4.5));
    // Two words that are too long together.
    check((3.0, 5.0), &[(3.0, 3.5), (3.5, 4.5)], 0.0, &[(3.3, 3.9), (3.9, 4.5)], (3.3, 4.5));
    // At the start of a window, long after the last speech.
    check((0.0, 1.0), &[(0.0, 0.2), (0.2, 1.0)], -9.0, &[(0.0, 0.2), (0.2, 1.0)], (0.0, 1.0));
    check((0.0, 1.9), &[(0.0, 0.4), (0.4, 1.8)], -9.0, &[(0.6, 1.2), (1.2, 1.8)], (0.6, 1.8));
    // The segment's own start counts where the word begins more than 0.5 s earlier, its end likewise.
    check((2.0, 5.0), &[(1.2, 2.1), (2.1, 5.2)], 1.0, &[(1.8, 2.1), (2.1, 5.2)], (2.0, 5.2));
    check((0.0, 2.0), &[(0.0, 0.3), (0.4, 3.0)], 0.0, &[(0.0, 0.3), (0.4, 2.0)], (0.0, 2.0));
}

#[test]
fn words_go_to_the_segments_of_their_tokens() {
    let mut segments = [segment(0.0, 1.0, 2), segment(1.0, 2.0, 0), segment(2.0, 3.0, 1)];
    give_words(&mut segments, aligned(&[(0.0, 0.3), (0.4, 0.8), (2.1, 2.4)], 0.3), 50, 0.0);
    assert_eq!(segments.each_ref().map(|segment| segment.words.len()), [2, 0, 1]);
    assert_eq!((segments[2].start_secs, segments[2].end_secs), (2.1, 2.4));
}
