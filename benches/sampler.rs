//! One token from one row, for vocabularies of the sizes that models have.

use criterion::{BenchmarkId, Criterion, criterion_group};
use ingle::sampling::{Sampler, SamplingParams, Scratch};

criterion_group!(benches, sample);

/// Logits with a few likely tokens and many unlikely ones.
fn row(n_vocab: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut uniform = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32
    };
    (0..n_vocab).map(|_| -12.0 * uniform() + if uniform() > 0.999 { 14.0 } else { 0.0 }).collect()
}

fn sample(c: &mut Criterion) {
    let nucleus = SamplingParams { temperature: 0.8, top_k: None, top_p: 0.95, ..SamplingParams::neutral() };
    let usual = SamplingParams { top_k: Some(40), ..nucleus.clone() };
    let kinds = [("greedy", SamplingParams::greedy()), ("top_k 40, top_p", usual), ("top_p alone", nucleus)];
    for n_vocab in [49_152, 262_144] {
        let row = row(n_vocab);
        let mut group = c.benchmark_group(format!("sampler, {n_vocab} tokens"));
        for (name, params) in &kinds {
            let mut sampler = Sampler::new(params.clone(), n_vocab, 1).expect("the parameters are sound");
            let mut scratch = Scratch::default();
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| sampler.sample_with(&mut scratch, &row, None).expect("the row is sound"));
            });
        }
    }
}
