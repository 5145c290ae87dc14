use super::{Clause, Espeak, EspeakError, clauses, without_marks};

fn check(sentence: &str, wanted: &[(&str, Option<char>)]) {
    let wanted: Vec<Clause> = wanted.iter().map(|&(text, end)| Clause { text: text.into(), end }).collect();
    assert_eq!(clauses(sentence), wanted, "{sentence:?}");
}

#[test]
fn sentences_are_cut_at_signs_behind_words() {
    check("Hello, world!", &[("Hello", Some(',')), ("world", Some('!'))]);
    check("It costs 3.50, or 1,000?", &[("It costs 3.50", Some(',')), ("or 1,000", Some('?'))]);
    check("Mr. Smith is here.", &[("Mr Smith is here", Some('.'))]);
    check("What?! Well...", &[("What", Some('?')), ("Well", Some('.'))]);
    check("... (never)\n\tmind", &[("never   mind", None)]);
    check("«Ça va»", &[("Ça va", None)]);
    check("?!", &[]);
}

#[test]
fn marks_of_languages_go() {
    assert_eq!(without_marks("(en)hɛloʊ(de) vɛlt"), "hɛloʊ vɛlt");
    assert_eq!(without_marks("a)b"), "ab");
}

/// Phonemes of piper-tts 1.4, whose espeak-ng is the same.
#[test]
fn phonemes_are_those_of_piper() {
    let espeak = match Espeak::find() {
        Ok(espeak) => espeak,
        Err(error) => return eprintln!("{error}: passed over"),
    };
    let of = |sentence: &str| espeak.phonemes(sentence, "en-us").unwrap();
    // Versions of espeak-ng differ in whether the t is tapped.
    let hello = of("Hello world, it is five.");
    assert!(["həlˈoʊ wˈɜːld, ɪt ɪz fˈaɪv.", "həlˈoʊ wˈɜːld, ɪɾ ɪz fˈaɪv."].contains(&hello.as_str()), "{hello}");
    assert_eq!(of("Yes; no (maybe)."), "jˈɛs; nˈoʊ mˈeɪbiː.");
    assert_eq!(of(" "), "");
    // Older versions take their usual voice in place of one that they do not have.
    assert!(matches!(espeak.phonemes("x", "no-such-voice"), Ok(_) | Err(EspeakError::Voice { .. })));
    assert!(matches!(espeak.phonemes("x", "--help"), Err(EspeakError::Voice { .. })));
}
