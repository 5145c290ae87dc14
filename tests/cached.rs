//! Cached equals uncached: the same greedy tokens whether a prefix was computed or reused, alone or among others.
//!
//! `INGLE_LONG_TESTS=1` compares more than 2,000 tokens for each model; without it a quarter of that.

use std::path::Path;

use ingle_engine::sampling::SamplingParams;
use ingle_engine::{Backend, GenerationEvent, GenerationRequest, LoadOptions, Segment, Surround, TextModel, TokenId};
use ingle_llama::LlamaBackend;

use crate::support;

/// A share of tokens that may differ because sums come in another order in another batch.
const MOST_DISAGREEMENT: f64 = 0.005;
/// Nats between the two likeliest tokens up to which another order of sums can swap them.
const NEAR_TIE: f32 = 0.25;

fn load(path: &Path) -> TextModel {
    let options = LoadOptions {
        name: "cached".into(),
        path: path.to_owned(),
        context_size: Some(16_384),
        parallel: Some(8),
        ..LoadOptions::default()
    };
    let engine = LlamaBackend.load(&options, &ingle_runtime::hardware::detect()).expect("the test model loads");
    engine.text.expect("the test model generates text")
}

/// Prompt `idx` of about `n_tokens` tokens; all of them share the first half.
fn prompt(model: &TextModel, idx: usize, n_tokens: usize) -> Vec<TokenId> {
    const WORDS: [&str; 8] = ["river", "stone", "window", "letter", "music", "bread", "ocean", "clock"];
    let word = |position: usize| {
        let owner = if position < n_tokens / 2 { 0 } else { idx + 1 };
        WORDS[(position * 7 + owner * 13 + position * position * (owner + 3)) % WORDS.len()]
    };
    let text: Vec<&str> = (0..n_tokens).map(word).collect();
    let tokens = model.tokenizer().tokenize(&[Segment::plain(text.join(" "))], Surround::AsModelWants);
    tokens.expect("words can be tokenized")
}

/// What was generated: each token with the gap to the runner-up in nats, and the prompt tokens that came from the cache.
struct Generated {
    tokens: Vec<(TokenId, f32)>,
    n_cached: usize,
}

fn submit(model: &TextModel, prompt: Vec<TokenId>, n_tokens: usize) -> ingle_engine::Generation {
    let sampling = SamplingParams { top_logprobs: Some(2), ..SamplingParams::greedy() };
    let end_of_generation = ingle_engine::EndOfGeneration::Ignored;
    let request =
        GenerationRequest { prompt, sampling, max_tokens: Some(n_tokens), end_of_generation, ..Default::default() };
    model.submit(request).expect("the queue has room")
}

fn collect(generation: ingle_engine::Generation) -> Generated {
    let mut tokens = Vec::new();
    for event in generation {
        match event.expect("the model does not fail") {
            GenerationEvent::Piece(piece) => tokens.extend(piece.tokens.into_iter().map(|token| {
                let top = token.logprob.expect("log-probabilities were asked for").top;
                (token.id, top[0].1 - top[1].1)
            })),
            GenerationEvent::Done(done) => return Generated { tokens, n_cached: done.usage.cached_tokens },
        }
    }
    unreachable!("a generation ends with Done")
}

/// Tokens of `reference` that the model does not choose, each time with the reference's own history before it.
fn disagreements(model: &TextModel, prompt: &[TokenId], reference: &[TokenId], first: Generated) -> Vec<f32> {
    let (mut gaps, mut from, mut generated) = (Vec::new(), 0, first);
    loop {
        let differs =
            generated.tokens.iter().zip(&reference[from..]).position(|((token, _), expected)| token != expected);
        let Some(at) = differs else { return gaps };
        gaps.push(generated.tokens[at].1);
        from += at + 1;
        if from == reference.len() {
            return gaps;
        }
        let history = [prompt, &reference[..from]].concat();
        generated = collect(submit(model, history, reference.len() - from));
    }
}

fn compare(path: &Path, n_prompt: usize) {
    let (n_prompts, n_answer) = if std::env::var_os("INGLE_LONG_TESTS").is_some() { (16, 130) } else { (8, 64) };
    let prompts: Vec<Vec<TokenId>> = {
        let model = load(path);
        (0..n_prompts).map(|idx| prompt(&model, idx, n_prompt)).collect()
    };
    // Each cold answer comes from a model that has seen nothing else.
    let cold: Vec<Vec<TokenId>> = prompts
        .iter()
        .map(|prompt| {
            let generated = collect(submit(&load(path), prompt.clone(), n_answer));
            assert_eq!(generated.n_cached, 0, "a cold answer reuses nothing");
            generated.tokens.into_iter().map(|(token, _)| token).collect()
        })
        .collect();
    let model = load(path);
    let mut gaps = Vec::new();
    let mut n_cached = 0;
    // Alone, with a warm cache: the second time nearly everything is reused.
    for (prompt, reference) in prompts.iter().zip(&cold) {
        collect(submit(&model, prompt.clone(), 1));
        let warm = collect(submit(&model, prompt.clone(), n_answer));
        n_cached += warm.n_cached;
        gaps.extend(disagreements(&model, prompt, reference, warm));
    }
    // Eight at a time.
    for (prompts, references) in prompts.chunks(8).zip(cold.chunks(8)) {
        let running: Vec<_> = prompts.iter().map(|prompt| submit(&model, prompt.clone(), n_answer)).collect();
        for ((generation, prompt), reference) in running.into_iter().zip(prompts).zip(references) {
            gaps.extend(disagreements(&model, prompt, reference, collect(generation)));
        }
    }
    let n_compared = 2 * n_prompts * n_answer;
    let share = gaps.len() as f64 / n_compared as f64;
    println!(
        "{}: {n_compared} tokens compared, {n_cached} prompt tokens reused, {} disagree ({:.2} %), gaps {gaps:?}",
        path.display(),
        gaps.len(),
        100.0 * share
    );
    assert!(n_cached > n_prompts * n_prompt / 2, "the warm cache was used");
    assert!(share <= MOST_DISAGREEMENT, "top-1 agreement is {:.2} %", 100.0 * (1.0 - share));
    assert!(gaps.iter().all(|&gap| gap <= NEAR_TIE), "only near ties may swap: {gaps:?}");
}

#[test]
fn gemma_with_prompts_of_three_windows() {
    if let Some(path) = support::windowed_model() {
        compare(&path, 3 * 512);
    }
}

#[test]
fn a_model_without_a_window() {
    if let Some(path) = support::chat_model() {
        compare(&path, 400);
    }
}
