use super::{Task, Vocabulary, pieces};

/// All single bytes and a few merges, in the order of their ranks, filled up to the size of a real vocabulary.
pub(crate) fn small(n_vocab: usize) -> Vocabulary {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for word in ["he", "ll", "llo", "hello", " w", " wo", "or", "ld", "--", " --", "("] {
        words.push(word.as_bytes().to_vec());
    }
    let n_words = if n_vocab >= 51_865 { 50_257 } else { 50_256 };
    while words.len() < n_words {
        words.push(format!("\u{1}filler {}", words.len()).into_bytes());
    }
    Vocabulary::from_bytes(words, n_vocab).unwrap()
}

#[test]
fn control_tokens_are_those_of_openai() {
    let english = small(51_864);
    assert!(!english.multilingual);
    assert_eq!((english.end(), english.start(), english.language(0)), (50_256, 50_257, 50_258));
    assert_eq!((english.task(Task::Translate), english.task(Task::Transcribe)), (50_357, 50_358));
    assert_eq!((english.no_speech(), english.no_timestamps(), english.first_timestamp()), (50_361, 50_362, 50_363));
    let multilingual = small(51_865);
    assert_eq!((multilingual.end(), multilingual.n_languages), (50_257, 99));
    assert_eq!((multilingual.task(Task::Translate), multilingual.first_timestamp()), (50_358, 50_364));
    let large_v3 = small(51_866);
    assert_eq!((large_v3.n_languages, large_v3.task(Task::Translate)), (100, 50_359));
    assert_eq!(large_v3.find_language("yue"), Some(99));
    assert_eq!(multilingual.find_language("yue"), None);
    assert_eq!(multilingual.find_language("German"), Some(2));
    assert_eq!(multilingual.find_language("pt-BR"), Some(8));
    assert_eq!(multilingual.find_language("klingon"), None);
}

#[test]
fn sizes_that_are_impossible_are_refused() {
    assert!(Vocabulary::from_bytes(vec![vec![0]; 10], 100).is_err());
    assert!(Vocabulary::from_bytes(vec![vec![0]; 60_000], 51_000).is_err());
    assert!(Vocabulary::from_words(&["a", "b"], 51_864).is_err());
}

#[test]
fn long_words_take_no_longer_than_many_short_ones() {
    let vocabulary = small(51_864);
    let begun = std::time::Instant::now();
    for text in ["a".repeat(300_000), "hello".repeat(60_000), "ß".repeat(100_001)] {
        let tokens = vocabulary.encode(&text);
        assert!(vocabulary.text(&tokens) == text, "encoding loses nothing");
    }
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn texts_are_cut_as_gpt_2_cuts_them() {
    assert_eq!(pieces(" Hello world, it's 2024!"), [" Hello", " world", ",", " it", "'s", " 2024", "!"]);
    assert_eq!(pieces("  two  spaces and\nlines"), [" ", " two", " ", " spaces", " and", "\n", "lines"]);
    assert_eq!(pieces("end  "), ["end", "  "]);
    assert_eq!(pieces(""), [""; 0]);
}

#[test]
fn neighbours_of_the_lowest_rank_are_joined_first() {
    let vocabulary = small(51_864);
    let words = |text: &str| -> Vec<String> {
        let tokens = vocabulary.encode(text);
        assert_eq!(vocabulary.text(&tokens), text, "encoding loses nothing");
        tokens.iter().map(|&token| vocabulary.text(&[token])).collect()
    };
    assert_eq!(words("hello"), ["hello"]);
    assert_eq!(words("hell"), ["he", "ll"]);
    assert_eq!(words(" world"), [" wo", "r", "ld"]);
    assert!(vocabulary.annotations().contains(&vocabulary.encode(" --")[0]));
    assert!(vocabulary.annotations().contains(&vocabulary.encode("(")[0]));
}
