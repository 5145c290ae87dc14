//! Seeded arrivals, cancels and slow readers against the fake decoder; every invariant is checked after every step, and
//! every token is compared with what the model says without a cache.

use std::collections::BTreeMap;

use super::*;
use crate::fake::{Answers, FakeDecoder, limits, next_of};
use crate::{CacheRefused, Decoder, PrefixSharing};

/// A small generator of random numbers, so that a seed tells the whole story (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Bytes for saved states: about a thousand tokens.
const MOST_SAVED: usize = 12_000;

/// What a request must come to.
struct Expected {
    prompt: Vec<TokenId>,
    generated: Vec<TokenId>,
    shifts: bool,
}

struct World {
    random: Random,
    scheduler: Scheduler,
    decoder: FakeDecoder,
    open: BTreeMap<RequestId, Expected>,
    next_id: RequestId,
    log: Vec<String>,
    n_ended: usize,
    n_cached_tokens: usize,
    saved: BTreeMap<StateKey, Vec<u8>>,
    n_restored: usize,
    /// Operations that the decoder itself could not do.
    n_refused: usize,
    /// Nobody comes for a while.
    calm: bool,
    /// Guesses that were right, and wrong ones.
    n_guesses: [usize; 2],
    /// The decoder does what it is told.
    obeys: bool,
}

impl World {
    fn new(seed: u64, limits: DecoderLimits, n_slots: usize) -> Self {
        let config = SchedulerConfig { limits: limits.clone(), n_slots, max_waiting: 12 };
        let mut decoder = FakeDecoder::new(limits, Answers::Hash);
        // How much a sliding window has lost is different with each seed.
        decoder.set_overwrites(1 + seed % 4);
        Self {
            random: Random(seed),
            scheduler: Scheduler::new(config),
            decoder,
            open: BTreeMap::new(),
            next_id: 0,
            log: Vec::new(),
            n_ended: 0,
            n_cached_tokens: 0,
            saved: BTreeMap::new(),
            n_restored: 0,
            n_refused: 0,
            calm: false,
            n_guesses: [0; 2],
            obeys: false,
        }
    }

    fn arrive(&mut self) {
        if self.calm {
            return;
        }
        let mut prompt = vec![1 + self.random.below(3) as TokenId; 5 + self.random.below(60)];
        let n_own = 1 + self.random.below(30);
        prompt.extend((0..n_own).map(|_| self.random.below(4) as TokenId));
        let max_tokens = (self.random.below(3) > 0).then(|| 1 + self.random.below(40));
        let shifts = self.random.below(4) == 0;
        let overflow = if shifts { ContextOverflow::Shift { keep: 4 } } else { ContextOverflow::Stop };
        let id = self.next_id;
        self.next_id += 1;
        let prefix_step = if self.random.below(5) == 0 { 32 } else { 1 };
        let submission = Submission { id, prompt: prompt.clone(), max_tokens, overflow, prefix_step };
        if self.scheduler.admit(submission).is_ok() {
            self.open.insert(id, Expected { prompt, generated: Vec::new(), shifts });
        }
    }

    fn some_open(&mut self) -> Option<RequestId> {
        let idx = self.random.below(self.open.len().max(1));
        self.open.keys().nth(idx).copied()
    }

    fn disturb(&mut self) {
        if self.random.below(250) == 0 {
            self.calm = !self.calm;
        }
        if self.random.below(3) == 0 {
            self.arrive();
        }
        if self.random.below(25) == 0
            && let Some(id) = self.some_open()
        {
            self.scheduler.cancel(id);
            self.open.remove(&id);
        }
        if self.random.below(10) == 0
            && let Some(id) = self.some_open()
        {
            let resting = self.random.below(2) == 0;
            self.scheduler.set_resting(id, resting);
        }
        if self.random.below(15) == 0 {
            let ids: Vec<_> = self.open.keys().copied().collect();
            ids.into_iter().for_each(|id| self.scheduler.set_resting(id, false));
        }
        if self.random.below(200) == 0
            && let Some(id) = self.some_open()
        {
            self.scheduler.discard(id);
            self.scheduler.cancel(id);
            self.open.remove(&id);
        }
    }

    fn apply(&mut self, ops: &[CacheOp]) -> bool {
        let Self { scheduler, decoder, saved, random, n_restored, n_refused, obeys, .. } = self;
        let mut is_spoilt = false;
        let applied = scheduler.apply(ops, &mut |op| {
            // Now and then a decoder refuses what it usually does.
            let may_refuse = matches!(op, CacheOp::Copy { .. } | CacheOp::Cut { .. } | CacheOp::Restore { .. });
            if may_refuse && !*obeys && random.below(60) == 0 {
                is_spoilt = true;
                return Err(CacheRefused);
            }
            *n_restored += usize::from(matches!(op, CacheOp::Restore { .. }));
            // What was not cut takes room that later operations count on.
            op.carry_out(decoder, saved).inspect_err(|_| *n_refused += usize::from(!is_spoilt))
        });
        assert_eq!(applied.lost, [], "only requests without an answer are refused here");
        applied.forgotten.iter().for_each(|key| drop(saved.remove(key)));
        !applied.is_refused
    }

    /// Saves a cached prefix when nothing is going on, and now and then although something is.
    fn park(&mut self) {
        let excess = if self.random.below(20) == 0 { self.scheduler.oldest_parkable() } else { None };
        let Some(parkable) = excess.or_else(|| self.scheduler.parkable()) else { return };
        if self.random.below(8) == 0 {
            return self.scheduler.not_parked(parkable);
        }
        let state = self.decoder.save(parkable.seq).expect("the fake always saves");
        let first_held = self.decoder.first_held(parkable.seq);
        let dropped = self.scheduler.parked(parkable, first_held, state.len(), MOST_SAVED);
        self.saved.insert(parkable.key, state);
        dropped.iter().for_each(|key| drop(self.saved.remove(key)));
        assert!(self.saved.values().map(Vec::len).sum::<usize>() <= MOST_SAVED, "saved states have a bound");
    }

    /// Guesses what some answers go on with; now and then a guess is wrong.
    fn guess(&mut self) {
        if self.decoder.limits().sharing == PrefixSharing::TakeOverWhole {
            return;
        }
        for (&id, expected) in self.open.iter().filter(|(_, expected)| !expected.shifts) {
            let mut text: Vec<_> = expected.prompt.iter().chain(&expected.generated).copied().collect();
            let n_text = text.len();
            for _ in 0..self.random.below(6) {
                let is_wrong = self.random.below(6) == 0;
                text.push(if is_wrong { TokenId::from(b'!') } else { next_of(&text) });
            }
            self.scheduler.set_guesses(id, &text[n_text..]);
        }
    }

    fn step(&mut self) {
        self.park();
        self.disturb();
        self.guess();
        let share = match self.random.below(28) {
            n if n > 24 => PromptShare::Together(n * 40),
            n if n > 20 => PromptShare::Alone(n - 10),
            n => PromptShare::Beside(n),
        };
        let decoder = &self.decoder;
        let step = self.scheduler.next_step(share, &|seq| decoder.first_held(seq));
        assert!(!step.answers_wait || step.n_prompt_tokens > 0, "answers wait for prompts only");
        self.log.push(format!("{step:?}"));
        self.n_cached_tokens +=
            self.scheduler.take_started().iter().map(|started| started.cached_tokens).sum::<usize>();
        let batch: Vec<_> = step.entries.iter().map(|entry| entry.token).collect();
        if self.apply(&step.ops) && !batch.is_empty() {
            assert!(batch.len() <= self.decoder.limits().n_batch, "the batch has a bound");
            self.decoder.decode(&batch).expect("reservations guarantee room");
            self.scheduler.computed(&step.entries);
            self.answer(&step.entries);
        }
        self.scheduler.check();
    }

    fn answer(&mut self, entries: &[StepEntry]) {
        let rows = entries.iter().enumerate().filter(|(_, entry)| entry.token.wants_row && !entry.is_guess);
        for (idx, entry) in rows {
            let guesses = entries[idx + 1..].iter().take_while(|next| next.is_guess && next.request == entry.request);
            let guesses: Vec<TokenId> = guesses.map(|guess| guess.token.token).collect();
            for n_right in 0..=guesses.len() {
                let token = self.said(idx + n_right);
                if !self.answer_one(entry.request, token, &guesses[n_right..]) {
                    break;
                }
            }
        }
        if entries.iter().any(|entry| entry.is_guess) {
            let ops = self.scheduler.take_ops();
            self.obeys = true;
            self.apply(&ops);
            self.obeys = false;
        }
    }

    /// The token that the model says behind an entry of the step.
    fn said(&mut self, entry_idx: usize) -> TokenId {
        let row = self.decoder.row(entry_idx).expect("a row was asked for").iter().enumerate();
        row.max_by(|(_, a), (_, b)| a.total_cmp(b)).expect("a row has entries").0 as TokenId
    }

    /// Gives an answer its next token; whether the first of `guesses` was that token.
    fn answer_one(&mut self, id: RequestId, token: TokenId, guesses: &[TokenId]) -> bool {
        let expected = self.open.get_mut(&id).expect("only open requests are computed");
        if !expected.shifts {
            let text: Vec<_> = expected.prompt.iter().chain(&expected.generated).copied().collect();
            assert_eq!(token, next_of(&text), "cached equals uncached for request {id}");
        }
        expected.generated.push(token);
        let mut verdict = self.scheduler.push_token(id, token);
        // Now and then tokens follow that are not sampled.
        let forces = self.random.below(5) == 0 && !expected.shifts && guesses.is_empty();
        let n_forced = if forces { self.random.below(100) } else { 0 };
        for forced in (0..n_forced).map(|n| TokenId::from(b'0') + n as TokenId % 10) {
            if verdict == Verdict::LengthReached || token == crate::fake::EOS {
                break;
            }
            expected.generated.push(forced);
            verdict = self.scheduler.push_forced(id, forced);
        }
        if verdict == Verdict::LengthReached || token == crate::fake::EOS {
            self.scheduler.finish(id);
            self.open.remove(&id);
            self.n_ended += 1;
            return false;
        }
        if guesses.is_empty() {
            return false;
        }
        let is_right = guesses[0] == token;
        self.n_guesses[usize::from(!is_right)] += 1;
        if is_right {
            self.scheduler.accept_guess(id);
        } else {
            self.scheduler.drop_guesses(id);
        }
        is_right
    }

    /// No more arrivals: everything must end.
    fn drain(&mut self) {
        self.calm = true;
        for _ in 0..20_000 {
            if self.open.is_empty() {
                break;
            }
            let ids: Vec<_> = self.open.keys().copied().collect();
            ids.into_iter().for_each(|id| self.scheduler.set_resting(id, false));
            let share = [PromptShare::Alone(16), PromptShare::Beside(16), PromptShare::Together(400)];
            let share = share[self.random.below(3)];
            let decoder = &self.decoder;
            let step = self.scheduler.next_step(share, &|seq| decoder.first_held(seq));
            assert!(!step.is_empty(), "open requests {:?} but nothing to do", self.open.keys());
            let batch: Vec<_> = step.entries.iter().map(|entry| entry.token).collect();
            if self.apply(&step.ops) && !batch.is_empty() {
                self.decoder.decode(&batch).expect("reservations guarantee room");
                self.scheduler.computed(&step.entries);
                self.answer(&step.entries);
            }
            self.scheduler.check();
        }
        assert!(self.open.is_empty(), "every request ends");
        let occupancy = self.scheduler.occupancy();
        assert_eq!((occupancy.running, occupancy.waiting, occupancy.cells_running), (0, 0, 0));
    }
}

fn variants() -> Vec<(&'static str, DecoderLimits, usize)> {
    let small = DecoderLimits { n_cells: 300, n_sequence_tokens: 200, n_batch: 32, ..limits() };
    let taken_over = DecoderLimits { sharing: PrefixSharing::TakeOver, ..small.clone() };
    vec![
        ("roomy", limits(), 4),
        ("tight", small.clone(), 4),
        ("one slot", small.clone(), 1),
        ("no spare sequences", DecoderLimits { n_seqs: 4, ..small.clone() }, 4),
        ("window", DecoderLimits { sliding_window: Some(12), ..small.clone() }, 4),
        ("window in pieces", DecoderLimits { sliding_window: Some(12), n_physical_batch: 6, ..small.clone() }, 4),
        ("wide window", DecoderLimits { sliding_window: Some(40), n_physical_batch: 16, ..small.clone() }, 4),
        ("window to take over", DecoderLimits { sliding_window: Some(40), ..taken_over.clone() }, 4),
        ("take over", taken_over, 4),
        ("recurrent", DecoderLimits { sharing: PrefixSharing::TakeOverWhole, can_shift: false, ..small }, 4),
    ]
}

#[test]
fn invariants_hold_over_many_seeded_steps() {
    for (name, limits, n_slots) in variants() {
        let (mut n_restored, mut n_refused) = (0, 0);
        for seed in 0..4 {
            let mut world = World::new(seed, limits.clone(), n_slots);
            (0..2500).for_each(|_| world.step());
            world.drain();
            assert!(world.n_ended > 50, "{name}, seed {seed}: only {} requests ended", world.n_ended);
            n_restored += world.n_restored;
            n_refused += world.n_refused;
            let guessed = world.n_guesses.iter().all(|&n| n > 20);
            assert!(guessed || ["recurrent", "no spare sequences"].contains(&name), "{name}: {:?}", world.n_guesses);
            assert!(world.n_cached_tokens > 0 || name == "recurrent", "{name}, seed {seed}: no prefix was ever reused");
        }
        assert!(n_restored > 0, "{name}: no saved state came back");
        assert!(n_refused == 0 || name.contains("window"), "{name}: {n_refused} operations could not be done");
    }
}

#[test]
fn the_same_seed_makes_the_same_decisions() {
    let run = |seed| {
        let mut world = World::new(seed, limits(), 4);
        (0..1000).for_each(|_| world.step());
        world.log
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
