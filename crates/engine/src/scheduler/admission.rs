//! Who gets a slot, which prefix it starts from, and what is evicted for it.

use super::*;
use crate::PrefixSharing;

/// Shorter common prefixes are not worth a cache operation.
const MIN_SHARED: usize = 4;
/// A request waits for a prefix another one is computing when it saves at least this many tokens.
const MIN_AWAITED: usize = 32;

/// Where a prefix can be taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Index into `running`.
    Running(usize),
    /// Index into `cached`.
    Cached(usize),
    /// Index into `parked`.
    Parked(usize),
}

/// What a waiting request can start from.
#[derive(Debug, Clone, Copy)]
struct PrefixMatch {
    /// `None` when nothing is shared.
    source: Option<Source>,
    /// Tokens that need not be computed.
    len: usize,
    /// Tokens that a running request is about to compute; `len` or more.
    awaited_len: usize,
    /// From which position on the prefix is held.
    first_held: usize,
}

impl PrefixMatch {
    const NONE: Self = Self { source: None, len: 0, awaited_len: 0, first_held: 0 };
}

/// Length of the common start of two token lists.
pub(super) fn common_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Scheduler {
    /// Gives slots to waiting requests, oldest first. `first_held` tells from which position on a sequence is held.
    pub(super) fn fill_slots(&mut self, first_held: &dyn Fn(SeqId) -> usize) {
        let mut idx = 0;
        while idx < self.waiting.len() && self.running.len() < self.config.n_slots {
            let waiting = &self.waiting[idx];
            let prefix = match waiting.reuse {
                Reuse::Allowed => self.match_prefix(&waiting.submission, first_held),
                Reuse::Never => PrefixMatch::NONE,
            };
            if prefix.awaited_len >= prefix.len + MIN_AWAITED {
                idx += 1;
                continue;
            }
            let reserved_len = self.initial_reserve(&waiting.submission);
            if !self.can_reserve(reserved_len, prefix) {
                return;
            }
            let Waiting { submission, .. } = self.waiting.remove(idx).expect("the index was checked; this is a bug");
            self.start(submission, reserved_len, prefix);
        }
    }

    fn initial_reserve(&self, submission: &Submission) -> usize {
        let answer = submission.max_tokens.unwrap_or(DEFAULT_RESERVE);
        submission.prompt.len().saturating_add(answer).min(self.config.limits.n_sequence_tokens)
    }

    /// The longest prefix that is really held, and the longest one that soon will be.
    fn match_prefix(&self, submission: &Submission, first_held: &dyn Fn(SeqId) -> usize) -> PrefixMatch {
        let mut best = PrefixMatch::NONE;
        // The last prompt token is always computed: its logits are needed.
        let reusable = &submission.prompt[..submission.prompt.len() - 1];
        let step = submission.prefix_step.max(1);
        let common_len = |tokens: &[TokenId]| common_len(reusable, tokens);
        let whole_steps = |len: usize| len / step * step;
        let limits = &self.config.limits;
        let whole_only = limits.sharing == PrefixSharing::TakeOverWhole;
        let mut offer = |source, first_held: &dyn Fn() -> usize, len: usize, held_len: usize| {
            if len < MIN_SHARED || len <= best.len || (whole_only && len != held_len) {
                return;
            }
            let first_held = if limits.sliding_window.is_some() { first_held() } else { 0 };
            if limits.can_continue(len, first_held) {
                (best.source, best.len, best.first_held) = (Some(source), len, first_held);
            }
        };
        for (idx, cached) in self.cached.iter().enumerate() {
            let len = whole_steps(common_len(&cached.tokens));
            offer(Source::Cached(idx), &|| first_held(cached.seq), len, cached.tokens.len());
        }
        let mut awaited_len = 0;
        let can_copy = limits.sharing == PrefixSharing::Copy;
        for (idx, running) in self.running.iter().enumerate().filter(|_| can_copy) {
            let len = whole_steps(common_len(&running.tokens));
            let shareable = whole_steps(len.min(running.shareable_len()));
            // What it began with may have come by an operation that was not carried out yet.
            let first_held = || first_held(running.seq).max(running.first_held);
            offer(Source::Running(idx), &first_held, shareable, running.computed_len());
            // Only what is still being computed can be waited for: behind a shift nothing becomes shareable any more.
            if running.computed_len() < len && running.clean_len >= len {
                awaited_len = awaited_len.max(len);
            }
        }
        // Last, since the first of equal ones is taken: what is in the cache costs nothing, and requests that share a saved
        // prefix shall bring it back once.
        for (idx, parked) in self.parked.iter().enumerate() {
            let len = whole_steps(self.parked_len(idx, reusable));
            offer(Source::Parked(idx), &|| parked.first_held, len, parked.tokens.len());
        }
        PrefixMatch { awaited_len: awaited_len.max(best.len), ..best }
    }

    /// Would there be room if every cached prefix but the source were evicted?
    fn can_reserve(&self, reserved_len: usize, prefix: PrefixMatch) -> bool {
        let outstanding: usize = self.running.iter().map(Running::outstanding).sum();
        let newly_pinned = match prefix.source {
            Some(Source::Cached(idx)) => {
                self.cached[idx].cells[..prefix.len].iter().filter(|&&cell| !self.pool.is_pinned(cell)).count()
            }
            // A saved state comes back whole before it is cut, and none of its cells is there yet.
            Some(Source::Parked(idx)) => prefix.len + self.parked[idx].tokens.len().saturating_sub(reserved_len),
            Some(Source::Running(_)) | None => 0,
        };
        let needed = reserved_len - prefix.len + newly_pinned;
        self.pool.n_pinned() + outstanding + needed <= self.pool.n_cells()
    }

    fn start(&mut self, submission: Submission, reserved_len: usize, prefix: PrefixMatch) {
        let (seq, cells) = match prefix.source {
            Some(Source::Cached(idx)) if self.must_take_over(idx, prefix.len) => self.take_over(idx, prefix.len),
            Some(Source::Parked(idx)) => self.bring_back(idx, prefix.len),
            Some(Source::Cached(idx)) => {
                self.use_counter += 1;
                self.cached[idx].last_used = self.use_counter;
                self.copy_from(self.cached[idx].seq, self.cached[idx].cells[..prefix.len].to_vec())
            }
            Some(Source::Running(idx)) => {
                self.copy_from(self.running[idx].seq, self.running[idx].cells[..prefix.len].to_vec())
            }
            None => (self.unused_seq(None), Vec::new()),
        };
        self.started.push(Started { id: submission.id, cached_tokens: cells.len() });
        self.running.push(Running {
            id: submission.id,
            seq,
            first_held: prefix.first_held,
            clean_len: usize::MAX,
            tokens: submission.prompt,
            reused_len: cells.len(),
            cells,
            reserved_len,
            overflow: submission.overflow,
            resting: false,
            guesses: Vec::new(),
            n_unsettled: 0,
            prefix_step: submission.prefix_step,
            n_generated: 0,
            max_tokens: submission.max_tokens,
        });
    }

    /// Is the cached sequence continued in place? Otherwise its prefix is copied and it stays for others.
    fn must_take_over(&self, idx: usize, len: usize) -> bool {
        let nothing_lost = len == self.cached[idx].tokens.len();
        let no_spare_seq = self.free_seqs.is_empty() && self.cached.len() == 1;
        nothing_lost || no_spare_seq || self.config.limits.sharing != PrefixSharing::Copy
    }

    fn take_over(&mut self, idx: usize, len: usize) -> (SeqId, Vec<CellId>) {
        let mut cached = self.cached.remove(idx);
        if len < cached.cells.len() {
            self.pending_ops.push(CacheOp::Cut { seq: cached.seq, n_tokens: len });
        }
        cached.cells.drain(len..).for_each(|cell| self.pool.release(cell, Holder::Cached));
        cached.cells.iter().for_each(|&cell| self.pool.convert(cell, Holder::Running));
        (cached.seq, cached.cells)
    }

    fn copy_from(&mut self, from: SeqId, cells: Vec<CellId>) -> (SeqId, Vec<CellId>) {
        let to = self.unused_seq(Some(from));
        cells.iter().for_each(|&cell| self.pool.add(cell, Holder::Running));
        self.pending_ops.push(CacheOp::Copy { from, to, n_tokens: cells.len() });
        (to, cells)
    }

    /// Puts a saved state into a new sequence and cuts it; the state stays saved for others.
    fn bring_back(&mut self, idx: usize, len: usize) -> (SeqId, Vec<CellId>) {
        self.use_counter += 1;
        self.parked[idx].last_used = self.use_counter;
        let (key, whole_len) = (self.parked[idx].key, self.parked[idx].tokens.len());
        let to = self.unused_seq(None);
        self.make_room(whole_len);
        self.pending_ops.push(CacheOp::Restore { key, to });
        if len < whole_len {
            self.pending_ops.push(CacheOp::Cut { seq: to, n_tokens: len });
        }
        let take = |_| self.pool.take().expect("room was made; this is a bug");
        (to, (0..len).map(take).collect())
    }

    /// A sequence id nobody holds, by eviction of the oldest cached prefix but `protected` if need be.
    fn unused_seq(&mut self, protected: Option<SeqId>) -> SeqId {
        if self.free_seqs.is_empty() {
            let idx = self.oldest_cached(protected).expect("there are more sequences than slots; this is a bug");
            self.evict(idx);
        }
        self.free_seqs.pop().expect("an eviction frees a sequence; this is a bug")
    }

    /// The cached prefix that was not used for the longest time.
    pub(super) fn oldest_cached(&self, protected: Option<SeqId>) -> Option<usize> {
        let candidates = self.cached.iter().enumerate().filter(|(_, cached)| Some(cached.seq) != protected);
        candidates.min_by_key(|(_, cached)| cached.last_used).map(|(idx, _)| idx)
    }

    pub(super) fn evict(&mut self, idx: usize) {
        let cached = self.cached.remove(idx);
        self.pending_ops.push(CacheOp::Clear { seq: cached.seq });
        cached.cells.into_iter().for_each(|cell| self.pool.release(cell, Holder::Cached));
        self.free_seqs.push(cached.seq);
    }

    /// Evicts every cached prefix that holds one of `cells`.
    pub(super) fn evict_holders_of(&mut self, cells: &[CellId]) {
        while let Some(idx) = self.cached.iter().position(|cached| cached.cells.iter().any(|cell| cells.contains(cell)))
        {
            self.evict(idx);
        }
    }

    /// A running request has ended: its sequence becomes a cached prefix, unless it adds nothing to those there are.
    pub(super) fn keep_as_cached(&mut self, ended: Running) {
        for &cell in &ended.cells {
            self.pool.convert(cell, Holder::Cached);
        }
        self.use_counter += 1;
        let last_used = self.use_counter;
        let kept = Cached { seq: ended.seq, tokens: ended.tokens, cells: ended.cells, last_used, stays: false };
        let longer = self.cached.iter_mut().find(|cached| cached.tokens.starts_with(&kept.tokens));
        if kept.tokens.is_empty() || longer.is_some() {
            if let Some(longer) = longer {
                longer.last_used = self.use_counter;
            }
            self.cached.push(kept);
            self.evict(self.cached.len() - 1);
            return;
        }
        if self.config.limits.sharing != PrefixSharing::TakeOverWhole {
            while let Some(idx) = self.cached.iter().position(|cached| kept.tokens.starts_with(&cached.tokens)) {
                self.evict(idx);
            }
        }
        self.cached.push(kept);
    }
}
