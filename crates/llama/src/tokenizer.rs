//! The vocabulary of a GGUF model.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use ingle_engine::{EngineError, Segment, Surround, TokenId, TokenKind, Tokenizer};

use crate::fault::FaultDomain;
use crate::ffi::{self, guarded, sys};
use crate::model::Model;
use crate::partition::{Part, Partitioner, SpecialToken};

/// Text and kinds of all tokens, copied out of the model once; splitting text is llama.cpp's work.
pub struct LlamaTokenizer {
    model: Arc<Model>,
    faults: FaultDomain,
    /// Bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Token `i` is `bytes[offsets[i]..offsets[i + 1]]`; `[n_vocab + 1]`.
    offsets: Vec<u32>,
    /// `[n_vocab]`.
    kinds: Vec<TokenKind>,
    /// Ascending.
    end_of_generation: Vec<TokenId>,
    partitioner: Partitioner,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    adds_bos: bool,
    adds_eos: bool,
}

impl std::fmt::Debug for LlamaTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LlamaTokenizer").field("n_vocab", &self.kinds.len()).finish_non_exhaustive()
    }
}

impl LlamaTokenizer {
    pub(crate) fn new(model: Arc<Model>, faults: FaultDomain) -> Result<Self, String> {
        let vocab = model.vocab();
        // SAFETY: the model is alive, so its vocabulary is.
        let (vocab_type, n_tokens) = unsafe { (sys::llama_vocab_type(vocab), sys::llama_vocab_n_tokens(vocab)) };
        if vocab_type == sys::LLAMA_VOCAB_TYPE_NONE || n_tokens < 1 {
            return Err("it has no vocabulary, so it cannot be used for text".into());
        }
        let mut bytes = Vec::new();
        let mut offsets = vec![0];
        for token in 0..n_tokens {
            append_piece(vocab, token, &mut bytes)?;
            offsets.push(u32::try_from(bytes.len()).map_err(|_| "its vocabulary is larger than 4 GiB")?);
        }
        // SAFETY: the vocabulary is alive, and the ids are inside it.
        let attributes: Vec<_> =
            (0..n_tokens).map(|token| unsafe { sys::llama_vocab_get_attr(vocab, token) } as u32).collect();
        // SAFETY: as above.
        let is_end = |token: &i32| unsafe { sys::llama_vocab_is_eog(vocab, *token) };
        let end_of_generation = (0..n_tokens).filter(is_end).map(|token| token as TokenId).collect();
        // SAFETY: the vocabulary is alive.
        let (bos, eos, adds_bos, adds_eos) = unsafe {
            let (bos, eos) = (sys::llama_vocab_bos(vocab), sys::llama_vocab_eos(vocab));
            (bos, eos, sys::llama_vocab_get_add_bos(vocab), sys::llama_vocab_get_add_eos(vocab))
        };
        Ok(Self {
            bytes,
            offsets,
            kinds: attributes.iter().map(|&attributes| kind(attributes)).collect(),
            end_of_generation,
            partitioner: Partitioner::new(special_tokens(vocab, &attributes)).map_err(|error| error.to_string())?,
            bos: TokenId::try_from(bos).ok(),
            eos: TokenId::try_from(eos).ok(),
            adds_bos,
            adds_eos,
            model,
            faults,
        })
    }

    /// The text, with what the model wants around it; control tokens spelled in it are text.
    pub(crate) fn tokenize_whole(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        let mut tokens = Vec::new();
        self.tokenize_as(text, Surround::AsModelWants, &mut tokens)?;
        Ok(tokens)
    }

    /// The text and nothing else.
    pub(crate) fn tokenize_bare(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        let mut tokens = Vec::new();
        self.tokenize_text(text, &mut tokens)?;
        Ok(tokens)
    }

    /// What stands around and between the texts of a pair.
    pub(crate) fn pair_marks(&self) -> PairMarks {
        let vocab = self.model.vocab();
        // SAFETY: the vocabulary is alive.
        let (kind, sep, adds_sep) =
            unsafe { (sys::llama_vocab_type(vocab), sys::llama_vocab_sep(vocab), sys::llama_vocab_get_add_sep(vocab)) };
        let facts = PairFacts {
            bos: self.bos.filter(|_| self.adds_bos),
            eos: self.eos,
            adds_eos: self.adds_eos,
            sep: TokenId::try_from(sep).ok(),
            adds_sep,
            // llama.cpp has no default of its own for these, and files of XLM-R rerankers often do not say it.
            is_silent: kind == sys::LLAMA_VOCAB_TYPE_UGM
                && self.model.metadata(c"tokenizer.ggml.add_sep_token").is_none(),
        };
        facts.marks()
    }

    /// Text without special tokens.
    fn tokenize_text(&self, text: &str, tokens: &mut Vec<TokenId>) -> Result<(), EngineError> {
        self.tokenize_as(text, Surround::Nothing, tokens)
    }

    fn tokenize_as(&self, text: &str, surround: Surround, tokens: &mut Vec<TokenId>) -> Result<(), EngineError> {
        let failed = |reason: String| EngineError::Tokenize { reason };
        let n_bytes = i32::try_from(text.len()).map_err(|_| failed("it is longer than 2 GiB".into()))?;
        let mut found = vec![0; text.len().min(i32::MAX as usize - 16) + 16];
        let mut n_found = self.call(text, n_bytes, surround, &mut found)?;
        if n_found < 0 {
            let n_needed = n_found.checked_neg().ok_or_else(|| failed("it has more than 2^31 tokens".into()))?;
            found.resize(n_needed as usize, 0);
            n_found = self.call(text, n_bytes, surround, &mut found)?;
        }
        let n_found = usize::try_from(n_found).map_err(|_| failed("the tokenizer contradicts itself".into()))?;
        tokens.extend(found[..n_found].iter().map(|&token| token as TokenId));
        Ok(())
    }

    /// The number of tokens, or minus the number needed where `found` is too short.
    fn call(&self, text: &str, n_bytes: i32, surround: Surround, found: &mut [i32]) -> Result<i32, EngineError> {
        let vocab = self.model.vocab();
        let room = i32::try_from(found.len()).unwrap_or(i32::MAX);
        let (start, out) = (text.as_ptr().cast(), found.as_mut_ptr());
        let around = surround == Surround::AsModelWants;
        // Control tokens that are spelled in a text are the partitioner's business.
        // SAFETY: text and buffer have the lengths given, and the vocabulary lives as long as the model.
        let call = || guarded(|| unsafe { ffi::llama_tokenize(vocab, start, n_bytes, out, room, around, false) });
        self.faults.scope(call).map_err(|reason| EngineError::Tokenize { reason })
    }
}

/// What a vocabulary says about the ends of texts.
#[derive(Debug, Clone, Copy)]
struct PairFacts {
    /// In front of a text; `None` where nothing is put there.
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    adds_eos: bool,
    sep: Option<TokenId>,
    adds_sep: bool,
    /// A unigram vocabulary whose file does not say whether texts are separated.
    is_silent: bool,
}

impl PairFacts {
    fn marks(self) -> PairMarks {
        // An encoder that begins and ends its texts is XLM-R's kind, which has two ends between them: `<s> a </s></s> b
        // </s>` (arXiv:1911.02116). T5's kind begins its texts with nothing.
        let is_doubled = self.is_silent && self.bos.is_some() && self.adds_eos;
        let sep = if is_doubled { self.sep.or(self.eos) } else { self.sep.filter(|_| self.adds_sep) };
        let end: Vec<TokenId> = self.eos.or(self.sep).filter(|_| self.adds_eos).into_iter().collect();
        let sep: Vec<TokenId> = sep.into_iter().collect();
        PairMarks {
            front: self.bos.into_iter().collect(),
            between: [end.as_slice(), &sep].concat(),
            // A vocabulary with separators and without an end closes with a separator, as BERT's.
            back: if end.is_empty() { sep } else { end },
        }
    }
}

/// Special tokens of a pair of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PairMarks {
    pub(crate) front: Vec<TokenId>,
    pub(crate) between: Vec<TokenId>,
    pub(crate) back: Vec<TokenId>,
}

/// Appends the bytes of `token`, control tokens spelled out.
fn append_piece(vocab: *const sys::llama_vocab, token: i32, bytes: &mut Vec<u8>) -> Result<(), String> {
    let mut piece = [0_u8; 256];
    let n_bytes = piece_into(vocab, token, &mut piece)?;
    if let Ok(n_bytes) = usize::try_from(n_bytes) {
        bytes.extend_from_slice(&piece[..n_bytes]);
        return Ok(());
    }
    let mut piece = vec![0_u8; n_bytes.unsigned_abs() as usize];
    let n_bytes = usize::try_from(piece_into(vocab, token, &mut piece)?).unwrap_or(0);
    bytes.extend_from_slice(&piece[..n_bytes]);
    Ok(())
}

fn piece_into(vocab: *const sys::llama_vocab, token: i32, piece: &mut [u8]) -> Result<i32, String> {
    let room = i32::try_from(piece.len()).unwrap_or(i32::MAX);
    let start = piece.as_mut_ptr().cast::<c_char>();
    // SAFETY: the vocabulary is alive, the token is inside it, and the buffer has the length given.
    guarded(|| unsafe { ffi::llama_token_to_piece(vocab, token, start, room, 0, true) })
}

fn has(attributes: u32, attribute: sys::llama_token_attr) -> bool {
    attributes & attribute != 0
}

fn kind(attributes: u32) -> TokenKind {
    match attributes {
        a if has(a, sys::LLAMA_TOKEN_ATTR_CONTROL) => TokenKind::Control,
        a if has(a, sys::LLAMA_TOKEN_ATTR_USER_DEFINED) => TokenKind::UserDefined,
        a if has(a, sys::LLAMA_TOKEN_ATTR_UNKNOWN) => TokenKind::Unknown,
        a if has(a, sys::LLAMA_TOKEN_ATTR_UNUSED) => TokenKind::Unused,
        a if has(a, sys::LLAMA_TOKEN_ATTR_BYTE) => TokenKind::Byte,
        a if has(a, sys::LLAMA_TOKEN_ATTR_NORMAL) => TokenKind::Normal,
        _ => TokenKind::Unused,
    }
}

fn special_tokens(vocab: *const sys::llama_vocab, attributes: &[u32]) -> Vec<SpecialToken> {
    let mut specials = Vec::new();
    for (token, &attributes) in attributes.iter().enumerate() {
        let needs_template =
            has(attributes, sys::LLAMA_TOKEN_ATTR_CONTROL) || has(attributes, sys::LLAMA_TOKEN_ATTR_UNKNOWN);
        if !needs_template && !has(attributes, sys::LLAMA_TOKEN_ATTR_USER_DEFINED) {
            continue;
        }
        // SAFETY: the vocabulary is alive, the token is inside it; the text ends in zero and lives as long.
        let spelling = unsafe { CStr::from_ptr(sys::llama_vocab_get_text(vocab, token as i32)) }.to_bytes().to_vec();
        specials.push(SpecialToken {
            id: token as TokenId,
            spelling,
            needs_template,
            strips_left: has(attributes, sys::LLAMA_TOKEN_ATTR_LSTRIP),
            strips_right: has(attributes, sys::LLAMA_TOKEN_ATTR_RSTRIP),
        });
    }
    specials
}

impl Tokenizer for LlamaTokenizer {
    fn n_vocab(&self) -> usize {
        self.kinds.len()
    }

    fn token_bytes(&self, token: TokenId) -> &[u8] {
        let idx = token as usize;
        match (self.offsets.get(idx), self.offsets.get(idx + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    fn token_kind(&self, token: TokenId) -> TokenKind {
        self.kinds.get(token as usize).copied().unwrap_or(TokenKind::Unused)
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &self.end_of_generation
    }

    fn beginning_of_sequence(&self) -> Option<TokenId> {
        self.bos
    }

    fn end_of_sequence(&self) -> Option<TokenId> {
        self.eos
    }

    fn tokenize(&self, segments: &[Segment], surround: Surround) -> Result<Vec<TokenId>, EngineError> {
        let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
        let mut tokens = Vec::new();
        for part in self.partitioner.split(segments, &text) {
            match part {
                Part::Token(token) => tokens.push(token),
                Part::Text(range) => self.tokenize_text(&text[range], &mut tokens)?,
            }
        }
        if surround == Surround::AsModelWants {
            if let Some(bos) = self.bos.filter(|bos| self.adds_bos && tokens.first() != Some(bos)) {
                tokens.insert(0, bos);
            }
            if let Some(eos) = self.eos.filter(|eos| self.adds_eos && tokens.last() != Some(eos)) {
                tokens.push(eos);
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_separated_as_the_models_were_trained() {
        let xlm_r =
            PairFacts { bos: Some(0), eos: Some(2), adds_eos: true, sep: Some(2), adds_sep: false, is_silent: true };
        let bert =
            PairFacts { bos: Some(101), eos: None, adds_eos: false, sep: Some(102), adds_sep: true, is_silent: false };
        for (facts, front, between, back) in [
            (xlm_r, &[0][..], &[2, 2][..], &[2][..]),
            (PairFacts { sep: None, ..xlm_r }, &[0], &[2, 2], &[2]),
            (PairFacts { adds_sep: true, is_silent: false, ..xlm_r }, &[0], &[2, 2], &[2]),
            (PairFacts { is_silent: false, ..xlm_r }, &[0], &[2], &[2]),
            (PairFacts { bos: None, sep: None, ..xlm_r }, &[], &[2], &[2]),
            (bert, &[101], &[102], &[102]),
        ] {
            let expected = PairMarks { front: front.to_vec(), between: between.to_vec(), back: back.to_vec() };
            assert_eq!(facts.marks(), expected, "{facts:?}");
        }
    }
}
