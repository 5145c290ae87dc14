//! What the model has to do next.

use std::collections::BTreeMap;

use super::*;
use crate::{BatchToken, CacheRefused, Decoder};

/// Forced tokens of all answers together that a step computes beside one token of each answer.
const MOST_FORCED: usize = 64;
/// Prompts begin their answers together when the longest is at most this many times as long as the shortest.
const MOST_UNLIKE: usize = 4;

/// A change of the cache that must be made, in order, before the batch of the same step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOp {
    /// `to` gets the first `n_tokens` of `from`.
    Copy {
        /// Holder of the prefix.
        from: SeqId,
        /// Empty sequence.
        to: SeqId,
        /// Length of the prefix.
        n_tokens: usize,
    },
    /// Everything of `seq` from `n_tokens` on goes.
    Cut {
        /// The sequence.
        seq: SeqId,
        /// What stays.
        n_tokens: usize,
    },
    /// All of `seq` goes.
    Clear {
        /// The sequence.
        seq: SeqId,
    },
    /// `to` gets a saved state, which is longer than what is kept of it when a [`CacheOp::Cut`] follows.
    Restore {
        /// Which state.
        key: StateKey,
        /// Empty sequence.
        to: SeqId,
    },
    /// A context shift.
    Shift {
        /// The sequence.
        seq: SeqId,
        /// Tokens at the start that stay.
        keep: usize,
        /// Tokens behind them that go.
        discard: usize,
    },
}

impl CacheOp {
    /// The sequence that it changes.
    pub fn seq(self) -> SeqId {
        match self {
            Self::Copy { to, .. } | Self::Restore { to, .. } => to,
            Self::Cut { seq, .. } | Self::Clear { seq } | Self::Shift { seq, .. } => seq,
        }
    }

    /// Has `decoder` do it, with the bytes of saved states.
    ///
    /// # Errors
    /// [`CacheRefused`] when the decoder cannot, or when the state is not there.
    pub fn carry_out(
        self,
        decoder: &mut impl Decoder,
        saved: &BTreeMap<StateKey, Vec<u8>>,
    ) -> Result<(), CacheRefused> {
        match self {
            Self::Copy { from, to, n_tokens } => decoder.copy_prefix(from, to, n_tokens),
            Self::Cut { seq, n_tokens } => decoder.cut(seq, n_tokens),
            Self::Shift { seq, keep, discard } => decoder.shift(seq, keep, discard),
            Self::Restore { key, to } => decoder.restore(to, saved.get(&key).ok_or(CacheRefused)?),
            Self::Clear { seq } => {
                decoder.clear(seq);
                Ok(())
            }
        }
    }
}

/// What came of cache operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The cache is not what the step was planned for: its batch must not be computed.
    pub is_refused: bool,
    /// Requests in the middle of an answer that cannot go on.
    pub lost: Vec<RequestId>,
    /// States that could not be brought back: nothing refers to their bytes any more.
    pub forgotten: Vec<StateKey>,
}

/// One token of a step and the request it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepEntry {
    /// The request.
    pub request: RequestId,
    /// What the model computes.
    pub token: BatchToken,
    /// It may follow the entry before; whether it does, that entry's row tells.
    pub is_guess: bool,
}

/// What prompts get of a step while answers are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptShare {
    /// Every answer gets a token, prompts this many tokens at most.
    Beside(usize),
    /// Prompts get a step of their own of this many tokens at most; answers wait for the next one.
    Alone(usize),
    /// No answer goes on, and prompts with this many tokens left altogether may begin their answers in one step, if they
    /// are about as long as each other: whoever began before the others would be held up by their prompts.
    Together(usize),
}

/// One step: cache operations first, then the batch, answers before prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// To be applied in order.
    pub ops: Vec<CacheOp>,
    /// To be computed; empty when there is nothing to do.
    pub entries: Vec<StepEntry>,
    /// Entries that continue a prompt, or an answer behind its next token; the others extend answers by one token each.
    pub n_prompt_tokens: usize,
    /// Answers that could go on have no entry.
    pub answers_wait: bool,
    /// Entries that are guesses.
    pub n_guesses: usize,
}

impl Step {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.entries.is_empty()
    }
}

impl Scheduler {
    /// Fills free slots and plans the next step.
    ///
    /// Every answer that may go on gets one token, unless the share says otherwise. Prompts share what `share` leaves
    /// them, or the whole batch when there are no answers: the oldest prompt gets at least half of it, the rest goes to
    /// the shortest ones. `first_held(seq)` is the decoder's [`crate::Decoder::first_held`].
    pub fn next_step(&mut self, share: PromptShare, first_held: &dyn Fn(SeqId) -> usize) -> Step {
        self.fill_slots(first_held);
        let n_batch = self.config.limits.n_batch;
        let n_decoding = self.n_answers();
        // The last token of a prompt is what begins its answer.
        let n_withheld = usize::from(n_decoding == 0 && self.begin_together(share));
        let (answers_wait, budget) = match share {
            _ if n_decoding == 0 => (false, n_batch),
            PromptShare::Beside(n_tokens) => (false, n_tokens.min(n_batch - n_decoding)),
            // Answers have begun since the caller looked.
            PromptShare::Together(_) => (false, 0),
            PromptShare::Alone(n_tokens) => match self.prompts_left() {
                (_, 0) => (false, 0),
                (_, _) => (true, n_tokens.clamp(1, n_batch)),
            },
        };
        let mut entries = Vec::new();
        let mut guesses_left = self.most_guesses();
        if !answers_wait {
            for running in self.running.iter().filter(|running| running.is_decoding() && !running.resting) {
                push_entries(&mut entries, running, 1);
                guesses_left -= push_guesses(&mut entries, running, guesses_left);
            }
        }
        self.running.iter_mut().for_each(|running| running.guesses.clear());
        let n_guesses = entries.iter().filter(|entry| entry.is_guess).count();
        let n_answers = entries.len() - n_guesses;
        let n_forced = if answers_wait { 0 } else { self.push_forced_entries(&mut entries) };
        for (idx, n_tokens) in self.share_budget(budget.saturating_sub(n_forced), n_withheld) {
            push_entries(&mut entries, &self.running[idx], n_tokens);
        }
        let n_prompt_tokens = entries.len() - n_answers - n_guesses;
        self.make_room(entries.len());
        Step { ops: self.take_ops(), entries, n_prompt_tokens, answers_wait, n_guesses }
    }

    /// Guesses that the next step can check.
    fn most_guesses(&self) -> usize {
        // They take rows and time that prompts can use better.
        if self.prompts_left().1 > 0 {
            return 0;
        }
        let limits = &self.config.limits;
        let most = limits.n_seqs.min(limits.n_batch).saturating_sub(self.n_answers());
        if limits.sliding_window.is_none() {
            return most;
        }
        // In a step of several pieces, a later piece may take cells that have left the window of the guesses before it
        // and are needed again when these turn out wrong.
        let answers = self.running.iter().filter(|running| running.is_decoding() && !running.resting);
        let (n_next, n_forced) =
            answers.fold((0, 0), |(n_next, n_forced), running| (n_next + 1, n_forced + running.uncomputed() - 1));
        most.min(limits.n_physical_batch.saturating_sub(n_next + n_forced.min(MOST_FORCED)))
    }

    /// Carries out cache operations in their order by `carry_out`. Whoever wanted to start from what is refused waits
    /// again, at the front, and will compute the whole prompt; so does whoever wanted to start from that in turn.
    pub fn apply(
        &mut self,
        ops: &[CacheOp],
        carry_out: &mut dyn FnMut(CacheOp) -> Result<(), CacheRefused>,
    ) -> Applied {
        let mut applied = Applied::default();
        // Sequences that are not what later operations take them for.
        let mut spoilt: Vec<SeqId> = Vec::new();
        for &op in ops {
            if let CacheOp::Clear { seq } = op {
                spoilt.retain(|&other| other != seq);
            }
            let from_spoilt = matches!(op, CacheOp::Copy { from, .. } if spoilt.contains(&from));
            if spoilt.contains(&op.seq()) || (!from_spoilt && carry_out(op).is_ok()) {
                continue;
            }
            applied.is_refused = true;
            spoilt.push(op.seq());
            if let CacheOp::Restore { key, .. } = op {
                self.parked.retain(|parked| parked.key != key);
                applied.forgotten.push(key);
            }
            applied.lost.extend(self.refuse_reuse(op.seq()));
        }
        applied
    }

    /// Appends what answers have beyond their next token, as tokens that were forced leave it; how many.
    fn push_forced_entries(&self, entries: &mut Vec<StepEntry>) -> usize {
        let mut left = MOST_FORCED.min(self.config.limits.n_batch - entries.len());
        let before = entries.len();
        for running in self.running.iter().filter(|running| running.is_decoding() && !running.resting) {
            let n_tokens = (running.uncomputed() - 1).min(left);
            left -= n_tokens;
            push_entries_from(entries, running, running.computed_len() + 1, n_tokens);
        }
        entries.len() - before
    }

    /// Answers that would get a token in the next step.
    pub fn n_answers(&self) -> usize {
        self.running.iter().filter(|running| running.is_decoding() && !running.resting).count()
    }

    /// Where the prompt that has come furthest goes on, and the tokens left of all prompts that have a slot.
    pub fn prompts_left(&self) -> (usize, usize) {
        let prompts = self.running.iter().filter(|running| !running.is_decoding());
        prompts.fold((0, 0), |(position, n_tokens), running| match running.uncomputed() {
            0 => (position, n_tokens),
            n_left => (position.max(running.computed_len()), n_tokens + n_left),
        })
    }

    /// Do the prompts keep their last tokens for a later step?
    fn begin_together(&self, share: PromptShare) -> bool {
        let PromptShare::Together(most) = share else { return false };
        let n_left = self.prompts_left().1;
        let prompts = self.running.iter().filter(|running| !running.is_decoding() && running.uncomputed() > 0);
        let lengths = prompts.map(|running| running.tokens.len() - running.reused_len);
        let (n_prompts, shortest, longest) = lengths
            .fold((0, usize::MAX, 0), |(n, shortest, longest), len| (n + 1, len.min(shortest), len.max(longest)));
        let are_alike = n_prompts > 1 && longest <= MOST_UNLIKE * shortest;
        are_alike && n_left <= most && n_left > self.config.limits.n_batch
    }

    /// Which prompts get how many tokens, without the last `n_withheld` of each: indices into `running` with a count
    /// above 0.
    fn share_budget(&self, budget: usize, n_withheld: usize) -> Vec<(usize, usize)> {
        let mut prompts: Vec<(usize, usize)> = (self.running.iter().enumerate())
            .filter(|(_, running)| !running.is_decoding() && running.uncomputed() > n_withheld)
            .map(|(idx, running)| (idx, running.uncomputed() - n_withheld))
            .collect();
        let Some(&(oldest, oldest_left)) = prompts.first() else { return Vec::new() };
        let guaranteed = oldest_left.min(budget.div_ceil(2));
        let mut left = budget - guaranteed;
        prompts[0].1 -= guaranteed;
        prompts.sort_by_key(|&(idx, n_left)| (n_left, idx));
        for (_, n_tokens) in &mut prompts {
            *n_tokens = (*n_tokens).min(left);
            left -= *n_tokens;
        }
        for (idx, n_tokens) in &mut prompts {
            *n_tokens += if *idx == oldest { guaranteed } else { 0 };
        }
        prompts.retain(|&(_, n_tokens)| n_tokens > 0);
        prompts.sort_unstable();
        prompts
    }

    /// Evicts cached prefixes, oldest first, until `n_cells` are free. Reservations guarantee that it succeeds.
    pub(super) fn make_room(&mut self, n_cells: usize) {
        while self.pool.n_free() < n_cells {
            let idx = self.oldest_cached(None).expect("reservations never exceed the cells; this is a bug");
            self.evict(idx);
        }
    }

    /// Records that the model has computed the entries of a step.
    ///
    /// # Panics
    /// When an entry is not the next one of its request.
    pub fn computed(&mut self, entries: &[StepEntry]) {
        for entry in entries {
            let idx = self.running_idx(entry.request);
            let running = &mut self.running[idx];
            if entry.is_guess {
                running.n_unsettled += 1;
                continue;
            }
            let cell = self.pool.take().expect("room was made before the step; this is a bug");
            assert_eq!(running.cells.len(), entry.token.position, "tokens are computed in order");
            running.cells.push(cell);
        }
    }
}

/// Appends the next `n_tokens` of `running`; a row is wanted for the last token it has.
fn push_entries(entries: &mut Vec<StepEntry>, running: &Running, n_tokens: usize) {
    push_entries_from(entries, running, running.computed_len(), n_tokens);
}

fn push_entries_from(entries: &mut Vec<StepEntry>, running: &Running, from: usize, n_tokens: usize) {
    for position in from..from + n_tokens {
        let token = BatchToken {
            token: running.tokens[position],
            position,
            seq: running.seq,
            wants_row: position + 1 == running.tokens.len(),
        };
        entries.push(StepEntry { request: running.id, token, is_guess: false });
    }
}

/// Appends at most `most` guesses behind the last token of `running`; how many.
fn push_guesses(entries: &mut Vec<StepEntry>, running: &Running, most: usize) -> usize {
    let guesses = &running.guesses[..running.guesses.len().min(most)];
    for (position, &token) in (running.tokens.len()..).zip(guesses) {
        let token = BatchToken { token, position, seq: running.seq, wants_row: true };
        entries.push(StepEntry { request: running.id, token, is_guess: true });
    }
    guesses.len()
}
