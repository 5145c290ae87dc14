//! A model's vocabulary as llguidance wants it.

use std::sync::Arc;

use ingle_engine::{Segment, Surround, TokenId, TokenKind, Tokenizer};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use crate::GrammarError;
use crate::composed::Controls;

/// What grammars of one model share: made once for a model, in a tenth of a second to a second.
pub struct Environment {
    pub(crate) factory: ParserFactory,
    pub(crate) vocabulary: TokEnv,
    /// None for the vocabulary of bytes.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    pub(crate) n_vocab: usize,
    /// Tokens that end an answer, ascending.
    pub(crate) ends: Vec<TokenId>,
    controls: Controls,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("n_vocab", &self.n_vocab).finish_non_exhaustive()
    }
}

impl Environment {
    /// Of the vocabulary of `tokenizer`, which is also the one that says how forced text is split into tokens.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] for a vocabulary without a token that ends an answer.
    pub fn new(tokenizer: Arc<dyn Tokenizer>) -> Result<Self, GrammarError> {
        let n_vocab = tokenizer.n_vocab();
        let ends = tokenizer.end_of_generation().to_vec();
        let refused = |reason: String| GrammarError::Vocabulary { reason };
        let end = *ends.first().ok_or_else(|| refused("it has no token that ends an answer".into()))?;
        let size = u32::try_from(n_vocab).map_err(|_| refused("it is too large".into()))?;
        let words: Vec<Vec<u8>> = (0..size).map(|token| word(tokenizer.as_ref(), token)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(Vocabulary { trie, tokenizer: Arc::clone(&tokenizer) });
        let slices = SlicedBiasComputer::general_slices();
        let factory = factory(&environment, &slices)?;
        let controls = Controls::new(tokenizer.as_ref());
        Ok(Self { factory, vocabulary: environment, tokenizer: Some(tokenizer), n_vocab, ends, controls })
    }

    /// Of single bytes, to look at grammars without a model. A token that a grammar names is taken to exist.
    ///
    /// # Errors
    /// None that is known.
    pub fn bytes() -> Result<Self, GrammarError> {
        let vocabulary = ApproximateTokEnv::single_byte_env();
        let factory = factory(&vocabulary, &[])?;
        let (n_vocab, ends) = (vocabulary.tok_trie().vocab_size(), vec![vocabulary.tok_trie().eos_token()]);
        Ok(Self { factory, vocabulary, tokenizer: None, n_vocab, ends, controls: Controls::default() })
    }

    pub(crate) fn tokenizer(&self) -> Option<&Arc<dyn Tokenizer>> {
        self.tokenizer.as_ref()
    }

    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(crate) fn trie(&self) -> &TokTrie {
        self.vocabulary.tok_trie()
    }

    /// The token whose text is exactly this, control tokens included.
    pub(crate) fn token(&self, text: &str) -> Option<TokenId> {
        let Some(tokenizer) = &self.tokenizer else { return Some(0) };
        (0..self.named_tokens()).find(|&token| tokenizer.token_bytes(token) == text.as_bytes())
    }

    /// Tokens that a grammar can name, from 0.
    pub(crate) fn named_tokens(&self) -> u32 {
        match self.tokenizer {
            Some(_) => u32::try_from(self.n_vocab).unwrap_or(u32::MAX),
            None => u32::MAX,
        }
    }
}

fn factory(environment: &TokEnv, slices: &[String]) -> Result<ParserFactory, GrammarError> {
    let factory = ParserFactory::new(environment, InferenceCapabilities::default(), slices);
    let mut factory = factory.map_err(|error| GrammarError::Vocabulary { reason: error.to_string() })?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    Ok(factory)
}

/// A token's bytes; those that are no text are marked as special, so that no text matches them.
fn word(tokenizer: &dyn Tokenizer, token: TokenId) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(token);
    match tokenizer.token_kind(token) {
        TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte => bytes.to_vec(),
        TokenKind::Control | TokenKind::Unknown => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        TokenKind::Unused => Vec::new(),
    }
}

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<dyn Tokenizer>,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let tokens = self.tokenizer.tokenize(&[Segment::plain(text)], Surround::Nothing).unwrap_or_default();
            // Some tokenizers put a blank in front of a text; then these are not the text's tokens.
            match self.trie.decode(&tokens) == text.as_bytes() {
                true => tokens,
                false => self.trie.greedy_tokenize(text.as_bytes()),
            }
        })
    }
}
