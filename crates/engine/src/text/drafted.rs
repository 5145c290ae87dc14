//! Answers of a model that a draft model guesses for.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fake::{Answers, EOS, FakeDecoder, FakeTokenizer, config, limits, next_of};
use crate::sampling::SamplingParams;
use crate::{BatchToken, CacheRefused, DecodeError, DecoderLimits, PrefixSharing, SeqId, TokenId};

const N_SLOTS: usize = 3;

fn roomy() -> DecoderLimits {
    DecoderLimits { n_cells: 2048, n_seqs: 48, ..limits() }
}

/// A model with this draft model, which is asked whether it pays or not: no test depends on times.
fn start(draft: impl Decoder + Send + 'static) -> TextModel {
    TextModel::start_with_draft(config(N_SLOTS), Arc::new(FakeTokenizer::default()), move |faults| {
        let decoder = FakeDecoder::new(roomy(), Answers::Hash).with_faults(faults);
        let draft =
            Draft { decoder: Box::new(draft), config: DraftConfig { is_always_asked: true, ..DraftConfig::default() } };
        Ok((decoder, Some(draft)))
    })
    .unwrap()
}

fn expected(prompt: &[TokenId], max_tokens: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + max_tokens {
        match next_of(&tokens) {
            EOS => break,
            token => tokens.push(token),
        }
    }
    tokens.split_off(prompt.len())
}

/// Prompts whose answers are long.
fn prompts(n: usize) -> Vec<Vec<TokenId>> {
    let prompt = |idx: usize| format!("some text to begin with, number {idx}").bytes().map(TokenId::from).collect();
    (0..).map(prompt).filter(|prompt: &Vec<TokenId>| expected(prompt, 60).len() == 60).take(n).collect()
}

/// Asks for all of them at once; every answer must be what the model says by itself.
fn ask(model: &TextModel, prompts: &[Vec<TokenId>]) {
    let request = |prompt: &Vec<TokenId>| GenerationRequest {
        prompt: prompt.clone(),
        max_tokens: Some(60),
        sampling: SamplingParams::greedy(),
        ..GenerationRequest::default()
    };
    let open: Vec<_> = prompts.iter().map(|prompt| model.submit(request(prompt)).unwrap()).collect();
    for (prompt, generation) in prompts.iter().zip(open) {
        let mut text = String::new();
        for event in generation {
            match event.unwrap() {
                GenerationEvent::Piece(piece) => text += &piece.text,
                GenerationEvent::Done(completion) => assert_eq!(completion.usage.completion_tokens, 60),
            }
        }
        let said: Vec<TokenId> = text.bytes().map(TokenId::from).collect();
        assert_eq!(said, expected(prompt, 60));
    }
}

#[test]
fn a_draft_model_that_knows_saves_steps() {
    let model = start(FakeDecoder::new(roomy(), Answers::Hash));
    let prompts = prompts(2 * N_SLOTS);
    ask(&model, &prompts);
    let stats = model.stats();
    assert!(stats.guesses_right > stats.tokens_generated / 2, "{stats:?}");
    assert!(stats.steps < stats.tokens_generated / 2, "{stats:?}");
    // The same again: what the draft model has read of other texts does no harm.
    ask(&model, &prompts);
}

#[test]
fn a_draft_model_that_knows_nothing_changes_nothing() {
    let model = start(FakeDecoder::new(roomy(), Answers::Text("0123456789".repeat(30))));
    ask(&model, &prompts(4 * N_SLOTS));
    let stats = model.stats();
    assert!(stats.guesses > 100 && stats.guesses_right < stats.guesses / 4, "{stats:?}");
}

#[test]
fn caches_that_lose_things_cost_time_only() {
    let tight = DecoderLimits { n_cells: 150, ..roomy() };
    ask(&start(FakeDecoder::new(tight, Answers::Hash)), &prompts(2 * N_SLOTS));
    let windowed = DecoderLimits { sliding_window: Some(16), ..roomy() };
    ask(&start(FakeDecoder::new(windowed, Answers::Hash)), &prompts(2 * N_SLOTS));
    let short = DecoderLimits { n_sequence_tokens: 50, ..roomy() };
    ask(&start(FakeDecoder::new(short, Answers::Hash)), &prompts(N_SLOTS));
    let small = DecoderLimits { n_seqs: 1, ..roomy() };
    ask(&start(FakeDecoder::new(small, Answers::Hash)), &prompts(2 * N_SLOTS));
}

/// Fails from the twentieth step on; counts them.
struct Breaks(FakeDecoder, Arc<AtomicUsize>);

impl Decoder for Breaks {
    fn limits(&self) -> &DecoderLimits {
        self.0.limits()
    }

    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError> {
        match self.1.fetch_add(1, Ordering::Relaxed) {
            0..20 => self.0.decode(batch),
            _ => Err(DecodeError::Failed { reason: "it broke".into() }),
        }
    }

    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        self.0.row(entry_idx)
    }

    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.0.copy_prefix(from, to, n_tokens)
    }

    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.0.cut(seq, n_tokens)
    }

    fn clear(&mut self, seq: SeqId) {
        self.0.clear(seq);
    }

    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused> {
        self.0.shift(seq, keep, discard)
    }

    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>> {
        self.0.save(seq)
    }

    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused> {
        self.0.restore(to, state)
    }

    fn first_held(&self, seq: SeqId) -> usize {
        self.0.first_held(seq)
    }
}

#[test]
fn a_draft_model_that_fails_is_not_asked_any_more() {
    let n_steps = Arc::new(AtomicUsize::new(0));
    let model = start(Breaks(FakeDecoder::new(roomy(), Answers::Hash), Arc::clone(&n_steps)));
    ask(&model, &prompts(4 * N_SLOTS));
    assert_eq!(n_steps.load(Ordering::Relaxed), 21);
    assert_eq!(model.health(), Health::Alive);
}

#[test]
fn a_draft_model_that_cannot_take_back_is_not_used() {
    let whole = DecoderLimits { sharing: PrefixSharing::TakeOverWhole, ..roomy() };
    let n_steps = Arc::new(AtomicUsize::new(0));
    let model = start(Breaks(FakeDecoder::new(whole, Answers::Hash), Arc::clone(&n_steps)));
    ask(&model, &prompts(N_SLOTS));
    assert_eq!(n_steps.load(Ordering::Relaxed), 0);
}
