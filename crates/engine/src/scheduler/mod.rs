//! Continuous batching as a pure state machine: no clock, no model, no channel.
//!
//! The caller drives it in a fixed rhythm: [`Scheduler::admit`] and [`Scheduler::cancel`] as requests come and go,
//! then [`Scheduler::next_step`] (cache operations, then a batch), [`Scheduler::computed`] once the model has computed
//! the batch, and [`Scheduler::push_token`] for every sampled token. With the same calls it makes the same decisions.
//!
//! A request reserves its prompt and its answer when it is admitted, so that a running request is never thrown out for
//! another one. Prefixes are shared with running and finished requests alike; a request whose prefix is just being
//! computed by another one waits for it instead of computing it again.

mod admission;
mod cells;
mod parked;
#[cfg(test)]
mod simulation;
mod step;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use cells::{CellId, CellPool, Holder};
use parked::Parked;

use crate::{ContextOverflow, DecoderLimits, EngineError, SeqId, TokenId};

pub use parked::{Parkable, StateKey};
pub use step::{Applied, CacheOp, PromptShare, Step, StepEntry};

/// Identifies a request within one engine.
pub type RequestId = u64;

/// Sizes the scheduler works with.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// What the decoder can do.
    pub limits: DecoderLimits,
    /// Requests that may run at the same time; fewer than `limits.n_seqs` leaves room for cached prefixes.
    pub n_slots: usize,
    /// Requests that may wait for a slot or for cells.
    pub max_waiting: usize,
}

/// A request as the scheduler sees it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Unique in this engine.
    pub id: RequestId,
    /// The prompt, at least one token.
    pub prompt: Vec<TokenId>,
    /// Most tokens to generate; `None` grows as long as there is room.
    pub max_tokens: Option<usize>,
    /// What happens at the end of the context.
    pub overflow: ContextOverflow,
    /// A reused prefix is a multiple of this long; 1 reuses whatever is there. With the size of a batch, the rest of
    /// the prompt is computed in the same pieces as without a cache, so that a seeded answer can be made again.
    pub prefix_step: usize,
}

/// A request in the queue.
#[derive(Debug)]
struct Waiting {
    submission: Submission,
    reuse: Reuse,
}

/// May a request start from a cached prefix?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Allowed,
    /// The decoder has refused it once.
    Never,
}

/// Whether an answer may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer goes on.
    Continue,
    /// No more tokens are allowed.
    LengthReached,
}

/// Numbers for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Slots there are.
    pub slots: usize,
    /// Cells there are.
    pub cells: usize,
    /// Cells of running requests.
    pub cells_running: usize,
    /// Cells that only cached prefixes hold.
    pub cells_cached: usize,
    /// Cached prefixes.
    pub cached_sequences: usize,
    /// Prefixes saved outside the cache.
    pub parked_sequences: usize,
}

/// A request that has a slot.
#[derive(Debug)]
struct Running {
    id: RequestId,
    seq: SeqId,
    /// Prompt, then what was generated.
    tokens: Vec<TokenId>,
    /// One cell per computed token; `cells.len()` is the computed length.
    cells: Vec<CellId>,
    /// Tokens this sequence may reach.
    reserved_len: usize,
    /// Tokens of the prompt that were there already.
    reused_len: usize,
    overflow: ContextOverflow,
    /// From where on the prefix it began with was held. The decoder knows that only after the step that brings it.
    first_held: usize,
    /// Tokens up to here are what the model computed for exactly this text; a context shift lowers it.
    clean_len: usize,
    /// The reader is slow: no further token for now.
    resting: bool,
    /// Tokens that may follow, to be checked in the next step.
    guesses: Vec<TokenId>,
    /// Guesses that the model has computed behind what counts, until they are accepted or dropped.
    n_unsettled: usize,
    prefix_step: usize,
    /// Tokens sampled so far.
    n_generated: usize,
    /// Most tokens to sample.
    max_tokens: Option<usize>,
}

impl Running {
    fn computed_len(&self) -> usize {
        self.cells.len()
    }

    /// Tokens that wait to be computed; 1 while the answer is generated.
    fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed_len()
    }

    fn is_decoding(&self) -> bool {
        self.n_generated > 0 && self.uncomputed() > 0
    }

    /// Cells it may still ask for.
    fn outstanding(&self) -> usize {
        self.reserved_len - self.computed_len()
    }

    /// Computed tokens that another request may share.
    fn shareable_len(&self) -> usize {
        self.computed_len().min(self.clean_len)
    }
}

/// A finished sequence kept for its prefix; `tokens.len() == cells.len()`.
#[derive(Debug)]
struct Cached {
    seq: SeqId,
    tokens: Vec<TokenId>,
    cells: Vec<CellId>,
    /// Value of the scheduler's use counter when it was last useful.
    last_used: u64,
    /// It cannot be saved outside the cache.
    stays: bool,
}

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: CellPool,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    cached: Vec<Cached>,
    parked: Vec<Parked>,
    free_seqs: Vec<SeqId>,
    /// Counts uses of cached prefixes, for eviction by age.
    use_counter: u64,
    /// Cache operations that must reach the decoder before the next batch.
    pending_ops: Vec<CacheOp>,
    /// Started requests and how much of their prompt was reused, not yet reported.
    started: Vec<Started>,
}

/// A request got its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The request.
    pub id: RequestId,
    /// Prompt tokens that need not be computed.
    pub cached_tokens: usize,
}

/// Tokens reserved for an answer without a limit, and the step in which such a reservation grows.
const DEFAULT_RESERVE: usize = 4096;

impl Scheduler {
    /// An empty scheduler.
    ///
    /// # Panics
    /// When the sizes contradict each other: no slot, more slots than sequences or than tokens in a batch.
    pub fn new(config: SchedulerConfig) -> Self {
        assert!(config.n_slots > 0, "at least one slot");
        assert!(config.n_slots <= config.limits.n_seqs, "a slot needs a sequence");
        assert!(config.n_slots <= config.limits.n_batch, "every running request must fit into one batch");
        assert!(config.limits.n_sequence_tokens <= config.limits.n_cells, "one request fits into the cache");
        let n_seqs = u32::try_from(config.limits.n_seqs).expect("sequence ids are 32 bits");
        Self {
            pool: CellPool::new(config.limits.n_cells),
            waiting: VecDeque::new(),
            running: Vec::new(),
            cached: Vec::new(),
            parked: Vec::new(),
            free_seqs: (0..n_seqs).rev().collect(),
            use_counter: 0,
            pending_ops: Vec::new(),
            started: Vec::new(),
            config,
        }
    }

    /// Takes a request into the queue.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::ContextLengthExceeded`], [`EngineError::Overloaded`].
    pub fn admit(&mut self, submission: Submission) -> Result<(), EngineError> {
        check_prompt_length(submission.prompt.len(), self.config.limits.n_sequence_tokens)?;
        if self.waiting.len() >= self.config.max_waiting {
            return Err(EngineError::Overloaded {
                waiting: self.waiting.len(),
                limit: self.config.max_waiting,
                retry_after_secs: 1,
            });
        }
        self.waiting.push_back(Waiting { submission, reuse: Reuse::Allowed });
        Ok(())
    }

    /// Ends a request wherever it is; what it computed stays as a cached prefix. Unknown ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| waiting.submission.id != id);
        self.finish(id);
    }

    /// Ends a running request; its computed tokens stay as a cached prefix. Unknown ids are ignored.
    pub fn finish(&mut self, id: RequestId) {
        let Some(idx) = self.running.iter().position(|running| running.id == id) else { return };
        self.drop_guesses(id);
        let mut ended = self.running.remove(idx);
        self.started.retain(|started| started.id != id);
        let keep_len = ended.shareable_len();
        self.cut_running(&mut ended, keep_len);
        ended.tokens.truncate(keep_len);
        self.keep_as_cached(ended);
    }

    /// Marks a request whose reader is slow (no step) or ready again. Unknown ids are ignored.
    pub fn set_resting(&mut self, id: RequestId, resting: bool) {
        if let Some(running) = self.running.iter_mut().find(|running| running.id == id) {
            running.resting = resting;
        }
    }

    /// Requests that got a slot since the last call.
    pub fn take_started(&mut self) -> Vec<Started> {
        std::mem::take(&mut self.started)
    }

    /// Records a sampled token and says whether the request may go on.
    ///
    /// # Panics
    /// When `id` is not running or its last token is not computed yet.
    pub fn push_token(&mut self, id: RequestId, token: TokenId) -> Verdict {
        let idx = self.running_idx(id);
        assert_eq!(self.running[idx].uncomputed(), 0, "a token is sampled after the last one was computed");
        self.push(idx, token)
    }

    /// Adds a token that follows without being sampled: there may be others before it that are not computed yet.
    ///
    /// # Panics
    /// As [`Scheduler::push_token`], and for an answer whose context shifts: what is not computed cannot be moved.
    pub fn push_forced(&mut self, id: RequestId, token: TokenId) -> Verdict {
        let idx = self.running_idx(id);
        assert_eq!(self.running[idx].overflow, ContextOverflow::Stop, "a context with uncomputed tokens never shifts");
        self.push(idx, token)
    }

    fn push(&mut self, idx: usize, token: TokenId) -> Verdict {
        self.running[idx].tokens.push(token);
        self.running[idx].n_generated += 1;
        if self.running[idx].max_tokens == Some(self.running[idx].n_generated) {
            return Verdict::LengthReached;
        }
        if self.running[idx].tokens.len() < self.running[idx].reserved_len || self.make_longer(idx) {
            Verdict::Continue
        } else {
            Verdict::LengthReached
        }
    }

    /// Has the next step check `guesses` for what follows the last token of an answer, as far as there is room: each gets
    /// a row. Unknown ids, and answers with more than one token to compute, are ignored.
    pub fn set_guesses(&mut self, id: RequestId, guesses: &[TokenId]) {
        let Some(running) = self.running.iter_mut().find(|running| running.id == id) else { return };
        if running.uncomputed() != 1 || !running.is_decoding() {
            return;
        }
        let until_limit = running.max_tokens.map_or(usize::MAX, |most| most.saturating_sub(running.n_generated + 1));
        let room = running.reserved_len - running.tokens.len();
        running.guesses.clear();
        running.guesses.extend(&guesses[..guesses.len().min(until_limit).min(room)]);
    }

    /// The last token that was pushed is the first guess that is not settled: the model has computed it.
    ///
    /// # Panics
    /// When there is no such guess.
    pub fn accept_guess(&mut self, id: RequestId) {
        let idx = self.running_idx(id);
        assert_eq!(self.running[idx].uncomputed(), 1, "a guess is accepted when its token was pushed");
        assert!(self.running[idx].n_unsettled > 0, "a guess is accepted once");
        let cell = self.pool.take().expect("room was made before the step; this is a bug");
        self.running[idx].cells.push(cell);
        self.running[idx].n_unsettled -= 1;
    }

    /// The guesses that are not settled were wrong: they leave the cache. Unknown ids are ignored.
    pub fn drop_guesses(&mut self, id: RequestId) {
        let Some(running) = self.running.iter_mut().find(|running| running.id == id) else { return };
        if std::mem::take(&mut running.n_unsettled) > 0 {
            self.pending_ops.push(CacheOp::Cut { seq: running.seq, n_tokens: running.cells.len() });
        }
    }

    /// Cache operations that are due before anything else happens to the cache.
    pub fn take_ops(&mut self) -> Vec<CacheOp> {
        std::mem::take(&mut self.pending_ops)
    }

    /// Forgets everything that finished requests left behind.
    pub fn clear_cached(&mut self) {
        while let Some(idx) = self.oldest_cached(None) {
            self.evict(idx);
        }
    }

    /// Ends a running request whose computed state cannot be trusted: nothing of it is kept. Unknown ids are ignored.
    pub fn discard(&mut self, id: RequestId) {
        let Some(idx) = self.running.iter().position(|running| running.id == id) else { return };
        let lost = self.running.remove(idx);
        self.release_running(lost);
    }

    /// The decoder would not copy into or cut `seq`: a cached prefix is dropped, a request that was to start from it
    /// waits again, at the front, and will compute its whole prompt. Returns a request that is in the middle of its
    /// answer and cannot go on.
    fn refuse_reuse(&mut self, seq: SeqId) -> Option<RequestId> {
        if let Some(idx) = self.cached.iter().position(|cached| cached.seq == seq) {
            self.evict(idx);
            return None;
        }
        let idx = self.running.iter().position(|running| running.seq == seq)?;
        if self.running[idx].n_generated > 0 {
            return Some(self.running[idx].id);
        }
        let mut lost = self.running.remove(idx);
        let submission = Submission {
            id: lost.id,
            prompt: std::mem::take(&mut lost.tokens),
            max_tokens: lost.max_tokens,
            overflow: lost.overflow,
            prefix_step: lost.prefix_step,
        };
        self.release_running(lost);
        self.waiting.push_front(Waiting { submission, reuse: Reuse::Never });
        None
    }

    fn release_running(&mut self, lost: Running) {
        self.started.retain(|started| started.id != lost.id);
        lost.cells.into_iter().for_each(|cell| self.pool.release(cell, Holder::Running));
        self.pending_ops.push(CacheOp::Clear { seq: lost.seq });
        self.free_seqs.push(lost.seq);
    }

    /// Numbers for reports.
    pub fn occupancy(&self) -> Occupancy {
        let cells_running = self.pool.n_pinned();
        Occupancy {
            waiting: self.waiting.len(),
            running: self.running.len(),
            slots: self.config.n_slots,
            cells: self.pool.n_cells(),
            cells_running,
            cells_cached: self.pool.n_cells() - self.pool.n_free() - cells_running,
            cached_sequences: self.cached.len(),
            parked_sequences: self.parked.len(),
        }
    }

    /// Panics when the book-keeping contradicts itself; cheap enough for every step of a test.
    pub fn check(&self) {
        let held = (self.running.iter().map(|running| (&running.cells[..], Holder::Running)))
            .chain(self.cached.iter().map(|cached| (&cached.cells[..], Holder::Cached)));
        self.pool.check(held);
        let mut seqs: Vec<SeqId> = self.free_seqs.clone();
        seqs.extend(self.running.iter().map(|running| running.seq));
        seqs.extend(self.cached.iter().map(|cached| cached.seq));
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(0..self.config.limits.n_seqs as u32), "every sequence has one owner");
        assert!(self.running.len() <= self.config.n_slots, "no more running requests than slots");
        assert!(self.waiting.len() <= self.config.max_waiting, "the queue has a bound");
        for running in &self.running {
            assert!(running.computed_len() <= running.tokens.len(), "computed tokens are tokens");
            assert!(running.computed_len() <= running.reserved_len, "no cell beyond the reservation");
            assert!(running.tokens.len() <= running.reserved_len, "no token beyond the reservation");
            assert_eq!(running.n_unsettled, 0, "guesses are settled after their step");
            assert!(running.reserved_len <= self.config.limits.n_sequence_tokens, "no sequence beyond the context");
        }
        for cached in &self.cached {
            assert_eq!(cached.tokens.len(), cached.cells.len(), "a cached token has a cell");
        }
        let outstanding: usize = self.running.iter().map(Running::outstanding).sum();
        assert!(self.pool.n_pinned() + outstanding <= self.pool.n_cells(), "every reservation can be met");
    }

    fn running_idx(&self, id: RequestId) -> usize {
        self.running.iter().position(|running| running.id == id).expect("the request runs; this is a bug")
    }

    /// Drops the computed tokens of `running` from `keep_len` on.
    fn cut_running(&mut self, running: &mut Running, keep_len: usize) {
        if keep_len >= running.cells.len() {
            return;
        }
        let op = match keep_len {
            0 => CacheOp::Clear { seq: running.seq },
            n_tokens => CacheOp::Cut { seq: running.seq, n_tokens },
        };
        self.pending_ops.push(op);
        running.cells.drain(keep_len..).for_each(|cell| self.pool.release(cell, Holder::Running));
    }

    /// Raises the reservation of a request that has used its own up, or makes room by a context shift.
    fn make_longer(&mut self, idx: usize) -> bool {
        if self.running[idx].max_tokens.is_none() && self.grow(idx) {
            return true;
        }
        match self.running[idx].overflow {
            ContextOverflow::Shift { keep } => self.shift(idx, keep),
            ContextOverflow::Stop => false,
        }
    }

    fn grow(&mut self, idx: usize) -> bool {
        let ceiling = self.config.limits.n_sequence_tokens - self.running[idx].reserved_len;
        let wanted = ceiling.min(DEFAULT_RESERVE);
        let outstanding: usize = self.running.iter().map(Running::outstanding).sum();
        let granted = wanted.min(self.pool.n_cells() - self.pool.n_pinned() - outstanding);
        self.running[idx].reserved_len += granted;
        granted > 0
    }

    /// Drops the oldest half of what lies behind the first `keep` tokens, unless a running request shares it.
    fn shift(&mut self, idx: usize, keep: usize) -> bool {
        let running = &self.running[idx];
        let at_edge = running.reserved_len == self.config.limits.n_sequence_tokens;
        let keep = keep.min(running.computed_len() / 2);
        let discard = (running.computed_len() - keep) / 2;
        if !self.config.limits.can_shift || !at_edge || discard == 0 {
            return false;
        }
        let moved: Vec<CellId> = running.cells[keep..].to_vec();
        self.evict_holders_of(&moved);
        if moved.iter().any(|&cell| self.pool.n_holders(cell) > 1) {
            return false;
        }
        let running = &mut self.running[idx];
        running.tokens.drain(keep..keep + discard);
        running.clean_len = running.clean_len.min(keep);
        self.pending_ops.push(CacheOp::Shift { seq: running.seq, keep, discard });
        let dropped: Vec<CellId> = running.cells.drain(keep..keep + discard).collect();
        dropped.into_iter().for_each(|cell| self.pool.release(cell, Holder::Running));
        true
    }
}

/// Refuses prompts that are empty or leave no room for one token of an answer.
///
/// # Errors
/// [`EngineError::EmptyPrompt`] and [`EngineError::ContextLengthExceeded`].
pub fn check_prompt_length(prompt_tokens: usize, context_tokens: usize) -> Result<(), EngineError> {
    match prompt_tokens {
        0 => Err(EngineError::EmptyPrompt),
        n if n >= context_tokens => Err(EngineError::ContextLengthExceeded { prompt_tokens, context_tokens }),
        _ => Ok(()),
    }
}
