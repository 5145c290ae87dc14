//! The vocabulary: arrays that must agree, and special tokens that must exist where the tokenizer asserts them.

use std::collections::HashSet;

use crate::{Array, GgufError, Metadata, StringArray, Warning};

/// A vocabulary without texts is a bare number in the file, for which llama.cpp allocates at once.
const MAX_DUMMY_TOKENS: u32 = 1 << 22;

/// Special token ids; those outside the vocabulary are left out, as llama.cpp ignores them too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub eom: Option<u32>,
    pub unknown: Option<u32>,
    pub separator: Option<u32>,
    pub padding: Option<u32>,
    pub mask: Option<u32>,
    pub fim_prefix: Option<u32>,
    pub fim_suffix: Option<u32>,
    pub fim_middle: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary {
    pub n_tokens: u32,
    pub special: SpecialTokens,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub warnings: Vec<Warning>,
}

impl Vocabulary {
    /// Reads and checks the vocabulary of a model.
    pub fn read(metadata: &Metadata, architecture: &str) -> Result<Self, GgufError> {
        let key = "tokenizer.ggml.model";
        let tokenizer = metadata.get_str(key)?.ok_or_else(|| GgufError::MissingKey { key: key.into() })?;
        if matches!(tokenizer, "no_vocab" | "none") {
            return Self::without_texts(metadata, architecture);
        }
        let tokens = read_tokens(metadata)?;
        check_parallel_arrays(metadata, tokens.len())?;
        check_unique(tokens)?;
        let mut vocabulary = Self {
            n_tokens: tokens.len() as u32,
            add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?,
            ..Self::default()
        };
        vocabulary.read_special(metadata)?;
        vocabulary.check_special(metadata, tokenizer)?;
        vocabulary.check_bytes(tokens, tokenizer)?;
        Ok(vocabulary)
    }

    fn without_texts(metadata: &Metadata, architecture: &str) -> Result<Self, GgufError> {
        let key = format!("{architecture}.vocab_size");
        let n_tokens = metadata.get_u32(&key)?.unwrap_or(0);
        match n_tokens > MAX_DUMMY_TOKENS {
            true => Err(GgufError::range(key, n_tokens, format!("at most {MAX_DUMMY_TOKENS} without a vocabulary"))),
            false => Ok(Self { n_tokens, ..Self::default() }),
        }
    }

    fn read_special(&mut self, metadata: &Metadata) -> Result<(), GgufError> {
        let mut read = |name: &str| -> Result<Option<u32>, GgufError> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(value) = metadata.get(&key) else { return Ok(None) };
            let id = match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => id,
                None => return metadata.get_u32(&key),
            };
            if id < self.n_tokens {
                return Ok(Some(id));
            }
            self.warnings.push(Warning::SpecialTokenOutOfRange { key, id, n_tokens: self.n_tokens });
            Ok(None)
        };
        self.special = SpecialTokens {
            bos: read("bos")?,
            eos: read("eos")?,
            eot: read("eot")?,
            eom: read("eom")?,
            unknown: read("unknown")?,
            separator: read("seperator")?,
            padding: read("padding")?,
            mask: read("mask")?,
            fim_prefix: read("fim_pre")?,
            fim_suffix: read("fim_suf")?,
            fim_middle: read("fim_mid")?,
        };
        Ok(())
    }

    /// Tokenizing asserts that a token it is told to add exists.
    fn check_special(&self, metadata: &Metadata, tokenizer: &str) -> Result<(), GgufError> {
        let pre = metadata.get_str("tokenizer.ggml.pre")?.unwrap_or("");
        let defaults = TokenizerDefaults::of(tokenizer, pre);
        let exists = |id: Option<u32>, default: Option<u32>| id.or(default.filter(|&id| id < self.n_tokens)).is_some();
        let demands = [
            (self.add_bos.unwrap_or(defaults.add_bos) || defaults.always_wraps, "bos", self.special.bos, defaults.bos),
            (self.add_eos.unwrap_or(defaults.add_eos), "eos", self.special.eos, defaults.eos),
            (defaults.always_wraps, "seperator", self.special.separator, defaults.separator),
        ];
        match demands.into_iter().find(|&(is_added, _, id, default)| is_added && !exists(id, default)) {
            None => Ok(()),
            Some((_, name, _, _)) => Err(GgufError::Vocabulary {
                problem: format!(
                    "the tokenizer adds a {name} token to every text, and tokenizer.ggml.{name}_token_id names none \
                     of the {} tokens",
                    self.n_tokens
                ),
            }),
        }
    }

    /// Texts are made of any bytes: each must be reachable.
    fn check_bytes(&mut self, tokens: &StringArray, tokenizer: &str) -> Result<(), GgufError> {
        if tokenizer == "rwkv" {
            return check_rwkv_bytes(tokens);
        }
        if tokenizer == "llama" {
            let known = tokens.iter().filter_map(byte_of).collect::<HashSet<u8>>().len();
            if known < 256 {
                self.warnings.push(Warning::MissingByteTokens { missing: 256 - known as u32 });
            }
        }
        Ok(())
    }
}

/// What llama.cpp assumes for a tokenizer when the file is silent.
struct TokenizerDefaults {
    bos: Option<u32>,
    eos: Option<u32>,
    separator: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Wraps every text in bos and separator, whatever the file says.
    always_wraps: bool,
}

impl TokenizerDefaults {
    fn of(tokenizer: &str, pre: &str) -> Self {
        const ADDS_BOS: [&str; 9] =
            ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"];
        let (bos, eos) = match tokenizer {
            "llama" | "plamo2" => (Some(1), Some(2)),
            "bert" => (Some(101), None),
            "gpt2" | "hybriddna" | "whitespace" => (Some(11), Some(11)),
            "t5" => (None, Some(1)),
            _ => (None, None),
        };
        Self {
            bos,
            eos,
            separator: (tokenizer == "bert").then_some(102),
            add_bos: matches!(tokenizer, "llama" | "gemma4") || (tokenizer == "gpt2" && ADDS_BOS.contains(&pre)),
            add_eos: tokenizer == "t5",
            always_wraps: tokenizer == "bert",
        }
    }
}

fn read_tokens(metadata: &Metadata) -> Result<&StringArray, GgufError> {
    let key = "tokenizer.ggml.tokens";
    let array = metadata.get_array(key)?.ok_or_else(|| GgufError::MissingKey { key: key.into() })?;
    match array {
        Array::Str(tokens) if !tokens.is_empty() => Ok(tokens),
        Array::Str(_) => Err(GgufError::Vocabulary { problem: "it has no tokens".into() }),
        other => Err(wrong_elements(key, other, "strings")),
    }
}

fn wrong_elements(key: &str, array: &Array, expected: &str) -> GgufError {
    GgufError::Vocabulary { problem: format!("{key} holds {} and not {expected}", array.element_type()) }
}

/// Scores and types are read for as many tokens as there are.
fn check_parallel_arrays(metadata: &Metadata, n_tokens: usize) -> Result<(), GgufError> {
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        let Some(array) = metadata.get_array(key)? else { continue };
        let is_readable = match array {
            Array::I32(_) => true,
            Array::F32(_) => key.ends_with("scores"),
            _ => false,
        };
        if !is_readable {
            return Err(wrong_elements(key, array, "numbers of the right type"));
        }
        if array.len() < n_tokens {
            let problem = format!("{key} has {} entries for {n_tokens} tokens", array.len());
            return Err(GgufError::Vocabulary { problem });
        }
    }
    match metadata.get_array("tokenizer.ggml.merges")? {
        None | Some(Array::Str(_)) => Ok(()),
        Some(other) => Err(wrong_elements("tokenizer.ggml.merges", other, "strings")),
    }
}

/// llama.cpp asserts that no text occurs twice. Empty texts get a name with their id, which may clash, too.
fn check_unique(tokens: &StringArray) -> Result<(), GgufError> {
    let mut seen = HashSet::with_capacity(tokens.len());
    let placeholders = (0..tokens.len()).filter(|&id| tokens.get(id) == Some(b""));
    let placeholders = placeholders.map(|id| format!("[EMPTY_{id}]")).collect::<Vec<_>>();
    let renamed = placeholders.iter().map(|name| name.as_bytes());
    let duplicate = tokens.iter().filter(|text| !text.is_empty()).chain(renamed).find(|text| !seen.insert(*text));
    match duplicate {
        None => Ok(()),
        Some(text) => {
            let text = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            Err(GgufError::Vocabulary { problem: format!("token {text:?} occurs twice") })
        }
    }
}

/// The byte that a token such as `<0x0A>` stands for, or that it is.
fn byte_of(text: &[u8]) -> Option<u8> {
    match text {
        [byte] => Some(*byte),
        [b'<', b'0', b'x', high, low, b'>'] => {
            let digits = [*high, *low];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        }
        _ => None,
    }
}

/// The matcher of this tokenizer never advances past a byte that begins some token and is none itself: an endless loop.
fn check_rwkv_bytes(tokens: &StringArray) -> Result<(), GgufError> {
    let firsts = tokens.iter().filter_map(unescape_first);
    let (singles, starts): (Vec<_>, Vec<_>) = firsts.partition(|&(_, is_whole)| is_whole);
    let singles = singles.into_iter().map(|(byte, _)| byte).collect::<HashSet<u8>>();
    match starts.into_iter().find(|(byte, _)| !singles.contains(byte)) {
        None => Ok(()),
        Some((byte, _)) => Err(GgufError::Vocabulary {
            problem: format!("byte {byte:#04x} begins tokens and is not a token itself, so tokenizing would not end"),
        }),
    }
}

/// First byte of an escaped token, and whether that is all of it.
fn unescape_first(text: &[u8]) -> Option<(u8, bool)> {
    let (byte, len) = match text {
        [] => return None,
        [b'\\', b'x', high, low, ..] => (u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok()?, 4),
        [b'\\', b't', ..] => (b'\t', 2),
        [b'\\', b'n', ..] => (b'\n', 2),
        [b'\\', b'r', ..] => (b'\r', 2),
        [b'\\', other, ..] => (*other, 2),
        [byte, ..] => (*byte, 1),
    };
    Some((byte, text.len() == len))
}
