//! Cached equals uncached: the same greedy tokens whether a prefix was computed or reused, alone or among others.
//!
//! `INGLE_LONG_TESTS=1` compares more than 2,000 tokens for each model; without it a quarter of that.

use std::path::Path;

use ingle_engine::sampling::SamplingParams;
use ingle_engine::{
    Backend, Generation, GenerationEvent, GenerationRequest, LoadOptions, PrefixReuse, Segment, Surround, TextModel,
    TokenId,
};
use ingle_llama::LlamaBackend;

use crate::support;

/// What a reused prefix may add to the share of tokens that another batch size swaps without any cache: the spread of
/// that share over the few tokens compared here.
const MOST_ADDED: f64 = 0.03;
/// Share of tokens that may differ where the model is sure of them.
const MOST_CERTAIN: f64 = 0.005;
/// Nats between the two likeliest tokens up to which another order of sums was seen to swap them.
const NEAR_TIE: f32 = 0.7;

fn load(path: &Path, batch: usize) -> TextModel {
    let options = LoadOptions {
        name: "cached".into(),
        path: path.to_owned(),
        context_size: Some(16_384),
        parallel: Some(8),
        batch: Some(batch),
        ..LoadOptions::default()
    };
    let engine = LlamaBackend.load(&options, &ingle_runtime::hardware::detect()).expect("the test model loads");
    engine.text.expect("the test model generates text")
}

/// What a prompt ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Prose, of which a small model is rarely sure: near ties are common.
    Prose,
    /// Numbers being counted, of which it is sure: only a wrong cache can change them.
    Counting,
}

/// Prompt `idx` of about `n_tokens` tokens; all of them share the first half, which is prose.
fn prompt(model: &TextModel, ending: Ending, idx: usize, n_tokens: usize) -> Vec<TokenId> {
    let tokens = |text: &str, surround| {
        model.tokenizer().tokenize(&[Segment::plain(text)], surround).expect("the text can be tokenized")
    };
    let prose = concat!(include_str!("../LICENSE-APACHE"), include_str!("../README.md"));
    let prose = tokens(prose, Surround::AsModelWants);
    let own_len = n_tokens - n_tokens / 2;
    let own = match ending {
        Ending::Prose => {
            let from = n_tokens / 2 + 97 * (idx + 1) % (prose.len() - n_tokens);
            prose[from..from + own_len].to_vec()
        }
        Ending::Counting => {
            let numbers: String = (1..own_len / 2).map(|number| format!("{} ", number + 10 * idx)).collect();
            let mut numbers = tokens(&format!("\n\nCounting: {numbers}"), Surround::Nothing);
            numbers.truncate(own_len);
            numbers
        }
    };
    [&prose[..n_tokens / 2], &own].concat()
}

/// What was generated: each token with the gap to the runner-up in nats, and the prompt tokens that came from the cache.
struct Generated {
    tokens: Vec<(TokenId, f32)>,
    n_cached: usize,
}

fn submit(model: &TextModel, prompt: Vec<TokenId>, n_tokens: usize, reuse: PrefixReuse) -> Generation {
    let sampling = SamplingParams { top_logprobs: Some(2), ..SamplingParams::greedy() };
    let end_of_generation = ingle_engine::EndOfGeneration::Ignored;
    let request = GenerationRequest {
        prompt,
        sampling,
        max_tokens: Some(n_tokens),
        end_of_generation,
        prefix_reuse: reuse,
        ..GenerationRequest::default()
    };
    model.submit(request).expect("the queue has room")
}

fn collect(generation: Generation) -> Generated {
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

/// Where the model does not choose the token of `reference`, each time with the reference's own history before it: the
/// gaps between its choice and the runner-up.
fn disagreements(model: &TextModel, prompt: &[TokenId], reference: &[TokenId], reuse: PrefixReuse) -> Vec<f32> {
    let (mut gaps, mut from) = (Vec::new(), 0);
    while from < reference.len() {
        let history = [prompt, &reference[..from]].concat();
        let generated = collect(submit(model, history, reference.len() - from, reuse));
        let pairs = generated.tokens.iter().zip(&reference[from..]);
        let Some(at) = pairs.clone().position(|((token, _), expected)| token != expected) else { break };
        gaps.push(generated.tokens[at].1);
        from += at + 1;
    }
    gaps
}

fn compare(path: &Path, ending: Ending, n_prompt: usize) {
    let (n_prompts, n_answer) = if std::env::var_os("INGLE_LONG_TESTS").is_some() { (16, 130) } else { (4, 64) };
    let model = load(path, 512);
    let prompts: Vec<_> = (0..n_prompts).map(|idx| prompt(&model, ending, idx, n_prompt)).collect();
    let cold = |prompt: &Vec<TokenId>| {
        let generated = collect(submit(&model, prompt.clone(), n_answer, PrefixReuse::Never));
        assert_eq!(generated.n_cached, 0, "a cold answer reuses nothing");
        generated.tokens.into_iter().map(|(token, _)| token).collect::<Vec<_>>()
    };
    let references: Vec<_> = prompts.iter().map(cold).collect();
    // The control: no cache, but the prompt in smaller pieces. What differs here is batch arithmetic alone.
    let other = load(path, 16);
    let cases = || prompts.iter().zip(&references);
    let control: Vec<f32> =
        cases().flat_map(|(prompt, answer)| disagreements(&other, prompt, answer, PrefixReuse::Never)).collect();
    drop(other);
    // Alone, with a warm cache.
    let mut gaps: Vec<f32> =
        cases().flat_map(|(prompt, answer)| disagreements(&model, prompt, answer, PrefixReuse::Allowed)).collect();
    // Among others: all prompts at once, eight at a time.
    std::thread::scope(|scope| {
        let compared: Vec<_> = cases()
            .map(|(prompt, answer)| scope.spawn(|| disagreements(&model, prompt, answer, PrefixReuse::Allowed)))
            .collect();
        gaps.extend(compared.into_iter().flat_map(|thread| thread.join().expect("a comparison does not panic")));
    });
    let n_reused = model.stats().prompt_tokens_cached as usize;
    let n_tokens = n_prompts * n_answer;
    let (share, control_share) = (gaps.len() as f64 / (2 * n_tokens) as f64, control.len() as f64 / n_tokens as f64);
    println!(
        "{}, {ending:?}: {} tokens compared, {n_reused} prompt tokens reused: {:.2} % differ; another batch size without a cache: \
         {:.2} %\n  gaps {gaps:.2?}\n  control {control:.2?}",
        path.display(),
        2 * n_tokens,
        100.0 * share,
        100.0 * control_share,
    );
    assert!(n_reused > n_prompts * n_prompt, "the warm cache was used");
    let most = match ending {
        Ending::Prose => control_share + MOST_ADDED,
        Ending::Counting => MOST_CERTAIN,
    };
    assert!(share <= most, "the cache changes more than batch arithmetic explains");
    assert!(gaps.iter().all(|&gap| gap <= NEAR_TIE), "only near ties may swap: {gaps:?}");
}

#[test]
fn gemma_with_prompts_of_three_windows() {
    if let Some(path) = support::windowed_model() {
        compare(&path, Ending::Prose, 3 * 512);
    }
}

#[test]
fn a_model_without_a_window() {
    let Some(path) = support::chat_model() else { return };
    for ending in [Ending::Prose, Ending::Counting] {
        compare(&path, ending, 400);
    }
}
