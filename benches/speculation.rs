//! A repetitive answer through the engine thread, with a model that takes no time: what an accepted guess costs.

use std::sync::Arc;

use criterion::{Criterion, criterion_group};
use ingle_engine::fake::{Answers, limits, start};
use ingle_engine::sampling::SamplingParams;
use ingle_engine::{DecoderLimits, GenerationRequest, TextModel};

criterion_group!(benches, answer);

fn run(model: &TextModel, n_tokens: usize, seed: Option<u64>) {
    let request = GenerationRequest {
        prompt: vec![65; 8],
        sampling: SamplingParams { seed, ..SamplingParams::greedy() },
        max_tokens: Some(n_tokens),
        ..GenerationRequest::default()
    };
    let events = model.submit(request).expect("the engine takes it").into_iter();
    events.for_each(|event| drop(event.expect("the fake model does not fail")));
}

fn answer(c: &mut Criterion) {
    let text: Arc<str> = "so it goes on and on, ".repeat(12).into();
    let roomy = DecoderLimits { n_seqs: 32, ..limits() };
    let model = start(roomy, 2, Answers::Text(text.to_string())).expect("the fake model starts");
    let mut group = c.benchmark_group("answer of 256 tokens through the engine");
    group.bench_function("guessed", |bencher| bencher.iter(|| run(&model, 256, None)));
    // A seed switches guessing off.
    group.bench_function("one by one", |bencher| bencher.iter(|| run(&model, 256, Some(1))));
}
