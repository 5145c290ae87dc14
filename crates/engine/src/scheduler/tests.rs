//! What the scheduler decides in single, hand-made situations.

use super::*;
use crate::fake::{Answers, FakeDecoder, limits};
use crate::{Decoder, PrefixSharing};

/// A scheduler with a fake decoder that does what the scheduler says.
struct Bench {
    scheduler: Scheduler,
    decoder: FakeDecoder,
    /// Prompt tokens computed so far.
    n_computed: usize,
    started: Vec<(RequestId, usize)>,
    saved: std::collections::BTreeMap<StateKey, Vec<u8>>,
    /// Operations so far.
    ops: Vec<CacheOp>,
}

impl Bench {
    fn new(limits: DecoderLimits, n_slots: usize) -> Self {
        let config = SchedulerConfig { limits: limits.clone(), n_slots, max_waiting: 16 };
        let decoder = FakeDecoder::new(limits, Answers::Hash);
        Self {
            scheduler: Scheduler::new(config),
            decoder,
            n_computed: 0,
            started: Vec::new(),
            saved: std::collections::BTreeMap::new(),
            ops: Vec::new(),
        }
    }

    fn admit(&mut self, id: RequestId, prompt: Vec<TokenId>, max_tokens: Option<usize>) {
        let submission = Submission { id, prompt, max_tokens, overflow: ContextOverflow::Stop, prefix_step: 1 };
        self.scheduler.admit(submission).expect("the queue has room");
    }

    /// Runs one step; the requests that got a row and whether they may go on.
    fn step(&mut self) -> Vec<(RequestId, Verdict)> {
        let decoder = &self.decoder;
        let step = self.scheduler.next_step(PromptShare::Beside(8), &|seq| decoder.first_held(seq));
        self.ops.extend(&step.ops);
        let (decoder, saved) = (&mut self.decoder, &self.saved);
        let applied = self.scheduler.apply(&step.ops, &mut |op| op.carry_out(decoder, saved));
        assert_eq!(applied.lost, []);
        let started = self.scheduler.take_started();
        self.started.extend(started.iter().map(|started| (started.id, started.cached_tokens)));
        let batch: Vec<_> = step.entries.iter().map(|entry| entry.token).collect();
        if batch.is_empty() || applied.is_refused {
            return Vec::new();
        }
        self.decoder.decode(&batch).expect("reservations guarantee room");
        self.n_computed += step.n_prompt_tokens;
        self.scheduler.computed(&step.entries);
        self.scheduler.check();
        let rows = step.entries.iter().filter(|entry| entry.token.wants_row).map(|entry| entry.request);
        rows.collect::<Vec<_>>().into_iter().map(|id| (id, self.scheduler.push_token(id, 7))).collect()
    }

    /// Runs until `id` has ended by its limit.
    fn finish(&mut self, id: RequestId) {
        for _ in 0..1000 {
            for (ended, verdict) in self.step() {
                if verdict == Verdict::LengthReached {
                    self.scheduler.finish(ended);
                    if ended == id {
                        return;
                    }
                }
            }
        }
        panic!("request {id} never ends");
    }

    /// Runs until every request has ended by its limit.
    fn finish_all(&mut self) {
        while self.scheduler.occupancy().running + self.scheduler.occupancy().waiting > 0 {
            let ended = self.step().into_iter().filter(|&(_, verdict)| verdict == Verdict::LengthReached);
            ended.for_each(|(id, _)| self.scheduler.finish(id));
        }
    }
}

impl Bench {
    /// Saves everything that is cached, as an idle engine does.
    fn park(&mut self, most_bytes: usize) {
        while let Some(parkable) = self.scheduler.parkable() {
            let state = self.decoder.save(parkable.seq).unwrap();
            let first_held = self.decoder.first_held(parkable.seq);
            let dropped = self.scheduler.parked(parkable, first_held, state.len(), most_bytes);
            self.saved.insert(parkable.key, state);
            dropped.iter().for_each(|key| drop(self.saved.remove(key)));
            self.step();
            self.scheduler.check();
        }
    }
}

#[test]
fn a_saved_prefix_comes_back() {
    let mut bench = Bench::new(limits(), 2);
    bench.admit(0, prompt(1, 2), Some(4));
    bench.finish(0);
    bench.park(1 << 20);
    let occupancy = bench.scheduler.occupancy();
    assert_eq!((occupancy.cells_cached, occupancy.parked_sequences, bench.saved.len()), (0, 1, 1));
    bench.admit(1, prompt(1, 3), Some(4));
    bench.finish(1);
    assert_eq!(bench.started, [(0, 0), (1, 100)]);
    bench.park(1 << 20);
    assert_eq!(bench.saved.len(), 2, "both ends are worth keeping");
    bench.admit(2, [prompt(1, 3), vec![7; 3], vec![9; 5]].concat(), Some(1));
    bench.finish(2);
    assert_eq!(bench.started.last(), Some(&(2, 113)), "the answer that was computed is reused too");
    bench.park(1 << 20);
    assert_eq!(bench.saved.len(), 2, "the longer state replaces the one it begins with");
}

#[test]
fn saved_states_have_a_bound() {
    let mut bench = Bench::new(limits(), 1);
    for id in 0..20 {
        bench.admit(id, vec![id as TokenId + 1; 100], Some(2));
        bench.finish(id);
        bench.park(2000);
    }
    let n_bytes: usize = bench.saved.values().map(Vec::len).sum();
    assert!((1000..=2000).contains(&n_bytes), "{n_bytes} bytes are kept");
    bench.admit(99, [vec![20; 50], vec![1]].concat(), Some(1));
    bench.finish(99);
    assert_eq!(bench.started.last(), Some(&(99, 50)), "the latest is still there");
}

fn prompt(system: TokenId, own: TokenId) -> Vec<TokenId> {
    let mut tokens = vec![system; 100];
    tokens.extend([own; 10]);
    tokens
}

#[test]
fn prompts_that_cannot_work_are_refused() {
    let cases = [(0, false), (1, true), (511, true), (512, false), (100_000, false)];
    for (n_tokens, fits) in cases {
        assert_eq!(check_prompt_length(n_tokens, 512).is_ok(), fits, "prompt of {n_tokens}");
    }
}

#[test]
fn a_full_queue_refuses() {
    let mut bench = Bench::new(limits(), 1);
    (0..16).for_each(|id| bench.admit(id, vec![1, 2], None));
    let one_more =
        Submission { id: 16, prompt: vec![1], max_tokens: None, overflow: ContextOverflow::Stop, prefix_step: 1 };
    assert!(matches!(bench.scheduler.admit(one_more), Err(EngineError::Overloaded { waiting: 16, limit: 16, .. })));
}

#[test]
fn a_finished_prefix_is_reused() {
    let mut bench = Bench::new(limits(), 2);
    bench.admit(0, prompt(1, 2), Some(4));
    bench.finish(0);
    assert_eq!(bench.n_computed, 110);
    bench.admit(1, prompt(1, 3), Some(4));
    bench.finish(1);
    assert_eq!(bench.started, [(0, 0), (1, 100)]);
    assert_eq!(bench.n_computed, 120);
}

#[test]
fn a_prefix_is_reused_in_whole_steps_where_that_is_asked_for() {
    let mut bench = Bench::new(limits(), 2);
    bench.admit(0, prompt(1, 2), Some(4));
    bench.finish(0);
    bench.started.clear();
    let submission = |id, prefix_step| Submission {
        id,
        prompt: prompt(1, 3),
        max_tokens: Some(1),
        overflow: ContextOverflow::Stop,
        prefix_step,
    };
    for (id, prefix_step, reused) in [(1, 64, 64), (2, 128, 0), (3, 1, 109)] {
        bench.scheduler.admit(submission(id, prefix_step)).unwrap();
        bench.finish(id);
        assert_eq!(bench.started.pop(), Some((id, reused)), "steps of {prefix_step}");
    }
}

#[test]
fn requests_that_arrive_together_compute_their_prefix_once() {
    let mut bench = Bench::new(limits(), 4);
    (0..4).for_each(|id| bench.admit(id, prompt(1, 10 + id as TokenId), Some(4)));
    (0..3).for_each(|_| drop(bench.step()));
    bench.finish(3);
    assert_eq!(bench.n_computed, 100 + 4 * 10);
}

#[test]
fn a_cancelled_leader_hands_its_work_on() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(0, prompt(1, 2), Some(4));
    bench.admit(1, prompt(1, 3), Some(4));
    bench.step();
    bench.scheduler.cancel(0);
    bench.finish(1);
    assert_eq!(bench.n_computed, 110, "the first chunk of the leader is reused");
}

#[test]
fn one_request_may_use_all_cells_and_evicts_what_is_cached() {
    let mut bench = Bench::new(limits(), 2);
    bench.admit(0, prompt(1, 2), Some(4));
    bench.finish(0);
    bench.admit(1, vec![9; 500], None);
    bench.finish(1);
    let occupancy = bench.scheduler.occupancy();
    assert_eq!(occupancy.running, 0);
    assert!(occupancy.cells_cached >= 500, "{occupancy:?}");
}

#[test]
fn reservations_keep_running_requests_safe() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(0, vec![1; 100], Some(300));
    bench.admit(1, vec![2; 100], Some(100));
    bench.step();
    assert_eq!(bench.scheduler.occupancy().running, 1, "400 + 200 cells do not fit into 512");
    bench.finish(1);
}

#[test]
fn a_window_that_has_moved_on_is_not_reused() {
    let windowed = DecoderLimits { sliding_window: Some(16), ..limits() };
    for (first_prompt, reusable) in [(60, 0), (20, 20)] {
        let mut bench = Bench::new(windowed.clone(), 1);
        bench.admit(0, vec![1; first_prompt], Some(2));
        bench.finish(0);
        bench.started.clear();
        let mut second = vec![1; first_prompt.min(20)];
        second.extend([2; 10]);
        bench.admit(1, second, Some(2));
        bench.finish(1);
        assert_eq!(bench.started, [(1, reusable)], "after a prompt of {first_prompt}");
    }
}

#[test]
fn a_state_that_cannot_be_cut_is_continued_whole_or_not_at_all() {
    let recurrent = DecoderLimits { sharing: PrefixSharing::TakeOverWhole, ..limits() };
    let mut bench = Bench::new(recurrent, 2);
    bench.admit(0, vec![1; 20], Some(3));
    bench.finish(0);
    let mut continued = vec![1; 20];
    continued.extend([7, 7]);
    bench.admit(1, [continued, vec![5; 4]].concat(), Some(2));
    bench.finish(1);
    bench.admit(2, [vec![1; 15], vec![6; 4]].concat(), Some(2));
    bench.finish(2);
    assert_eq!(bench.started, [(0, 0), (1, 22), (2, 0)]);
}

#[test]
fn a_refused_reuse_computes_the_prompt_again() {
    let mut bench = Bench::new(limits(), 2);
    bench.admit(0, prompt(1, 2), Some(2));
    bench.finish(0);
    bench.started.clear();
    bench.admit(1, prompt(1, 3), Some(2));
    let step = bench.scheduler.next_step(PromptShare::Beside(8), &|_| 0);
    let Some(&CacheOp::Copy { to, .. }) = step.ops.iter().find(|op| matches!(op, CacheOp::Copy { .. })) else {
        panic!("a copy was planned: {:?}", step.ops)
    };
    assert_eq!(bench.scheduler.refuse_reuse(to), None);
    bench.scheduler.take_started();
    bench.finish(1);
    assert_eq!(bench.started, [(1, 0)]);
}

#[test]
fn a_long_prompt_leaves_room_for_answers_and_for_short_prompts() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(0, vec![1; 4], Some(100));
    bench.step();
    bench.admit(1, vec![2; 200], Some(4));
    bench.admit(2, vec![3; 6], Some(4));
    let decoder = &bench.decoder;
    let step = bench.scheduler.next_step(PromptShare::Beside(8), &|seq| decoder.first_held(seq));
    let count = |id| step.entries.iter().filter(|entry| entry.request == id).count();
    assert_eq!((count(0), count(1), count(2)), (1, 4, 4));
}

#[test]
fn a_shift_makes_room_and_spoils_the_prefix_behind_it() {
    let mut bench = Bench::new(DecoderLimits { n_cells: 64, n_sequence_tokens: 64, ..limits() }, 2);
    let overflow = ContextOverflow::Shift { keep: 4 };
    bench
        .scheduler
        .admit(Submission { id: 0, prompt: vec![1; 50], max_tokens: Some(100), overflow, prefix_step: 1 })
        .unwrap();
    bench.finish(0);
    let occupancy = bench.scheduler.occupancy();
    assert_eq!((occupancy.cells_cached, occupancy.cached_sequences), (4, 1), "only the kept start is clean");
}

#[test]
fn answers_without_a_limit_end_at_the_edge_of_the_context() {
    let mut bench = Bench::new(DecoderLimits { n_cells: 64, n_sequence_tokens: 48, ..limits() }, 2);
    bench.admit(0, vec![1; 40], None);
    bench.finish(0);
    assert_eq!(bench.scheduler.occupancy().cells_cached, 47, "the last sampled token is never computed");
}

#[test]
fn a_prompt_may_have_a_step_of_its_own_while_answers_wait() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(1, vec![1, 2, 3], Some(8));
    bench.step();
    bench.admit(2, (10..30).collect(), Some(8));
    let alone = bench.scheduler.next_step(PromptShare::Alone(6), &|_| 0);
    assert_eq!((alone.entries.len(), alone.n_prompt_tokens, alone.answers_wait), (6, 6, true));
    assert!(alone.entries.iter().all(|entry| entry.request == 2), "the answer waits");
    bench.scheduler.computed(&alone.entries);
    let rest = bench.scheduler.next_step(PromptShare::Beside(0), &|_| 0);
    assert_eq!((rest.entries.len(), rest.n_prompt_tokens, rest.answers_wait), (1, 0, false));
    assert_eq!(rest.entries[0].request, 1, "the prompt waits");
    bench.scheduler.cancel(2);
    let without_prompts = bench.scheduler.next_step(PromptShare::Alone(6), &|_| 0);
    assert_eq!((without_prompts.entries.len(), without_prompts.answers_wait), (1, false));
}

#[test]
fn prompts_that_come_together_begin_their_answers_in_one_step() {
    let sizes = DecoderLimits { n_batch: 32, ..limits() };
    let prompts = |lengths: [usize; 3]| {
        let mut bench = Bench::new(sizes.clone(), 4);
        (1..).zip(lengths).for_each(|(id, len)| bench.admit(id, vec![id as TokenId; len], Some(8)));
        bench
    };
    let begins = |bench: &mut Bench, most| {
        let mut n_steps = 0;
        loop {
            n_steps += 1;
            let step = bench.scheduler.next_step(PromptShare::Together(most), &|_| 0);
            bench.scheduler.computed(&step.entries);
            let n_begun = step.entries.iter().filter(|entry| entry.token.wants_row).count();
            if n_begun > 0 {
                return (n_steps, n_begun);
            }
            assert_eq!(step.n_prompt_tokens, sizes.n_batch, "no step has room left");
        }
    };
    assert_eq!(begins(&mut prompts([30, 25, 20]), 80), (3, 3));
    assert_eq!(begins(&mut prompts([30, 25, 20]), 74), (1, 1), "they take too long to wait for each other");
    assert_eq!(begins(&mut prompts([30, 25, 7]), 80), (1, 1), "the short one need not wait");
    assert_eq!(begins(&mut prompts([10, 10, 10]), 80), (1, 3), "they fit into a step anyway");
    // An answer that goes on is not held up, whatever the share says.
    let mut bench = prompts([30, 30, 30]);
    bench.admit(4, vec![9], Some(8));
    bench.step();
    let step = bench.scheduler.next_step(PromptShare::Together(500), &|_| 0);
    assert!(!step.entries.is_empty() && step.n_prompt_tokens == 0, "{step:?}");
}

#[test]
fn branches_of_a_saved_prefix_bring_it_back_once() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(0, prompt(1, 2), Some(1));
    bench.finish(0);
    bench.park(1 << 20);
    (1..4).for_each(|id| bench.admit(id, prompt(1, 10 + id as TokenId), Some(4)));
    bench.finish_all();
    let n_restored = bench.ops.iter().filter(|op| matches!(op, CacheOp::Restore { .. })).count();
    assert_eq!((n_restored, bench.started.len()), (1, 4));
    assert!(bench.started[1..].iter().all(|&(_, n_cached)| n_cached == 100), "{:?}", bench.started);
    // A saved state that holds more is worth it.
    bench.park(1 << 20);
    bench.admit(4, [prompt(1, 5), vec![1]].concat(), Some(9));
    bench.step();
    bench.admit(5, [prompt(1, 12), vec![1]].concat(), Some(1));
    bench.finish(5);
    assert_eq!(bench.started.last(), Some(&(5, 110)));
}

#[test]
fn whoever_starts_from_what_is_refused_is_refused_too() {
    let mut bench = Bench::new(limits(), 4);
    bench.admit(0, prompt(1, 2), Some(1));
    bench.finish(0);
    bench.park(1 << 20);
    (1..4).for_each(|id| bench.admit(id, prompt(1, 10 + id as TokenId), Some(4)));
    let step = bench.scheduler.next_step(PromptShare::Beside(8), &|_| 0);
    let n_copies = step.ops.iter().filter(|op| matches!(op, CacheOp::Copy { .. })).count();
    assert_eq!(n_copies, 2, "two start from what is brought back: {:?}", step.ops);
    let decoder = &mut bench.decoder;
    let mut asked = Vec::new();
    let applied = bench.scheduler.apply(&step.ops, &mut |op| {
        asked.push(op);
        match op {
            CacheOp::Restore { .. } => Err(crate::CacheRefused),
            _ => op.carry_out(decoder, &std::collections::BTreeMap::new()),
        }
    });
    assert!(applied.is_refused && applied.lost.is_empty() && applied.forgotten.len() == 1, "{applied:?}");
    assert!(!asked.iter().any(|op| matches!(op, CacheOp::Copy { .. } | CacheOp::Cut { .. })), "{asked:?}");
    bench.scheduler.check();
    let occupancy = bench.scheduler.occupancy();
    assert_eq!((occupancy.running, occupancy.waiting, occupancy.parked_sequences), (0, 3, 0));
    bench.started.clear();
    bench.finish_all();
    assert!(bench.started.iter().all(|&(_, n_cached)| n_cached == 0), "{:?}", bench.started);
}

#[test]
fn a_window_that_moves_on_between_plan_and_copy_is_noticed() {
    let windowed = DecoderLimits { sliding_window: Some(16), ..limits() };
    let mut bench = Bench::new(windowed, 2);
    bench.admit(0, vec![2; 60], Some(1));
    bench.finish(0);
    bench.park(1 << 20);
    // This one keeps all of its cells, until a saved state needs some.
    bench.decoder.set_overwrites(0);
    bench.admit(1, vec![1; 60], Some(1));
    bench.finish(1);
    bench.decoder.set_overwrites(1);
    bench.started.clear();
    bench.ops.clear();
    bench.admit(2, [vec![2; 60], vec![3; 5]].concat(), Some(2));
    bench.admit(3, [vec![1; 30], vec![4; 5]].concat(), Some(2));
    bench.finish(3);
    let is_copy = |op: &&CacheOp| matches!(op, CacheOp::Copy { n_tokens: 30, .. });
    assert_eq!(bench.ops.iter().filter(is_copy).count(), 1, "a copy was planned: {:?}", bench.ops);
    assert_eq!(bench.started, [(2, 60), (3, 0)]);
}

#[test]
fn a_saved_window_serves_the_same_prompt_again() {
    let mut bench = Bench::new(DecoderLimits { sliding_window: Some(16), ..limits() }, 1);
    bench.admit(0, vec![1; 40], Some(1));
    bench.finish(0);
    bench.park(1 << 20);
    // Its last token is computed again: that is as far as the window of a saved state reaches back.
    bench.admit(1, vec![1; 40], Some(1));
    bench.finish(1);
    bench.park(1 << 20);
    bench.admit(2, vec![1; 39], Some(1));
    bench.finish(2);
    assert_eq!(bench.started, [(0, 0), (1, 39), (2, 0)]);
}

#[test]
fn a_sequence_is_saved_as_it_will_be() {
    let mut bench = Bench::new(DecoderLimits { n_cells: 64, n_sequence_tokens: 64, ..limits() }, 2);
    let overflow = ContextOverflow::Shift { keep: 4 };
    let submission = Submission { id: 0, prompt: vec![1; 50], max_tokens: Some(100), overflow, prefix_step: 1 };
    bench.scheduler.admit(submission).unwrap();
    bench.finish(0);
    assert_eq!(bench.scheduler.parkable(), None, "it is still to be cut to what it kept");
    bench.step();
    assert_eq!(bench.scheduler.parkable().map(|parkable| parkable.n_tokens), Some(4));
    bench.park(1 << 20);
    assert_eq!(bench.saved.values().map(Vec::len).collect::<Vec<_>>(), [4 + 4 * 12]);
}

#[test]
fn guesses_beside_a_window_are_computed_at_once() {
    let cases = [(None, 64, 0, 7), (Some(16), 64, 0, 7), (Some(16), 6, 0, 4), (Some(16), 6, 3, 1), (Some(16), 6, 9, 0)];
    for (sliding_window, n_physical_batch, n_forced, n_guesses) in cases {
        let limits = DecoderLimits { sliding_window, n_physical_batch, n_seqs: 9, ..limits() };
        let mut bench = Bench::new(limits, 2);
        bench.admit(0, vec![1; 20], Some(50));
        bench.admit(1, vec![2; 20], Some(50));
        (0..8).for_each(|_| drop(bench.step()));
        for _ in 0..n_forced {
            bench.scheduler.push_forced(1, 5);
        }
        bench.scheduler.set_guesses(0, &[7; 20]);
        let step = bench.scheduler.next_step(PromptShare::Beside(8), &|_| 0);
        assert_eq!(
            (step.n_guesses, step.n_prompt_tokens),
            (n_guesses, n_forced),
            "{sliding_window:?}, {n_forced} forced"
        );
    }
}
