//! Embeddings and scores made of arithmetic.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{BOS, EOS, FakeTokenizer, N_VOCAB, POISON_PANIC, POISON_STEP};
use crate::{
    BatchConfig, BatchModel, BatchThread, Dimensions, EmbedInfo, EmbedModel, Encoded, EngineError, Interrupt,
    LoadOptions, RerankModel, Segment, Sequence, Surround, TextEncoder, TokenId, Tokenizer,
};

/// Numbers of a fake vector.
pub const N_EMBD: usize = 8;

/// Bytes with a token in front and one behind; long texts are cut.
#[derive(Debug)]
pub struct FakeEncoder {
    /// Most tokens of a sequence.
    pub max_tokens: usize,
}

fn tokenize(text: &str) -> Result<Vec<TokenId>, EngineError> {
    FakeTokenizer::default().tokenize(&[Segment::parse(text.to_owned())], Surround::Nothing)
}

impl FakeEncoder {
    fn surround(&self, mut tokens: Vec<TokenId>) -> Encoded {
        let full_len = tokens.len() + 2;
        tokens.truncate(self.max_tokens - 2);
        tokens.insert(0, BOS);
        tokens.push(EOS);
        Encoded { sequence: Sequence::single(tokens), full_len }
    }
}

impl TextEncoder for FakeEncoder {
    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn encode(&self, text: &str) -> Result<Encoded, EngineError> {
        Ok(self.surround(tokenize(text)?))
    }

    fn encode_tokens(&self, tokens: &[TokenId]) -> Result<Encoded, EngineError> {
        match tokens.iter().find(|&&token| token as usize >= N_VOCAB) {
            Some(&token) => Err(EngineError::TokenOutOfRange { token, n_vocab: N_VOCAB }),
            None => Ok(self.surround(tokens.to_vec())),
        }
    }

    fn encode_pair(&self, query: &str, document: &str) -> Result<Encoded, EngineError> {
        let (query, document) = (tokenize(query)?, tokenize(document)?);
        let full_len = query.len() + document.len() + 3;
        let mut tokens = [&[BOS], query.as_slice(), &[EOS]].concat();
        let second_from = tokens.len();
        tokens.extend(document);
        tokens.truncate(self.max_tokens - 1);
        tokens.push(EOS);
        let second_from = second_from.min(tokens.len());
        Ok(Encoded { sequence: Sequence { tokens, second_from }, full_len })
    }

    fn encode_windows(&self, text: &str) -> Result<Vec<Sequence>, EngineError> {
        let tokens = tokenize(text)?;
        Ok(tokens.chunks(self.max_tokens - 2).map(|chunk| self.surround(chunk.to_vec()).sequence).collect())
    }
}

fn poison(sequence: &Sequence) -> Result<(), EngineError> {
    assert!(!sequence.tokens.contains(&POISON_PANIC), "poisoned encoder");
    match sequence.tokens.contains(&POISON_STEP) {
        true => Err(EngineError::Decode { reason: "poisoned step".into() }),
        false => Ok(()),
    }
}

/// Counts bytes by their remainder.
#[derive(Debug)]
pub struct FakeEmbed;

impl BatchModel for FakeEmbed {
    type Request = Sequence;
    type Response = Vec<f32>;

    fn run(&mut self, batch: &[Sequence], _: &Interrupt<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        batch.iter().map(|sequence| poison(sequence).map(|()| vector(&sequence.tokens))).collect()
    }
}

/// The vector of these tokens, `[N_EMBD]`, of length 1.
pub fn vector(tokens: &[TokenId]) -> Vec<f32> {
    let mut counts = [0.0_f32; N_EMBD];
    for &token in tokens {
        counts[token as usize % N_EMBD] += 1.0;
    }
    let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt();
    counts.iter().map(|count| count / length).collect()
}

/// Scores the share of the query's bytes that the document has.
#[derive(Debug)]
pub struct FakeRerank;

impl BatchModel for FakeRerank {
    type Request = Sequence;
    type Response = f32;

    fn run(&mut self, batch: &[Sequence], _: &Interrupt<'_>) -> Result<Vec<f32>, EngineError> {
        batch.iter().map(|sequence| poison(sequence).map(|()| score(sequence))).collect()
    }
}

fn score(sequence: &Sequence) -> f32 {
    let (query, document) = sequence.tokens.split_at(sequence.second_from);
    let letters = |tokens: &[TokenId]| tokens.iter().copied().filter(|&token| token < BOS).collect::<BTreeSet<_>>();
    let (query, document) = (letters(query), letters(document));
    query.intersection(&document).count() as f32 / query.len().max(1) as f32
}

fn config(options: &LoadOptions, max_waiting: usize) -> BatchConfig {
    BatchConfig { name: options.name.clone(), unit: "tokens", step_budget: 256, max_waiting, max_waiting_cost: 1 << 16 }
}

fn encoder(options: &LoadOptions) -> Arc<dyn TextEncoder> {
    Arc::new(FakeEncoder { max_tokens: options.context_size.unwrap_or(64).max(4) })
}

/// A running fake embedding model.
///
/// # Errors
/// As [`BatchThread::start`].
pub fn embed_model(options: &LoadOptions, max_waiting: usize) -> Result<EmbedModel, EngineError> {
    let thread = BatchThread::start(config(options, max_waiting), |_| Ok(FakeEmbed))?;
    let dimensions = match options.embed.dimensions.is_empty() {
        true => Dimensions::Whole,
        false => Dimensions::Listed(options.embed.dimensions.clone()),
    };
    let info = EmbedInfo {
        n_embd: N_EMBD,
        dimensions,
        is_normalized: true,
        prompts: [("query".to_owned(), "q:".to_owned())].into(),
        default_prompt: None,
        architecture: "fake".into(),
    };
    Ok(EmbedModel { thread, encoder: encoder(options), info: Arc::new(info) })
}

/// A running fake reranker.
///
/// # Errors
/// As [`BatchThread::start`].
pub fn rerank_model(options: &LoadOptions, max_waiting: usize) -> Result<RerankModel, EngineError> {
    let thread = BatchThread::start(config(options, max_waiting), |_| Ok(FakeRerank))?;
    Ok(RerankModel { thread, encoder: encoder(options), architecture: "fake".into() })
}
