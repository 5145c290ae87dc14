use super::*;

fn check(language: Language, tied: &str, wanted: &str) {
    assert_eq!(language.symbols(tied), wanted, "{tied}");
}

/// The right sides are misaki's own words for these sentences, where its dictionaries and espeak-ng agree.
#[test]
fn phonemes_become_misaki_s_symbols() {
    use Language::{American, British, Spanish};
    check(American, "həlˈo^ʊ wˈɜːld!", "həlˈO wˈɜɹld!");
    check(American, "wˈɔːɾɚ, t^ʃˈɜːt^ʃ; d^ʒˈʌd^ʒ?", "wˈɔTəɹ, ʧˈɜɹʧ; ʤˈʌʤ?");
    check(American, "fˈoːɹ bˈɔ^ɪz ɐɡˈɛn", "fˈɔɹ bˈYz əɡˈɛn");
    check(American, "bˈʌʔn̩ lˈɪɾə^l", "bˈʌtᵊn lˈɪTᵊl");
    check(American, "pˈʲo^ʊ", "pˈjO");
    check(British, "həlˈə^ʊ wˈɜːld", "həlˈQ wˈɜːld");
    check(British, "ðe^ə wˈɔːtə", "ðɛː wˈɔːtə");
    check(Spanish, "t^ʃˈiko βo^ɪlˈed", "ʧˈiko βoɪlˈed");
    check(American, "ɹˈɪðm̩ \u{329}", "ɹˈɪðᵊm ");
}

#[test]
fn symbols_have_numbers_of_their_own() {
    let mut ids: Vec<i32> = IDS.iter().map(|(_, id)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), ids[0]), (IDS.len(), 1));
    assert_eq!([' ', 'ɹ', 'T', '\u{303}', 'g'].map(id), [Some(16), Some(123), Some(36), Some(17), None]);
}

#[test]
fn voices_say_their_language() {
    assert_eq!(Language::of_voice("af_heart"), Some(Language::American));
    assert_eq!(Language::of_voice("bm_george"), Some(Language::British));
    assert_eq!(["jf_alpha", "zm_yunxi", ""].map(Language::of_voice), [None; 3]);
}
