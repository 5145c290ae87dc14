use super::super::vocabulary::tests::small;
use super::{Spans, compression_ratio, spans};

/// Times as hundredths of a second in parentheses, words as letters.
fn cut(text: &str) -> Spans {
    let vocabulary = small(51_864);
    let token = |word: &str| match word.parse::<u32>() {
        Ok(hundredths) => vocabulary.first_timestamp() + hundredths / 2,
        Err(_) => u32::from(word.as_bytes()[0]),
    };
    let tokens: Vec<u32> = text.split_whitespace().map(token).collect();
    spans(&tokens, &vocabulary, 30.0)
}

fn times(found: &Spans) -> Vec<(f64, f64)> {
    found.spans.iter().map(|span| (span.start_secs, span.end_secs)).collect()
}

#[test]
fn pairs_of_times_cut() {
    // The last pair tells that what follows was cut off.
    let found = cut("0 a b 200 200 c 500 500");
    assert_eq!((times(&found), found.resume_secs), (vec![(0.0, 2.0), (2.0, 5.0)], Some(5.0)));
    // A single time at the end: everything was said.
    let found = cut("0 a 200 200 c 500");
    assert_eq!((times(&found), found.resume_secs), (vec![(0.0, 2.0), (2.0, 5.0)], None));
    // Text behind the last pair is heard again.
    let found = cut("0 a 200 200 c");
    assert_eq!((times(&found), found.resume_secs), (vec![(0.0, 2.0)], Some(2.0)));
    // No pair at all.
    let found = cut("0 a b 700");
    assert_eq!((times(&found), found.resume_secs), (vec![(0.0, 7.0)], None));
    let found = cut("a b");
    assert_eq!((times(&found), found.resume_secs), (vec![(0.0, 30.0)], None));
    // No progress is no reason to hear the same again.
    assert_eq!(cut("0 0 a").resume_secs, None);
}

#[test]
fn repetition_compresses() {
    assert!(compression_ratio(&"thank you very much ".repeat(20)) > 2.4);
    assert!(compression_ratio("The quick brown fox jumps over the lazy dog.") < 2.4);
    assert!(compression_ratio("").is_finite());
}
