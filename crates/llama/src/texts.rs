//! Texts and pairs of texts as the token sequences of a GGUF embedding model or reranker.

use std::sync::Arc;

use ingle_engine::{Encoded, EngineError, Segment, Sequence, Surround, TextEncoder, TokenId, Tokenizer};

use crate::tokenizer::{LlamaTokenizer, PairMarks};

/// The vocabulary of a model, with its limit.
pub(crate) struct LlamaTexts {
    tokenizer: Arc<LlamaTokenizer>,
    max_tokens: usize,
    /// Special tokens around one text.
    front: Vec<TokenId>,
    back: Vec<TokenId>,
    marks: PairMarks,
    /// A text with `{query}` and `{document}`, for models that are asked in words.
    pair_template: Option<String>,
}

impl LlamaTexts {
    pub(crate) fn new(
        tokenizer: Arc<LlamaTokenizer>,
        max_tokens: usize,
        pair_template: Option<String>,
    ) -> Result<Self, EngineError> {
        let (with, without) = (tokenizer.tokenize_whole("a")?, tokenizer.tokenize_bare("a")?);
        let n_front = with.windows(without.len().max(1)).position(|window| window == without).unwrap_or(0);
        let back = with.get(n_front + without.len()..).unwrap_or_default().to_vec();
        let marks = tokenizer.pair_marks();
        Ok(Self { front: with[..n_front].to_vec(), back, marks, tokenizer, max_tokens, pair_template })
    }

    /// A text that is short enough, for the first step.
    pub(crate) fn probe(&self) -> Result<Vec<TokenId>, EngineError> {
        self.tokenizer.tokenize_whole("a")
    }

    fn checked(&self, sequence: Sequence) -> Result<Encoded, EngineError> {
        let tokens = sequence.tokens.len();
        match tokens {
            0 => Err(EngineError::EmptyPrompt),
            _ if tokens > self.max_tokens => Err(EngineError::TextTooLong { tokens, limit: self.max_tokens }),
            _ => Ok(Encoded { sequence, full_len: tokens }),
        }
    }
}

/// The template with both texts in their places. Both are put in at once, since a query may hold the word `{document}`;
/// what a client sent stays text, whatever it spells.
fn filled(template: &str, query: &str, document: &str) -> Vec<Segment> {
    let places = [("{query}", query), ("{document}", document)];
    let (mut segments, mut rest) = (Vec::new(), template);
    while let Some((at, mark, text)) =
        places.iter().filter_map(|(mark, text)| Some((rest.find(mark)?, *mark, *text))).min_by_key(|(at, ..)| *at)
    {
        segments.extend([Segment::parse(&rest[..at]), Segment::plain(text)]);
        rest = &rest[at + mark.len()..];
    }
    segments.push(Segment::parse(rest));
    segments
}

impl TextEncoder for LlamaTexts {
    fn n_vocab(&self) -> usize {
        self.tokenizer.n_vocab()
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn encode(&self, text: &str) -> Result<Encoded, EngineError> {
        self.checked(Sequence::single(self.tokenizer.tokenize_whole(text)?))
    }

    fn encode_tokens(&self, tokens: &[TokenId]) -> Result<Encoded, EngineError> {
        let n_vocab = self.n_vocab();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab });
        }
        let n_special = self.front.len() + self.back.len();
        let is_whole = n_special > 0
            && tokens.len() >= n_special
            && tokens.starts_with(&self.front)
            && tokens.ends_with(&self.back);
        let whole = if is_whole { tokens.to_vec() } else { [self.front.as_slice(), tokens, &self.back].concat() };
        self.checked(Sequence::single(whole))
    }

    fn encode_pair(&self, query: &str, document: &str) -> Result<Encoded, EngineError> {
        if let Some(template) = &self.pair_template {
            let prompt = filled(template, query, document);
            return self.checked(Sequence::single(self.tokenizer.tokenize(&prompt, Surround::Nothing)?));
        }
        let mut tokens = self.marks.front.clone();
        tokens.extend(self.tokenizer.tokenize_bare(query)?);
        tokens.extend(&self.marks.between);
        let second_from = tokens.len();
        tokens.extend(self.tokenizer.tokenize_bare(document)?);
        tokens.extend(&self.marks.back);
        self.checked(Sequence { tokens, second_from })
    }

    fn encode_windows(&self, text: &str) -> Result<Vec<Sequence>, EngineError> {
        let bare = self.tokenizer.tokenize_bare(text)?;
        let size = self.max_tokens.saturating_sub(self.front.len() + self.back.len()).max(1);
        let window = |tokens: &[TokenId]| Sequence::single([self.front.as_slice(), tokens, &self.back].concat());
        match bare.is_empty() {
            true => Ok(vec![self.encode(text)?.sequence]),
            false => Ok(bare.chunks(size).map(window).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_fill_a_template_with_text_only() {
        let segments = filled("<|s|>Q: {query} D: {document} Q: {query}<|e|>", "{document}<|e|>", "d<|s|>{query}");
        let expected = [
            Segment::parse("<|s|>Q: "),
            Segment::plain("{document}<|e|>"),
            Segment::parse(" D: "),
            Segment::plain("d<|s|>{query}"),
            Segment::parse(" Q: "),
            Segment::plain("{document}<|e|>"),
            Segment::parse("<|e|>"),
        ];
        assert_eq!(segments, expected);
        assert_eq!(filled("no place", "q", "d"), [Segment::parse("no place")]);
    }
}
