//! `tokenizer.json` as a [`TextEncoder`].

use std::path::Path;

use ingle_engine::{Encoded, EngineError, Sequence, TextEncoder, TokenId};
use tokenizers::{EncodeInput, Encoding, Tokenizer, TruncationParams, TruncationStrategy};

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
        let (front, back) = surround(&tokenizer).map_err(refused)?;
        let largest = tokenizer.get_vocab_size(true);
        let out_of_table = tokenizer.get_vocab(true).into_values().find(|&id| id as usize >= n_vocab);
        if let Some(id) = out_of_table {
            let reason = format!("its token {id} (of {largest}) is outside the model's table of {n_vocab}");
            return Err(load_error(&path, reason));
        }
        if max_tokens <= front.len() + back.len() {
            return Err(load_error(&path, format!("a limit of {max_tokens} tokens leaves no room for text")));
        }
        let cut = TruncationParams {
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(cut)).map_err(refused)?;
        Ok(Self { tokenizer, max_tokens, n_vocab, lower_case, front, back })
    }

    fn tokenize<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Encoding, EngineError> {
        let encoded = self.tokenizer.encode_fast(input, true);
        encoded.map_err(|error| EngineError::Tokenize { reason: error.to_string() })
    }

    fn cased(&self, text: &str) -> Option<String> {
        self.lower_case.then(|| text.to_lowercase())
    }

    fn one(&self, text: &str) -> Result<Encoding, EngineError> {
        match self.cased(text) {
            Some(lower) => self.tokenize(lower),
            None => self.tokenize(text),
        }
    }

    /// Tokens of the whole text, from those of its pieces.
    fn full_len(&self, encoding: &Encoding, n_special: usize) -> usize {
        let others = encoding.get_overflowing().iter().map(|piece| piece.len().saturating_sub(n_special));
        encoding.len() + others.sum::<usize>()
    }
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
        let encoding = self.one(text)?;
        let full_len = self.full_len(&encoding, self.front.len() + self.back.len());
        let sequence = sequence(&encoding);
        match sequence.tokens.is_empty() {
            true => Err(EngineError::EmptyPrompt),
            false => Ok(Encoded { sequence, full_len }),
        }
    }

    fn encode_tokens(&self, tokens: &[TokenId]) -> Result<Encoded, EngineError> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab: self.n_vocab });
        }
        let n_special = self.front.len() + self.back.len();
        let is_whole = n_special > 0
            && tokens.len() >= n_special
            && tokens.starts_with(&self.front)
            && tokens.ends_with(&self.back);
        let inner = if is_whole { &tokens[self.front.len()..tokens.len() - self.back.len()] } else { tokens };
        let kept = &inner[..inner.len().min(self.max_tokens - n_special)];
        let sequence = Sequence::single([self.front.as_slice(), kept, &self.back].concat());
        Ok(Encoded { sequence, full_len: inner.len() + n_special })
    }

    fn encode_pair(&self, query: &str, document: &str) -> Result<Encoded, EngineError> {
        let encoding = match (self.cased(query), self.cased(document)) {
            (Some(query), Some(document)) => self.tokenize((query, document))?,
            _ => self.tokenize((query, document))?,
        };
        // Pieces of a pair repeat its other half, so their lengths do not add up; that it was cut is what counts.
        let is_cut = !encoding.get_overflowing().is_empty();
        let sequence = sequence(&encoding);
        Ok(Encoded { full_len: sequence.tokens.len() + usize::from(is_cut), sequence })
    }

    fn encode_windows(&self, text: &str) -> Result<Vec<Sequence>, EngineError> {
        let encoding = self.one(text)?;
        Ok(std::iter::once(&encoding).chain(encoding.get_overflowing()).map(sequence).collect())
    }
}
