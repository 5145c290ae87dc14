//! The symbols that Kokoro's networks take, and how they come from espeak-ng's phonemes.
//!
//! The networks were trained on the notation of misaki (<https://github.com/hexgrad/misaki>), the makers' own program for
//! phonemes: diphthongs and affricates are one symbol each. For words that are not in its dictionaries it asks espeak-ng, as
//! is done here for all; the correspondences are those of its `espeak` module.

use super::super::phonemes::TIE;

/// Numbers of the symbols, as in the `config.json` of Kokoro-82M v1.0.
const IDS: [(char, i32); 114] = [
    (';', 1),
    (':', 2),
    (',', 3),
    ('.', 4),
    ('!', 5),
    ('?', 6),
    ('—', 9),
    ('…', 10),
    ('"', 11),
    ('(', 12),
    (')', 13),
    ('“', 14),
    ('”', 15),
    (' ', 16),
    ('\u{303}', 17),
    ('ʣ', 18),
    ('ʥ', 19),
    ('ʦ', 20),
    ('ʨ', 21),
    ('ᵝ', 22),
    ('ꭧ', 23),
    ('A', 24),
    ('I', 25),
    ('O', 31),
    ('Q', 33),
    ('S', 35),
    ('T', 36),
    ('W', 39),
    ('Y', 41),
    ('ᵊ', 42),
    ('a', 43),
    ('b', 44),
    ('c', 45),
    ('d', 46),
    ('e', 47),
    ('f', 48),
    ('h', 50),
    ('i', 51),
    ('j', 52),
    ('k', 53),
    ('l', 54),
    ('m', 55),
    ('n', 56),
    ('o', 57),
    ('p', 58),
    ('q', 59),
    ('r', 60),
    ('s', 61),
    ('t', 62),
    ('u', 63),
    ('v', 64),
    ('w', 65),
    ('x', 66),
    ('y', 67),
    ('z', 68),
    ('ɑ', 69),
    ('ɐ', 70),
    ('ɒ', 71),
    ('æ', 72),
    ('β', 75),
    ('ɔ', 76),
    ('ɕ', 77),
    ('ç', 78),
    ('ɖ', 80),
    ('ð', 81),
    ('ʤ', 82),
    ('ə', 83),
    ('ɚ', 85),
    ('ɛ', 86),
    ('ɜ', 87),
    ('ɟ', 90),
    ('ɡ', 92),
    ('ɥ', 99),
    ('ɨ', 101),
    ('ɪ', 102),
    ('ʝ', 103),
    ('ɯ', 110),
    ('ɰ', 111),
    ('ŋ', 112),
    ('ɳ', 113),
    ('ɲ', 114),
    ('ɴ', 115),
    ('ø', 116),
    ('ɸ', 118),
    ('θ', 119),
    ('œ', 120),
    ('ɹ', 123),
    ('ɾ', 125),
    ('ɻ', 126),
    ('ʁ', 128),
    ('ɽ', 129),
    ('ʂ', 130),
    ('ʃ', 131),
    ('ʈ', 132),
    ('ʧ', 133),
    ('ʊ', 135),
    ('ʋ', 136),
    ('ʌ', 138),
    ('ɣ', 139),
    ('ɤ', 140),
    ('χ', 142),
    ('ʎ', 143),
    ('ʒ', 147),
    ('ʔ', 148),
    ('ˈ', 156),
    ('ˌ', 157),
    ('ː', 158),
    ('ʰ', 162),
    ('ʲ', 164),
    ('↓', 169),
    ('→', 171),
    ('↗', 172),
    ('↘', 173),
    ('ᵻ', 177),
];

/// The number of a symbol; none for what the networks do not know.
pub(super) fn id(symbol: char) -> Option<i32> {
    IDS.iter().find(|(known, _)| *known == symbol).map(|(_, id)| *id)
}

/// Sounds of two letters in all languages; letters are tied.
const COMMON: &[(&str, &str)] = &[
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^z", "ʣ"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("o^ʊ", "O"),
    ("ə^ʊ", "Q"),
    ("s^s", "S"),
    ("t^s", "ʦ"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
];

/// Both Englishes: longer ones first.
const ENGLISH: &[(&str, &str)] = &[
    ("ʔˌn\u{329}", "tᵊn"),
    ("ʔn\u{329}", "tᵊn"),
    ("ʔn", "tn"),
    ("ʔ", "t"),
    ("ə^l", "ᵊl"),
    ("e", "A"),
    ("ʲO", "jO"),
    ("ʲQ", "jQ"),
    ("ʲo", "jo"),
    ("ʲə", "jə"),
    ("ʲ", ""),
    ("ɚ", "əɹ"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɬ", "l"),
    ("\u{303}", ""),
];

/// American English: no long vowels, and the t of `water` is a sound of its own.
const AMERICAN: &[(&str, &str)] = &[("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("o", "ɔ"), ("ɾ", "T")];

/// British English.
const BRITISH: &[(&str, &str)] = &[("e^ə", "ɛː"), ("iə", "ɪə")];

/// What a voice speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// American English.
    American,
    /// British English.
    British,
    /// Spanish.
    Spanish,
    /// French.
    French,
    /// Hindi.
    Hindi,
    /// Italian.
    Italian,
    /// Brazilian Portuguese.
    Portuguese,
}

impl Language {
    /// By the first letter of the name of a voice; none for Japanese and Chinese, whose signs espeak-ng cannot read, and
    /// for letters that have no meaning.
    pub(super) fn of_voice(name: &str) -> Option<Self> {
        Some(match name.chars().next()? {
            'a' => Self::American,
            'b' => Self::British,
            'e' => Self::Spanish,
            'f' => Self::French,
            'h' => Self::Hindi,
            'i' => Self::Italian,
            'p' => Self::Portuguese,
            _ => return None,
        })
    }

    /// Name of espeak-ng's voice.
    pub(super) fn espeak_voice(self) -> &'static str {
        match self {
            Self::American => "en-us",
            Self::British => "en-gb",
            Self::Spanish => "es",
            Self::French => "fr-fr",
            Self::Hindi => "hi",
            Self::Italian => "it",
            Self::Portuguese => "pt-br",
        }
    }

    /// The symbols of tied phonemes. Some have no number ([`id`]).
    pub(super) fn symbols(self, phonemes: &str) -> String {
        let tables: &[&[(&str, &str)]] = match self {
            Self::American => &[COMMON, ENGLISH, AMERICAN],
            Self::British => &[BRITISH, COMMON, ENGLISH],
            _ => &[COMMON],
        };
        let mut said = phonemes.to_owned();
        for (from, to) in tables.concat() {
            said = said.replace(from, to);
        }
        said.retain(|symbol| symbol != TIE && symbol != '-');
        with_syllables(&said)
    }
}

/// A consonant that is a syllable of its own gets a short vowel in front of it, in place of the mark below it.
fn with_syllables(said: &str) -> String {
    const MARK: char = '\u{329}';
    let mut written = String::with_capacity(said.len());
    for symbol in said.chars() {
        if symbol != MARK {
            written.push(symbol);
            continue;
        }
        let consonant = written.pop();
        written.extend(consonant.filter(|c| !c.is_whitespace()).map(|_| 'ᵊ'));
        written.extend(consonant);
    }
    written
}

#[cfg(test)]
mod tests;
