//! `tokenizer.json` as a [`TextEncoder`].

use std::path::Path;

use ingle_engine::{Encoded, EngineError, Sequence, Surround, TextEncoder, TokenId};
use tokenizers::{
    EncodeInput, Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use crate::weights::load_error;

/// A tokenizer of the `tokenizers` library, with the model's limit.
pub(super) struct FolderEncoder {
    tokenizer: Tokenizer,
    max_tokens: usize,
    n_vocab: usize,
    lower_case: bool,
    /// Special tokens around one text.
    front: Vec<TokenId>,
    back: Vec<TokenId>,
    /// Special tokens in a pair of texts.
    n_special_pair: usize,
}

/// Cuts at the end, longest text first.
fn cut(max_length: usize) -> TruncationParams {
    TruncationParams { max_length, strategy: TruncationStrategy::LongestFirst, ..TruncationParams::default() }
}

impl FolderEncoder {
    /// Reads `tokenizer.json`. Texts are cut to `max_tokens`, as the model's own library does; token ids must be below
    /// `n_vocab`, the rows of the model's table.
    pub(super) fn read(
        folder: &Path,
        max_tokens: usize,
        n_vocab: usize,
        lower_case: bool,
    ) -> Result<Self, EngineError> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Err(load_error(&path, "it is missing; the fast tokenizer's file is needed beside the weights"));
        }
        let refused = |error: tokenizers::Error| load_error(&path, format!("it is no valid tokenizer: {error}"));
        let mut tokenizer = Tokenizer::from_file(&path).map_err(refused)?;
        tokenizer.with_padding(None);
        // A tokenizer that cuts stops reading a text where its limit is, so the rest could not be embedded piece by piece,
        // and nobody would know how long it was. Texts are cut here instead.
        tokenizer.with_truncation(None).map_err(refused)?;
        let (front, back) = surround(&tokenizer).map_err(refused)?;
        let largest = tokenizer.get_vocab_size(true);
        let out_of_table = tokenizer.get_vocab(true).into_values().find(|&id| id as usize >= n_vocab);
        if let Some(id) = out_of_table {
            let reason = format!("its token {id} (of {largest}) is outside the model's table of {n_vocab}");
            return Err(load_error(&path, reason));
        }
        let added = |is_pair| tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(is_pair));
        let n_special_pair = added(true);
        // The library subtracts these numbers from the limit without looking.
        if max_tokens <= (front.len() + back.len()).max(added(false)).max(n_special_pair) {
            return Err(load_error(&path, format!("a limit of {max_tokens} tokens leaves no room for text")));
        }
        Ok(Self { tokenizer, max_tokens, n_vocab, lower_case, front, back, n_special_pair })
    }

    fn one(&self, text: &str, surround: Surround) -> Result<Encoding, EngineError> {
        let adds_special = surround == Surround::AsModelWants;
        let input: EncodeInput<'_> = if self.lower_case { text.to_lowercase().into() } else { text.into() };
        self.tokenizer.encode_fast(input, adds_special).map_err(refused_text)
    }

    /// One text of a pair, at most as long as the model takes, and how long it was before that.
    fn half(&self, text: &str) -> Result<(Encoding, usize), EngineError> {
        let mut encoding = self.one(text, Surround::Nothing)?;
        let full_len = encoding.len();
        encoding.truncate(self.max_tokens, 0, TruncationDirection::Right);
        encoding.take_overflowing();
        Ok((encoding, full_len))
    }

    fn n_special(&self) -> usize {
        self.front.len() + self.back.len()
    }

    /// Tokens of a text with the special ones around them.
    fn surrounded(&self, inner: &[TokenId]) -> Sequence {
        Sequence::single([self.front.as_slice(), inner, &self.back].concat())
    }
}

fn refused_text(error: tokenizers::Error) -> EngineError {
    EngineError::Tokenize { reason: error.to_string() }
}

/// What the tokenizer puts in front of a text and behind it.
fn surround(tokenizer: &Tokenizer) -> tokenizers::Result<(Vec<TokenId>, Vec<TokenId>)> {
    let probe = tokenizer.encode_fast("a", true)?;
    let bare = tokenizer.encode_fast("a", false)?;
    let (with, without) = (probe.get_ids(), bare.get_ids());
    let n_front = with.windows(without.len().max(1)).position(|window| window == without).unwrap_or(0);
    let back = with.get(n_front + without.len()..).unwrap_or_default();
    Ok((with[..n_front].to_vec(), back.to_vec()))
}

fn sequence(encoding: &Encoding) -> Sequence {
    let tokens = encoding.get_ids().to_vec();
    let second = encoding.get_type_ids().iter().position(|&kind| kind == 1);
    Sequence { second_from: second.unwrap_or(tokens.len()), tokens }
}

impl TextEncoder for FolderEncoder {
    fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn encode(&self, text: &str) -> Result<Encoded, EngineError> {
        let encoding = self.one(text, Surround::AsModelWants)?;
        let full_len = encoding.len();
        match full_len {
            0 => Err(EngineError::EmptyPrompt),
            _ if full_len <= self.max_tokens => Ok(Encoded { sequence: sequence(&encoding), full_len }),
            _ => {
                let inner = &encoding.get_ids()[self.front.len()..];
                Ok(Encoded { sequence: self.surrounded(&inner[..self.max_tokens - self.n_special()]), full_len })
            }
        }
    }

    fn encode_tokens(&self, tokens: &[TokenId]) -> Result<Encoded, EngineError> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab: self.n_vocab });
        }
        let n_special = self.n_special();
        let is_whole = n_special > 0
            && tokens.len() >= n_special
            && tokens.starts_with(&self.front)
            && tokens.ends_with(&self.back);
        let inner = if is_whole { &tokens[self.front.len()..tokens.len() - self.back.len()] } else { tokens };
        let kept = &inner[..inner.len().min(self.max_tokens - n_special)];
        Ok(Encoded { sequence: self.surrounded(kept), full_len: inner.len() + n_special })
    }

    fn encode_pair(&self, query: &str, document: &str) -> Result<Encoded, EngineError> {
        // The library would join every piece of one long text with every piece of the other: gigabytes for two texts
        // of a megabyte. So each is cut to what fits alone before they are cut to what fits together.
        let (query, query_len) = self.half(query)?;
        let (document, document_len) = self.half(document)?;
        let room = cut(self.max_tokens - self.n_special_pair);
        let (mut query, document) = truncate_encodings(query, Some(document), &room).map_err(refused_text)?;
        let mut document = document.expect("two texts stay two; this is a bug");
        query.take_overflowing();
        document.take_overflowing();
        let whole = self.tokenizer.post_process(query, Some(document), true).map_err(refused_text)?;
        Ok(Encoded { sequence: sequence(&whole), full_len: query_len + document_len + self.n_special_pair })
    }

    fn encode_windows(&self, text: &str) -> Result<Vec<Sequence>, EngineError> {
        let encoding = self.one(text, Surround::Nothing)?;
        match encoding.is_empty() {
            true => Ok(vec![self.encode(text)?.sequence]),
            false => {
                let pieces = encoding.get_ids().chunks(self.max_tokens - self.n_special());
                Ok(pieces.map(|piece| self.surrounded(piece)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters as tokens, in pairs as BERT has them: `[CLS] query [SEP] document [SEP]`.
    fn folder() -> tempfile::TempDir {
        let mut vocab: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
        for (id, token) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"].iter().enumerate() {
            vocab.insert((*token).to_owned(), id.into());
        }
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).expect("the folder is writable");
        folder
    }

    fn encoder(max_tokens: usize) -> Result<FolderEncoder, EngineError> {
        FolderEncoder::read(folder().path(), max_tokens, 8, false)
    }

    /// The library's own way with a pair, whose memory grows with the product of the lengths.
    fn of_library(encoder: &FolderEncoder, query: &str, document: &str) -> Sequence {
        let mut tokenizer = encoder.tokenizer.clone();
        tokenizer.with_truncation(Some(cut(encoder.max_tokens))).expect("the limit is valid");
        sequence(&tokenizer.encode_fast((query, document), true).expect("it is text"))
    }

    #[test]
    fn pairs_are_cut_as_the_library_cuts_them() {
        let encoder = encoder(12).expect("it loads");
        for (n_query, n_document) in [(1, 1), (3, 40), (40, 3), (4, 5), (5, 4), (5, 5), (9, 9), (12, 12), (40, 41)] {
            let (query, document) = ("a ".repeat(n_query), "b ".repeat(n_document));
            let encoded = encoder.encode_pair(&query, &document).expect("it is text");
            assert_eq!(encoded.sequence, of_library(&encoder, &query, &document), "{n_query} and {n_document}");
            assert_eq!(encoded.full_len, n_query + n_document + 3);
            assert_eq!(encoded.is_cut(), n_query + n_document > 9);
        }
        let encoded = encoder.encode_pair("a b", "c d").expect("it is text");
        assert_eq!(encoded.sequence, Sequence { tokens: vec![2, 4, 5, 3, 6, 7, 3], second_from: 4 });
    }

    #[test]
    fn all_of_a_long_text_is_read() {
        let encoder = encoder(6).expect("it loads");
        let text = "a b c d ".repeat(5);
        let encoded = encoder.encode(&text).expect("it is text");
        assert_eq!((encoded.sequence.tokens.as_slice(), encoded.full_len), (&[2, 4, 5, 6, 7, 3][..], 22));
        let windows = encoder.encode_windows(&text).expect("it is text");
        assert_eq!(windows, vec![Sequence::single(vec![2, 4, 5, 6, 7, 3]); 5]);
        let fits = encoder.encode("a b c d").expect("it is text");
        assert_eq!((fits.sequence, fits.full_len), (windows[0].clone(), 6));
        assert_eq!(encoder.encode_windows("a b c d d").expect("it is text")[1], Sequence::single(vec![2, 7, 3]));
    }

    #[test]
    fn a_pair_of_long_texts_stays_small() {
        // The library would make ten thousand million tokens of these.
        let text = "a ".repeat(100_000);
        let encoded = encoder(12).and_then(|encoder| encoder.encode_pair(&text, &text)).expect("it is text");
        assert_eq!((encoded.sequence.tokens.len(), encoded.full_len), (12, 200_003));
    }

    #[test]
    fn a_limit_without_room_for_a_pair_is_refused() {
        let error = encoder(3).err().expect("three special tokens and no text").to_string();
        assert!(error.contains("tokenizer.json") && error.contains("limit of 3 tokens"), "{error}");
        assert!(encoder(4).is_ok());
    }
}
