//! A step of the scheduler, and the search for a prefix that is there already.

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group};
use ingle_engine::scheduler::{PromptShare, Scheduler, SchedulerConfig, Submission};
use ingle_engine::{ContextOverflow, DecoderLimits, PrefixSharing};

criterion_group!(benches, step, prefix);

const PROMPT: usize = 256;

fn limits(n_requests: usize) -> DecoderLimits {
    DecoderLimits {
        n_cells: (n_requests + 2) * 2 * PROMPT,
        n_sequence_tokens: 2 * PROMPT,
        n_seqs: 2 * n_requests + 2,
        n_batch: (n_requests + 2) * PROMPT,
        n_physical_batch: (n_requests + 2) * PROMPT,
        n_vocab: 1000,
        sharing: PrefixSharing::Copy,
        sliding_window: None,
        can_shift: true,
    }
}

fn submission(id: u64) -> Submission {
    // No two requests begin with the same token.
    let prompt = (0..PROMPT as u32).map(|idx| idx * 7 + id as u32).collect();
    Submission { id, prompt, max_tokens: Some(64), overflow: ContextOverflow::Stop, prefix_step: 1 }
}

/// One step as the engine drives it: plan, note what was computed, take a token for each row.
fn drive(scheduler: &mut Scheduler) {
    let step = scheduler.next_step(PromptShare::Beside(32), &|_| 0);
    scheduler.computed(&step.entries);
    for entry in step.entries.iter().filter(|entry| entry.token.wants_row) {
        scheduler.push_token(entry.request, 5);
    }
    std::hint::black_box(step);
}

/// A scheduler whose requests all generate.
fn generating(n_requests: usize) -> Scheduler {
    let config = SchedulerConfig { limits: limits(n_requests), n_slots: n_requests, max_waiting: n_requests };
    let mut scheduler = Scheduler::new(config);
    (0..n_requests as u64).for_each(|id| scheduler.admit(submission(id)).expect("there is room"));
    drive(&mut scheduler);
    scheduler
}

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler step");
    for n_requests in [1, 64, 512] {
        group.bench_function(BenchmarkId::from_parameter(n_requests), |bencher| {
            bencher.iter_batched_ref(|| generating(n_requests), drive, BatchSize::LargeInput);
        });
    }
}

fn prefix(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix match");
    for n_cached in [1, 64, 512] {
        let prepare = || {
            let mut scheduler = generating(n_cached);
            (0..n_cached as u64).for_each(|id| scheduler.finish(id));
            // It goes on where a cached one ended.
            let mut next = submission(0);
            next.id = u64::MAX;
            next.prompt.push(9);
            scheduler.admit(next).expect("there is room");
            scheduler
        };
        group.bench_function(BenchmarkId::from_parameter(n_cached), |bencher| {
            bencher.iter_batched_ref(prepare, drive, BatchSize::LargeInput);
        });
    }
}
