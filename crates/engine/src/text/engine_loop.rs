//! The thread that owns a decoder: drain, decide, compute, sample, send.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::channel::{Channel, Sent, Terminal};
use super::draft::{Draft, Drafter};
use super::guard::{Forcing, Guard, MaskThread, Patience, Ruling};
use super::guessing::{Guesses, Guessing};
use super::pacer::{Pacer, PromptOutlook, PromptPart};
use super::parking::ParkMeter;
use super::request::{EndOfGeneration, Ended, FinishReason, PrefixReuse, Queued, TokenEvent};
use super::{Shared, TextConfig, TextStats, lock};
use crate::sampling::{Sampled, Sampler, Scratch};
use crate::scheduler::{
    CacheOp, Parkable, RequestId, Scheduler, SchedulerConfig, StateKey, Step, StepEntry, Submission, Verdict,
};
use crate::{Constraint, ContextOverflow, DecodeError, Decoder, DecoderLimits, EngineError, TokenId, Tokenizer};

/// A decoder that fails this often in a row is dead.
const MAX_FAILURES: usize = 3;

/// After this much quiet, finished prefixes leave the cache for main memory.
const IDLE: Duration = Duration::from_millis(20);

/// A request the thread knows.
struct Live {
    channel: Arc<Channel>,
    sampler: Sampler,
    end_of_generation: EndOfGeneration,
    /// When it got its slot.
    started: Option<Instant>,
    /// What the answer must look like, until it has its slot.
    constraint: Option<Box<dyn Constraint>>,
    guard: Guard,
    forcing: Forcing,
    /// The row of the last step, `[n_vocab]`, kept because the mask for it is late.
    late_row: Option<Vec<f32>>,
    /// How long it may run.
    time_limit: Option<Duration>,
    /// What may come next, if its tokens may be guessed.
    guesses: Option<Guesses>,
}

/// The state of the thread.
pub(super) struct EngineLoop<D> {
    decoder: D,
    tokenizer: Arc<dyn Tokenizer>,
    scheduler: Scheduler,
    shared: Arc<Shared>,
    overflow: ContextOverflow,
    live: BTreeMap<RequestId, Live>,
    pacer: Pacer,
    parking: ParkMeter,
    guessing: Guessing,
    /// Buffers for sampling, shared by all sequences: one for each thread that samples.
    scratches: Mutex<Vec<Scratch>>,
    /// States of finished prefixes that have left the cache.
    saved: BTreeMap<StateKey, Vec<u8>>,
    most_saved_bytes: usize,
    stats: TextStats,
    n_failures: usize,
    /// Started with the first request that has a constraint.
    masks: Option<MaskThread>,
}

/// Runs `body`; a panic inside kills the engine, not the process.
pub(super) fn guard(shared: &Shared, body: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let reason = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown panic");
        tracing::error!(model = shared.name, reason, "the engine panicked");
        shared.die(&format!("internal error: {reason}"));
    }
}

/// How an answer goes on.
enum Chosen {
    /// With this token.
    Token(Sampled),
    /// With these, as nothing else can follow.
    Forced(Vec<TokenId>),
    /// Not at all: its constraint says that the text is complete.
    Complete,
}

/// An answer whose next token is chosen from its row.
struct Choice<'a> {
    sampler: &'a mut Sampler,
    late_row: &'a mut Option<Vec<f32>>,
    ruling: Option<Ruling>,
    /// `None` where the mask for the row is late.
    chosen: Option<Result<Chosen, EngineError>>,
}

impl Choice<'_> {
    fn make(&mut self, scratches: &Mutex<Vec<Scratch>>, row: Result<&[f32], EngineError>) {
        let Some(ruling) = self.ruling.take() else { return };
        self.chosen = match row {
            // The others go on; this one is sampled when its mask comes.
            Ok(row) if ruling == Ruling::Late => {
                *self.late_row = Some(row.to_vec());
                None
            }
            Ok(row) => Some(choose(self.sampler, scratches, row, ruling)),
            Err(error) => Some(Err(error)),
        };
    }

    /// What came out, once all rows were looked at.
    fn end(self) -> Option<Result<Chosen, EngineError>> {
        match self.ruling {
            Some(_) => Some(Err(EngineError::Decode { reason: "the threads that sample ended early".into() })),
            None => self.chosen,
        }
    }
}

/// The next token of an answer from its row, under its constraint's ruling.
fn choose(
    sampler: &mut Sampler,
    scratches: &Mutex<Vec<Scratch>>,
    row: &[f32],
    ruling: Ruling,
) -> Result<Chosen, EngineError> {
    let mask = match ruling {
        Ruling::All => None,
        Ruling::These(mask) => Some(mask),
        Ruling::Complete => return Ok(Chosen::Complete),
        Ruling::Forced(tokens) => {
            tokens.iter().for_each(|&token| sampler.accept(token));
            return Ok(Chosen::Forced(tokens));
        }
        Ruling::Failed(error) => return Err(error.into()),
        Ruling::Late => return Err(EngineError::Decode { reason: "a mask is late; this is a bug".into() }),
    };
    let mut scratch = lock(scratches).pop().unwrap_or_default();
    let sampled = sampler.sample_with(&mut scratch, row, mask.as_deref());
    lock(scratches).push(scratch);
    let sampled = sampled?;
    sampler.accept(sampled.token);
    Ok(Chosen::Token(sampled))
}

impl<D: Decoder> EngineLoop<D> {
    pub(super) fn new(
        (decoder, draft): (D, Option<Draft>),
        tokenizer: Arc<dyn Tokenizer>,
        config: &TextConfig,
        shared: Arc<Shared>,
    ) -> Self {
        let limits = decoder.limits().clone();
        let drafter = draft.and_then(|draft| {
            let drafter = Drafter::new(draft, &limits, config.n_slots);
            if drafter.is_none() {
                tracing::warn!(model = config.name, "the draft model is not used: its state cannot be cut");
            }
            drafter
        });
        // Requests pass through the queue on their way to a slot, so those that will find one count here too.
        let max_waiting = config.max_waiting + config.n_slots;
        let scheduler = Scheduler::new(SchedulerConfig { limits, n_slots: config.n_slots, max_waiting });
        Self {
            decoder,
            tokenizer,
            scheduler,
            shared,
            overflow: config.overflow,
            live: BTreeMap::new(),
            pacer: Pacer::default(),
            parking: ParkMeter::default(),
            guessing: Guessing::new(drafter),
            scratches: Mutex::default(),
            saved: BTreeMap::new(),
            most_saved_bytes: config.most_saved_bytes,
            stats: TextStats::default(),
            n_failures: 0,
            masks: None,
        }
    }

    pub(super) fn limits(&self) -> &DecoderLimits {
        self.decoder.limits()
    }

    /// Works until the last handle is dropped.
    pub(super) fn run(mut self) {
        loop {
            self.accept();
            self.follow_readers();
            self.sample_late();
            if self.shared.inbox.is_closed() {
                return self.end_all();
            }
            // What is saved and what is planned is about the cache as it will be.
            let ops = self.scheduler.take_ops();
            self.apply(&ops);
            if self.scheduler.occupancy().waiting > 0 {
                while let Some(parkable) = self.scheduler.parkable() {
                    self.park(parkable);
                }
            }
            let parking_pays = self.parking.pays(self.pacer.token_secs());
            if parking_pays && self.parking.may_interrupt(Instant::now()) {
                self.scheduler.excess().into_iter().for_each(|parkable| self.park(parkable));
            }
            let (position, n_tokens) = self.scheduler.prompts_left();
            let n_answers = self.scheduler.n_answers();
            let share = self.pacer.share(PromptOutlook { position, n_tokens, n_answers });
            if n_tokens == 0 {
                self.guess(n_answers);
            }
            let decoder = &self.decoder;
            let step = self.scheduler.next_step(share, &|seq| decoder.first_held(seq));
            let may_compute = self.apply(&step.ops);
            self.note_started();
            self.publish();
            if step.is_empty() {
                if cfg!(debug_assertions) {
                    self.scheduler.check();
                }
                match self.scheduler.parkable().filter(|_| parking_pays) {
                    Some(parkable) if self.shared.inbox.is_quiet_for(IDLE) => self.park(parkable),
                    Some(_) => {}
                    None => {
                        let pacer = &self.pacer;
                        self.shared.inbox.wait(&|n_tokens| pacer.gather(n_tokens));
                    }
                }
            } else if may_compute && !step.entries.is_empty() {
                self.run_step(&step);
            }
        }
    }

    /// Takes what has arrived into the scheduler.
    fn accept(&mut self) {
        for Queued { id, request, sampler, channel, lookup } in self.shared.inbox.take() {
            let overflow = request.overflow.unwrap_or(self.overflow);
            let samples = request.sampling.top_logprobs.is_some() || overflow != ContextOverflow::Stop;
            let submission = Submission {
                id,
                prompt: request.prompt,
                max_tokens: request.max_tokens,
                overflow,
                prefix_step: match request.prefix_reuse {
                    PrefixReuse::Never => usize::MAX,
                    PrefixReuse::Allowed if request.sampling.seed.is_some() => self.decoder.limits().n_batch,
                    PrefixReuse::Allowed => 1,
                },
            };
            let live = Live {
                channel,
                sampler,
                end_of_generation: request.end_of_generation,
                started: None,
                constraint: request.constraint.map(|handle| handle.0),
                guard: Guard::Free,
                forcing: if samples { Forcing::Samples } else { Forcing::Takes },
                time_limit: request.time_limit,
                late_row: None,
                guesses: lookup.map(Guesses::new),
            };
            self.live.insert(id, live);
            if let Err(error) = self.scheduler.admit(submission) {
                self.end(id, Err(error));
            }
        }
    }

    /// Readers that have gone cancel their request; readers that caught up wake it.
    fn follow_readers(&mut self) {
        let gone: Vec<RequestId> =
            self.live.iter().filter(|(_, live)| live.channel.reader_is_gone()).map(|(&id, _)| id).collect();
        for id in gone {
            self.scheduler.cancel(id);
            // Nobody reads the end; it is sent so that every request has one.
            self.end(id, Ok(Ended { reason: FinishReason::Stop, n_hidden_tokens: 0, at: Instant::now() }));
        }
        let is_late = |live: &Live| {
            let started = live.started?;
            live.time_limit.filter(|limit| started.elapsed() >= *limit)
        };
        let late: Vec<_> = self.live.iter().filter_map(|(&id, live)| is_late(live).map(|limit| (id, limit))).collect();
        for (id, limit) in late {
            self.scheduler.cancel(id);
            self.end(id, Err(EngineError::TookTooLong { limit_secs: limit.as_secs() }));
        }
        for (&id, live) in &self.live {
            self.scheduler.set_resting(id, live.channel.is_full());
        }
    }

    fn note_started(&mut self) {
        let started = self.scheduler.take_started();
        if started.is_empty() {
            return;
        }
        let mut registry = lock(&self.shared.registry);
        for started in started {
            let Some(live) = self.live.get_mut(&started.id) else { continue };
            if live.started.replace(Instant::now()).is_none() {
                registry.n_waiting = registry.n_waiting.saturating_sub(1);
            }
            live.channel.set_started(started.cached_tokens);
            if let Some(constraint) = live.constraint.take() {
                if self.masks.is_none() {
                    let inbox = Arc::clone(&self.shared.inbox);
                    let thread = MaskThread::start(&self.shared.name, inbox);
                    self.masks = thread.inspect_err(|error| tracing::error!(%error, "no thread for masks")).ok();
                }
                live.guard = Guard::new(Some(constraint), live.forcing, self.masks.as_ref());
            }
            self.stats.prompt_tokens_cached += started.cached_tokens as u64;
        }
    }

    fn publish(&mut self) {
        self.stats.occupancy = self.scheduler.occupancy();
        *lock(&self.shared.stats) = self.stats;
    }

    fn run_step(&mut self, step: &Step) {
        let batch: Vec<_> = step.entries.iter().map(|entry| entry.token).collect();
        let begun = Instant::now();
        match self.decoder.decode(&batch) {
            Ok(()) => {
                let took = begun.elapsed();
                self.learn(step, took);
                self.n_failures = 0;
                self.stats.steps += 1;
                self.stats.decode_micros += took.as_micros() as u64;
                self.stats.prompt_tokens_computed += step.n_prompt_tokens as u64;
                self.scheduler.computed(&step.entries);
                self.sample(&step.entries);
            }
            Err(DecodeError::NoRoom) => self.relieve(&step.entries),
            Err(DecodeError::Failed { reason }) => self.fail_step(&step.entries, &reason),
        }
    }

    /// Takes the time of a step into account.
    fn learn(&mut self, step: &Step, took: Duration) {
        let n_answers = step.entries.len() - step.n_prompt_tokens - step.n_guesses;
        if step.n_guesses > 0 {
            // Tokens that were forced on other answers cost something, too.
            if let Some(plain) = self.pacer.plain_secs(n_answers).filter(|_| step.n_prompt_tokens == 0) {
                self.guessing.meter().record(plain, step.n_guesses, took);
            }
            self.pacer.grow_old(n_answers);
            self.stats.guesses += step.n_guesses as u64;
            return;
        }
        let prompts = &step.entries[n_answers..];
        let prompt = PromptPart {
            n_tokens: step.n_prompt_tokens,
            positions: prompts.iter().map(|entry| entry.token.position).sum(),
            begins_answer: prompts.iter().any(|entry| entry.token.wants_row),
        };
        self.pacer.record(n_answers, prompt, took, step.answers_wait);
    }

    /// Proposes tokens for the next step, where checking them is expected to be quicker than sampling them one by one.
    fn guess(&mut self, n_answers: usize) {
        let Some(plain) = self.pacer.plain_secs(n_answers).filter(|_| !self.pacer.wants_plain(n_answers)) else {
            return;
        };
        let is_next = |live: &Live| live.started.is_some() && live.late_row.is_none() && !live.channel.is_full();
        let live = self.live.iter_mut().filter(|(_, live)| is_next(live));
        let answers = live.filter_map(|(&id, live)| Some((id, live.guesses.as_mut()?))).collect();
        for (id, guesses) in self.guessing.choose(&self.shared.name, plain, n_answers, answers) {
            self.scheduler.set_guesses(id, &guesses);
        }
    }

    /// Changes the cache; says whether the batch of the step still makes sense.
    fn apply(&mut self, ops: &[CacheOp]) -> bool {
        let (decoder, saved) = (&mut self.decoder, &self.saved);
        let applied = self.scheduler.apply(ops, &mut |op| op.carry_out(decoder, saved));
        if applied.is_refused {
            tracing::debug!(model = self.shared.name, ?ops, "the cache refused; the prompt is computed again");
        }
        applied.forgotten.iter().for_each(|key| drop(self.saved.remove(key)));
        applied.lost.into_iter().for_each(|id| self.fail(id, "the context could not be shifted or cut"));
        !applied.is_refused
    }

    /// Moves a finished prefix out of the cache, where every step would pay for its cells.
    fn park(&mut self, parkable: Parkable) {
        let first_held = self.decoder.first_held(parkable.seq);
        let begun = Instant::now();
        match self.decoder.save(parkable.seq).filter(|state| state.len() <= self.most_saved_bytes) {
            Some(state) => {
                self.parking.record(parkable.n_tokens, begun.elapsed(), Instant::now());
                let dropped = self.scheduler.parked(parkable, first_held, state.len(), self.most_saved_bytes);
                self.saved.insert(parkable.key, state);
                dropped.iter().for_each(|key| drop(self.saved.remove(key)));
            }
            None => self.scheduler.not_parked(parkable),
        }
    }

    /// The cache is full although the count says otherwise: finished prefixes go first, then the youngest request.
    fn relieve(&mut self, entries: &[StepEntry]) {
        if self.scheduler.occupancy().cached_sequences > 0 {
            return self.scheduler.clear_cached();
        }
        let youngest = entries.iter().map(|entry| entry.request).max().expect("a step that failed has entries");
        self.fail(youngest, "the context has no room left; raise context_size or send less at once");
    }

    fn fail_step(&mut self, entries: &[StepEntry], reason: &str) {
        tracing::error!(model = self.shared.name, reason, "a step failed");
        let mut requests: Vec<RequestId> = entries.iter().map(|entry| entry.request).collect();
        requests.dedup();
        requests.into_iter().for_each(|id| self.fail(id, reason));
        self.n_failures += 1;
        if self.n_failures >= MAX_FAILURES {
            self.shared.die(&format!("{MAX_FAILURES} steps in a row failed, the last one with: {reason}"));
        }
    }

    fn fail(&mut self, id: RequestId, reason: &str) {
        self.scheduler.discard(id);
        self.end(id, Err(EngineError::Decode { reason: reason.to_owned() }));
    }

    fn sample(&mut self, entries: &[StepEntry]) {
        // Whoever samples the row before a guess looks at the guess's own.
        let sampled = (0..entries.len()).filter(|&idx| entries[idx].token.wants_row && !entries[idx].is_guess);
        let is_guessed = |&idx: &usize| entries.get(idx + 1).is_some_and(|next| next.is_guess);
        let (guessed, plain): (Vec<usize>, Vec<usize>) = sampled.partition(is_guessed);
        self.sample_plain(entries, &plain);
        guessed.into_iter().for_each(|entry_idx| self.sample_guessed(entries, entry_idx));
    }

    /// Samples answers from one row each: those whose mask is here first, several at once where the decoder has threads
    /// for that. The others get the time that takes, and a moment more.
    fn sample_plain(&mut self, entries: &[StepEntry], entry_idxs: &[usize]) {
        let wanted: BTreeMap<RequestId, usize> =
            entry_idxs.iter().map(|&entry_idx| (entries[entry_idx].request, entry_idx)).collect();
        let late = self.sample_rows(&wanted, Patience::None);
        if !late.is_empty() {
            let late = late.into_iter().map(|id| (id, wanted[&id])).collect();
            self.sample_rows(&late, Patience::Short);
        }
    }

    /// Samples these answers, each from the row of an entry. Those whose mask is late are left out, and named, while
    /// there is more patience to be had; then they are sampled when it comes.
    fn sample_rows(&mut self, wanted: &BTreeMap<RequestId, usize>, mut patience: Patience) -> Vec<RequestId> {
        let keeps_rows = patience == Patience::Short;
        let (mut ids, mut rows, mut choices, mut late, mut n_live) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
        for (&id, live) in &mut self.live {
            let Some(&entry_idx) = wanted.get(&id) else { continue };
            n_live += 1;
            let ruling = live.guard.ruling(patience);
            if ruling == Ruling::Late {
                // One wait for all.
                patience = Patience::None;
                late.push(id);
                if !keeps_rows {
                    continue;
                }
            }
            ids.push(id);
            rows.push(entry_idx);
            let Live { sampler, late_row, .. } = live;
            choices.push(Mutex::new(Choice { sampler, late_row, ruling: Some(ruling), chosen: None }));
        }
        assert_eq!(n_live, wanted.len(), "a request in a step is live; this is a bug");
        let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::default();
        let scratches = &self.scratches;
        self.decoder.for_each_row(&rows, &|idx, row| {
            let make = || lock(&choices[idx]).make(scratches, row);
            if let Err(reason) = catch_unwind(AssertUnwindSafe(make)) {
                *lock(&panic) = Some(reason);
            }
        });
        if let Some(reason) = lock(&panic).take() {
            resume_unwind(reason);
        }
        let end = |choice: Mutex<Choice<'_>>| choice.into_inner().unwrap_or_else(PoisonError::into_inner).end();
        let chosen: Vec<_> = choices.into_iter().map(end).collect();
        for (id, chosen) in ids.into_iter().zip(chosen).filter_map(|(id, chosen)| Some((id, chosen?))) {
            self.deliver(id, chosen);
        }
        late
    }

    /// Samples an answer whose next tokens were guessed: each row holds as long as the guesses before it were right. A
    /// constraint is asked before each, as if its row had come alone.
    fn sample_guessed(&mut self, entries: &[StepEntry], first_idx: usize) {
        let id = entries[first_idx].request;
        let mut entry_idx = first_idx;
        // A row was asked for; a request that has ended has no more of them.
        while let Some(live) = self.live.get_mut(&id) {
            let ruling = live.guard.ruling(Patience::Short);
            let chosen = match self.decoder.row(entry_idx) {
                Ok(row) if ruling == Ruling::Late => {
                    // It is sampled when its mask comes; the others do not wait for what may come behind it.
                    live.late_row = Some(row.to_vec());
                    self.scheduler.drop_guesses(id);
                    break;
                }
                Ok(row) => choose(&mut live.sampler, &self.scratches, row, ruling),
                Err(error) => Err(error),
            };
            let sampled = match &chosen {
                Ok(Chosen::Token(sampled)) => Some(sampled.token),
                Ok(Chosen::Forced(_) | Chosen::Complete) | Err(_) => None,
            };
            let guess = entries.get(entry_idx + 1).filter(|next| next.is_guess && next.request == id);
            let is_right = sampled.is_some() && guess.map(|guess| guess.token.token) == sampled;
            if !is_right {
                // The end of the answer may come with this token, and with it what becomes of its cells.
                self.scheduler.drop_guesses(id);
                self.deliver(id, chosen);
                break;
            }
            self.deliver(id, chosen);
            if !self.live.contains_key(&id) {
                break;
            }
            self.stats.guesses_right += 1;
            self.scheduler.accept_guess(id);
            entry_idx += 1;
        }
    }

    /// Samples what waited for a mask that is here now.
    fn sample_late(&mut self) {
        let waiting = self.live.iter().filter(|(_, live)| live.late_row.is_some());
        for id in waiting.map(|(&id, _)| id).collect::<Vec<_>>() {
            let Some(live) = self.live.get_mut(&id) else { continue };
            let ruling = live.guard.ruling(Patience::None);
            if ruling == Ruling::Late {
                continue;
            }
            if let Some(row) = live.late_row.take() {
                let sampled = choose(&mut live.sampler, &self.scratches, &row, ruling);
                self.deliver(id, sampled);
            }
        }
    }

    /// Sends a token to its reader, or ends the answer.
    fn deliver(&mut self, id: RequestId, chosen: Result<Chosen, EngineError>) {
        match chosen {
            Ok(Chosen::Token(sampled)) => self.deliver_token(id, sampled.token, sampled.logprob),
            Ok(Chosen::Forced(tokens)) => self.deliver_forced(id, &tokens),
            Ok(Chosen::Complete) => {
                self.scheduler.finish(id);
                self.end(id, Ok(Ended { reason: FinishReason::Stop, n_hidden_tokens: 0, at: Instant::now() }));
            }
            Err(error) => {
                self.scheduler.discard(id);
                self.end(id, Err(error));
            }
        }
    }

    fn deliver_token(&mut self, id: RequestId, token: TokenId, logprob: Option<crate::sampling::TokenLogprob>) {
        self.stats.tokens_generated += 1;
        let at = Instant::now();
        let live = &self.live[&id];
        let stops = live.end_of_generation == EndOfGeneration::Stops;
        if stops && self.tokenizer.end_of_generation().binary_search(&token).is_ok() {
            self.scheduler.finish(id);
            return self.end(id, Ok(Ended { reason: FinishReason::Stop, n_hidden_tokens: 1, at }));
        }
        let sent = live.channel.send(TokenEvent { token, logprob, at });
        let verdict = self.scheduler.push_token(id, token);
        match (sent, verdict) {
            (Sent::ReaderGone, _) => {} // the next look at the readers cancels it
            (Sent::Ok | Sent::Full, Verdict::LengthReached) => {
                self.scheduler.finish(id);
                self.end(id, Ok(Ended { reason: FinishReason::Length, n_hidden_tokens: 0, at }));
            }
            (Sent::Full | Sent::Ok, Verdict::Continue) => {
                self.scheduler.set_resting(id, sent == Sent::Full);
                if let Some(live) = self.live.get_mut(&id) {
                    live.guard.accept(token, live.forcing, self.masks.as_ref());
                    if let Some(verdict) = live.guesses.as_mut().and_then(|guesses| guesses.push(token)) {
                        self.guessing.learn(verdict);
                    }
                }
            }
        }
    }

    /// Sends tokens that follow without a choice; the model computes them together in the next step.
    fn deliver_forced(&mut self, id: RequestId, tokens: &[TokenId]) {
        for &token in tokens {
            self.stats.tokens_generated += 1;
            let at = Instant::now();
            let sent = self.live[&id].channel.send(TokenEvent { token, logprob: None, at });
            let verdict = self.scheduler.push_forced(id, token);
            if let Some(guesses) = self.live.get_mut(&id).and_then(|live| live.guesses.as_mut()) {
                // No model chose it, so it says nothing about the draft model.
                guesses.push(token);
            }
            match (sent, verdict) {
                (Sent::ReaderGone, _) => return, // the next look at the readers cancels it
                (Sent::Ok | Sent::Full, Verdict::LengthReached) => {
                    self.scheduler.finish(id);
                    return self.end(id, Ok(Ended { reason: FinishReason::Length, n_hidden_tokens: 0, at }));
                }
                (Sent::Full | Sent::Ok, Verdict::Continue) => self.scheduler.set_resting(id, sent == Sent::Full),
            }
        }
    }

    /// Sends the terminal event and forgets the request.
    fn end(&mut self, id: RequestId, terminal: Terminal) {
        let Some(live) = self.live.remove(&id) else { return };
        self.guessing.release(id);
        {
            let mut registry = lock(&self.shared.registry);
            registry.open.remove(&id);
            match live.started {
                Some(started) => {
                    let secs = started.elapsed().as_secs_f64();
                    registry.service_secs += 0.1 * (secs - registry.service_secs);
                }
                None => registry.n_waiting = registry.n_waiting.saturating_sub(1),
            }
        }
        // Whoever reads the end must find it in the numbers.
        self.publish();
        live.channel.end(terminal);
    }

    /// The model is unloaded: whoever still waits is told.
    fn end_all(mut self) {
        self.accept();
        let ids: Vec<RequestId> = self.live.keys().copied().collect();
        for id in ids {
            self.end(id, Err(EngineError::Unloaded { model: self.shared.name.clone() }));
        }
    }
}
