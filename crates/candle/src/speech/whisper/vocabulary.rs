//! Words of Whisper's text decoder and its control tokens.
//!
//! All forms of the model carry the words in the order in which byte-pair encoding merged them, so the id of a word is
//! also its rank and no list of merges is needed (as in OpenAI's tiktoken).

use std::collections::HashMap;

use ingle_engine::LANGUAGES;

/// Steps of 20 ms from 0 to 30 s, both included.
const N_TIMESTAMPS: usize = 1501;
/// Control tokens beside languages and timestamps: start, translate, transcribe, start of a language model's text,
/// start of what was said before, no speech, no timestamps.
const N_CONTROL: usize = 7;
/// From this size on a vocabulary is one of a multilingual model.
const MULTILINGUAL_FROM: usize = 51_865;
/// Bytes that are encoded as one piece at most. The longest word has fewer; the time grows with the square.
const MAX_PIECE_BYTES: usize = 256;
/// Seconds of one timestamp step.
pub const TIMESTAMP_SECS: f64 = 0.02;

/// What to do with speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// Write it in its language.
    #[default]
    Transcribe,
    /// Write it in English.
    Translate,
}

/// The words and control tokens of one model.
pub struct Vocabulary {
    /// `[n_words]`, bytes of each word.
    words: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    /// Ids in all.
    pub n_vocab: usize,
    /// Languages the model knows, the first of [`LANGUAGES`].
    pub n_languages: usize,
    /// Whether the model has languages to choose from.
    pub multilingual: bool,
}

impl Vocabulary {
    /// From words in GPT-2's spelling of bytes, those before `<|endoftext|>`; what follows it does not matter. The model
    /// has `n_vocab` ids.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub fn from_words(words: &[impl AsRef<str>], n_vocab: usize) -> Result<Self, String> {
        let end = words.iter().position(|word| word.as_ref() == "<|endoftext|>");
        let end = end.ok_or("the word <|endoftext|> is missing")?;
        let spelled = spelling();
        let bytes = |word: &str| word.chars().map(|c| spelled.get(&c).copied()).collect::<Option<Vec<u8>>>();
        let known: Option<Vec<Vec<u8>>> = words[..end].iter().map(|word| bytes(word.as_ref())).collect();
        Self::from_bytes(known.ok_or("a word holds a character that is no byte of GPT-2's spelling")?, n_vocab)
    }

    /// From the bytes of the words alone; the control tokens follow from the number of ids.
    ///
    /// # Errors
    /// What is wrong with the numbers.
    pub fn from_bytes(mut words: Vec<Vec<u8>>, n_vocab: usize) -> Result<Self, String> {
        let multilingual = n_vocab >= MULTILINGUAL_FROM;
        // Files of whisper.cpp may list control tokens too, under names of their own.
        words.truncate(if multilingual { 50_257 } else { 50_256 });
        let n_languages = n_vocab.checked_sub(words.len() + 1 + N_CONTROL + N_TIMESTAMPS);
        let n_languages = n_languages.filter(|n| (1..=LANGUAGES.len()).contains(n));
        let n_languages = n_languages.ok_or_else(|| {
            format!("{n_vocab} ids with {} words leave no room for Whisper's languages and timestamps", words.len())
        })?;
        let ids = words.iter().enumerate().map(|(id, word)| (word.clone(), id as u32)).collect();
        Ok(Self { words, ids, n_vocab, n_languages, multilingual })
    }

    /// End of a text; text tokens are those below.
    pub fn end(&self) -> u32 {
        self.words.len() as u32
    }

    /// Start of a transcript.
    pub fn start(&self) -> u32 {
        self.end() + 1
    }

    /// The token of a language, by its position in [`LANGUAGES`].
    pub fn language(&self, index: usize) -> u32 {
        self.start() + 1 + index as u32
    }

    fn control(&self, index: usize) -> u32 {
        self.language(self.n_languages + index)
    }

    /// The token of a task.
    pub fn task(&self, task: Task) -> u32 {
        match task {
            Task::Translate => self.control(0),
            Task::Transcribe => self.control(1),
        }
    }

    /// Start of a language model's text; never said.
    pub fn start_of_text(&self) -> u32 {
        self.control(2)
    }

    /// Start of what was said before.
    pub fn start_of_previous(&self) -> u32 {
        self.control(3)
    }

    /// No speech.
    pub fn no_speech(&self) -> u32 {
        self.control(4)
    }

    /// The text has no timestamps.
    pub fn no_timestamps(&self) -> u32 {
        self.control(5)
    }

    /// The timestamp 0 s; the others follow in steps of 20 ms.
    pub fn first_timestamp(&self) -> u32 {
        self.control(6)
    }

    /// Code of a language by its position.
    pub fn language_code(&self, index: usize) -> &'static str {
        LANGUAGES[index].0
    }

    /// Position of a language this model knows.
    pub fn find_language(&self, language: &str) -> Option<usize> {
        let code = ingle_engine::find_language(language)?;
        LANGUAGES.iter().position(|language| language.0 == code).filter(|&index| index < self.n_languages)
    }

    /// Bytes of the text tokens among `tokens`, one after the other.
    pub fn bytes(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().filter_map(|&token| self.words.get(token as usize)).flatten().copied().collect()
    }

    /// Text of the text tokens among `tokens`.
    pub fn text(&self, tokens: &[u32]) -> String {
        String::from_utf8_lossy(&self.bytes(tokens)).into_owned()
    }

    /// Tokens of a text without control tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let pieces = pieces(text).into_iter().flat_map(|piece| piece.as_bytes().chunks(MAX_PIECE_BYTES));
        pieces.flat_map(|piece| self.merge(piece)).collect()
    }

    /// Byte-pair encoding: neighbours that form the word of the lowest rank are joined first.
    fn merge(&self, piece: &[u8]) -> Vec<u32> {
        let mut ends: Vec<usize> = (0..=piece.len()).collect();
        let rank = |from: usize, to: usize| self.ids.get(&piece[from..to]).copied();
        while ends.len() > 2 {
            let best = (0..ends.len() - 2).filter_map(|at| Some((rank(ends[at], ends[at + 2])?, at))).min();
            match best {
                Some((_, at)) => ends.remove(at + 1),
                None => break,
            };
        }
        ends.windows(2).filter_map(|pair| rank(pair[0], pair[1])).collect()
    }

    /// Tokens that are not speech: brackets, notes and other signs that annotations are made of. They are never
    /// sampled. (The list of OpenAI's tokenizer.)
    pub fn annotations(&self) -> Vec<u32> {
        const SIGNS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) \
                             ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
        const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";
        let mut found = Vec::new();
        found.extend(self.encode(" -").first());
        found.extend(self.encode(" '").first());
        let notes = NOTES.split(' ').map(|sign| (sign, true));
        for (sign, note) in SIGNS.split(' ').filter(|sign| !sign.is_empty()).map(|sign| (sign, false)).chain(notes) {
            for tokens in [self.encode(sign), self.encode(&format!(" {sign}"))] {
                if tokens.len() == 1 || note {
                    found.extend(tokens.first());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// GPT-2's spelling of bytes as printable characters, backwards.
fn spelling() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255_u8).filter(|byte| !printable(byte)).zip(256_u32..);
    let shifted = others.filter_map(|(byte, code)| Some((char::from_u32(code)?, byte)));
    (0..=255_u8).filter(printable).map(|byte| (char::from(byte), byte)).chain(shifted).collect()
}

#[derive(PartialEq, Clone, Copy)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    match c {
        c if c.is_whitespace() => Class::Space,
        c if c.is_alphabetic() => Class::Letter,
        c if c.is_numeric() => Class::Number,
        _ => Class::Other,
    }
}

/// GPT-2's cut of a text into pieces that are encoded each by itself: contractions, words, numbers and signs, each with
/// the space in front of it.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let len = piece_len(rest);
        pieces.push(&rest[..len]);
        rest = &rest[len..];
    }
    pieces
}

fn piece_len(text: &str) -> usize {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(contraction) = CONTRACTIONS.iter().find(|contraction| text.starts_with(**contraction)) {
        return contraction.len();
    }
    let after_space = text.strip_prefix(' ').unwrap_or(text);
    let lead = text.len() - after_space.len();
    let run = |text: &str, wanted: Class| text.find(|c| class(c) != wanted).unwrap_or(text.len());
    match after_space.chars().next().map(class) {
        Some(kind) if kind != Class::Space => lead + run(after_space, kind),
        _ => {
            let spaces = run(text, Class::Space);
            let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
            // The last of several spaces belongs to the word behind them.
            if spaces < text.len() && spaces > last { spaces - last } else { spaces }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
