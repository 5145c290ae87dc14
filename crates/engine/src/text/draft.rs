//! A smaller model with the same vocabulary that proposes what comes next (speculative decoding, Leviathan et al. 2023,
//! arXiv:2211.17192). Proposals are checked like every other guess, against what is sampled from the model's own rows: a
//! draft model changes how long an answer takes, and nothing else.
//!
//! Its steps come one after the other and before the model's own, so how far it looks ahead is decided anew for each
//! step (`draft_policy`).

use std::time::Instant;

use ingle_kernels::{argmax, sum_exp};

use super::draft_policy::{Depth, DraftPolicy, Outlook};
use crate::scheduler::RequestId;
use crate::{BatchToken, DecodeError, Decoder, DecoderLimits, EngineError, PrefixSharing, SeqId, TokenId};

/// Tokens that are proposed at most unless the configuration says otherwise, and whatever it says.
const DEFAULT_MOST: usize = 8;
const MOST: usize = 64;
/// A token whose share of the draft model's probability is smaller is not proposed, unless the configuration says so.
const DEFAULT_LEAST_CHANCE: f32 = 0.4;

/// How a draft model is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftConfig {
    /// Tokens proposed at a time at most.
    pub most: usize,
    /// Least probability, by the draft model, of a token that is proposed.
    pub least_chance: f32,
    /// It is asked, and all it proposes is checked, also where that does not pay; for trials.
    pub is_always_asked: bool,
}

impl Default for DraftConfig {
    fn default() -> Self {
        Self { most: DEFAULT_MOST, least_chance: DEFAULT_LEAST_CHANCE, is_always_asked: false }
    }
}

/// A draft model's context, and how it is used.
pub struct Draft {
    /// Its context. It has a sequence for each slot of the model.
    pub decoder: Box<dyn Decoder>,
    /// How it is used.
    pub config: DraftConfig,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("limits", self.decoder.limits()).field("config", &self.config).finish()
    }
}

/// Tokens that are proposed for one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Proposal {
    pub(super) tokens: Vec<TokenId>,
    /// For each: how likely it is right together with all before it, as the draft model sees it.
    pub(super) chances: Vec<f64>,
}

/// A sequence of the draft model.
#[derive(Debug, Default)]
struct Seat {
    /// Whose text it reads; another's may take its place when that one has ended.
    request: Option<RequestId>,
    /// What the draft model has read there.
    tokens: Vec<TokenId>,
}

/// What of a text the draft model is to go on from.
struct Reader<'a> {
    request: RequestId,
    text: &'a [TokenId],
    seat: usize,
}

/// The draft model of an engine.
pub(super) struct Drafter {
    draft: Draft,
    /// Tokens from here on are unknown to one of the two models.
    n_vocab: usize,
    /// Rows of a step of the model.
    n_rows: usize,
    seats: Vec<Seat>,
    /// Requests whose texts its cache has no room for.
    left_alone: Vec<RequestId>,
    policy: DraftPolicy,
}

impl Drafter {
    /// For a model with `limits` and `n_slots` requests at a time. `None` for a draft model whose state cannot be cut:
    /// what it proposed could not be taken back.
    pub(super) fn new(draft: Draft, limits: &DecoderLimits, n_slots: usize) -> Option<Self> {
        let own = draft.decoder.limits();
        let (n_seats, n_vocab) = (n_slots.min(own.n_seqs), own.n_vocab.min(limits.n_vocab));
        let can_cut = own.sharing != PrefixSharing::TakeOverWhole;
        can_cut.then(|| Self {
            n_vocab,
            n_rows: limits.n_seqs.min(limits.n_batch),
            seats: (0..n_seats).map(|_| Seat::default()).collect(),
            left_alone: Vec::new(),
            policy: DraftPolicy::new(draft.config.most.min(MOST)),
            draft,
        })
    }

    /// See [`DraftConfig::is_always_asked`].
    pub(super) fn is_always_asked(&self) -> bool {
        self.draft.config.is_always_asked
    }

    /// Learns whether a proposed token was the one that was sampled, and whether it was checked.
    pub(super) fn learn(&mut self, is_right: bool, was_checked: bool) {
        self.policy.learn(is_right, was_checked);
    }

    /// The request has ended; its sequence is free for others and keeps what it has read until then.
    pub(super) fn release(&mut self, request: RequestId) {
        self.seats.iter_mut().filter(|seat| seat.request == Some(request)).for_each(|seat| seat.request = None);
        self.left_alone.retain(|other| *other != request);
    }

    /// How many tokens to propose for each of `n_texts` of the `n_answers` of a step that takes `plain_secs`.
    /// `row_secs(n)` is what each of `n` rows of a check costs.
    pub(super) fn depth(
        &mut self,
        plain_secs: f64,
        n_answers: usize,
        n_texts: usize,
        row_secs: &dyn Fn(usize) -> f64,
    ) -> Depth {
        let most_rows = self.n_rows.saturating_sub(n_answers);
        if self.is_always_asked() {
            let n_tokens = self.draft.config.most.min(MOST).min(most_rows / n_texts.max(1));
            return Depth { n_tokens, is_trial: true };
        }
        self.policy.depth(Outlook { secs: plain_secs, n_answers, most_rows }, n_texts, row_secs)
    }

    /// Proposes at most `depth` tokens behind each text. Those of which the draft model has much to read get nothing
    /// yet: it reads a part, for about half of `plain_secs`.
    ///
    /// # Errors
    /// [`EngineError::Decode`] when the draft model fails. It is not to be used again then.
    pub(super) fn propose(
        &mut self,
        texts: &[(RequestId, &[TokenId])],
        depth: usize,
        plain_secs: f64,
    ) -> Result<Vec<(RequestId, Proposal)>, EngineError> {
        let begun = Instant::now();
        let mut readers = Vec::new();
        for &(request, text) in texts {
            if let Some(seat) = self.reads(request, text, depth, plain_secs) {
                self.keep_common(seat, text);
                readers.push(Reader { request, text, seat });
            }
        }
        self.make_room(&mut readers, depth);
        let found = self.read(readers, plain_secs).and_then(|ready| self.go_on(&ready, depth));
        self.policy.asked(begun.elapsed().as_secs_f64());
        match found {
            // As cells behind a sliding window may count that nobody needs: it begins anew, after a while.
            Err(DecodeError::NoRoom) => {
                (0..self.seats.len()).for_each(|seat| self.clear(seat));
                self.policy.rest();
                Ok(Vec::new())
            }
            Err(DecodeError::Failed { reason }) => Err(EngineError::Decode { reason }),
            Ok(found) => Ok(found),
        }
    }

    /// The sequence for a text that the draft model can go on from, and that is worth reading.
    fn reads(&mut self, request: RequestId, text: &[TokenId], depth: usize, plain_secs: f64) -> Option<usize> {
        let longest = self.draft.decoder.limits().n_sequence_tokens;
        let fits = !text.is_empty() && text.len() + depth <= longest && !self.left_alone.contains(&request);
        if !fits {
            return None;
        }
        let seat = self.seat(request, text)?;
        let n_known = common(&self.seats[seat].tokens, text);
        let missing = &text[n_known..];
        let is_read = missing.iter().all(|&token| (token as usize) < self.n_vocab)
            && (self.is_always_asked() || self.policy.is_worth_reading(missing.len(), plain_secs));
        if is_read {
            self.seats[seat].request = Some(request);
        }
        is_read.then_some(seat)
    }

    /// Where the cache has too few cells for what the next steps add, texts of requests that have ended leave it first,
    /// then the longest text is left alone until its request ends.
    fn make_room(&mut self, readers: &mut Vec<Reader<'_>>, depth: usize) {
        let n_cells = self.draft.decoder.limits().n_cells;
        loop {
            let held: usize = self.seats.iter().map(|seat| seat.tokens.len()).sum();
            let added = |reader: &Reader<'_>| reader.text.len() - self.seats[reader.seat].tokens.len() + depth;
            if held + readers.iter().map(added).sum::<usize>() <= n_cells {
                return;
            }
            let idle = self.seats.iter().position(|seat| seat.request.is_none() && !seat.tokens.is_empty());
            if let Some(seat) = idle {
                self.clear(seat);
                continue;
            }
            let Some(longest) = (0..readers.len()).max_by_key(|&idx| readers[idx].text.len()) else { return };
            let reader = readers.swap_remove(longest);
            self.seats[reader.seat].request = None;
            self.clear(reader.seat);
            self.left_alone.push(reader.request);
        }
    }

    fn clear(&mut self, seat: usize) {
        self.seats[seat].tokens.clear();
        self.draft.decoder.clear(seat as SeqId);
    }

    /// The sequence of a request: its own, or the free one that holds most of its text.
    fn seat(&self, request: RequestId, text: &[TokenId]) -> Option<usize> {
        if let Some(own) = self.seats.iter().position(|seat| seat.request == Some(request)) {
            return Some(own);
        }
        let free = self.seats.iter().enumerate().filter(|(_, seat)| seat.request.is_none());
        let (best, _) = free.max_by_key(|(_, seat)| (common(&seat.tokens, text), usize::MAX - seat.tokens.len()))?;
        Some(best)
    }

    /// Takes back what the sequence holds beyond the text. The last token is always read again: its row is wanted.
    fn keep_common(&mut self, seat: usize, text: &[TokenId]) {
        let held = &mut self.seats[seat].tokens;
        let n_common = common(held, text).min(text.len() - 1);
        if held.len() == n_common {
            return;
        }
        held.truncate(n_common);
        if self.draft.decoder.cut(seat as SeqId, n_common).is_err() {
            self.clear(seat);
        }
    }

    /// Reads what is missing of the texts as far as the time goes. Those that are read to their end have a row now: for
    /// each its index in the step.
    fn read<'a>(&mut self, readers: Vec<Reader<'a>>, plain_secs: f64) -> Result<Vec<(Reader<'a>, usize)>, DecodeError> {
        let mut left = self.policy.n_read(plain_secs).min(self.draft.decoder.limits().n_batch);
        let (mut batch, mut read, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        for reader in readers {
            let held = self.seats[reader.seat].tokens.len();
            let missing = &reader.text[held..];
            let piece = &missing[..missing.len().min(left)];
            left -= piece.len();
            let token = |(position, &token): (usize, &TokenId)| entry(token, position, reader.seat, false);
            batch.extend((held..).zip(piece).map(token));
            read.push((reader.seat, piece));
            if piece.len() == missing.len() {
                let last = batch.len() - 1;
                batch[last].wants_row = true;
                ready.push((reader, last));
            }
        }
        if batch.is_empty() {
            return Ok(ready);
        }
        let secs = self.step(&batch)?;
        self.policy.read(batch.len(), secs);
        read.into_iter().for_each(|(seat, piece)| self.seats[seat].tokens.extend_from_slice(piece));
        Ok(ready)
    }

    /// Lets the draft model go on behind texts that it has read.
    fn go_on(
        &mut self,
        ready: &[(Reader<'_>, usize)],
        depth: usize,
    ) -> Result<Vec<(RequestId, Proposal)>, DecodeError> {
        let mut found: Vec<_> = ready.iter().map(|(reader, _)| (reader.request, Proposal::default())).collect();
        // Index of a text, and of its row in the last step.
        let mut rows: Vec<(usize, usize)> = ready.iter().enumerate().map(|(idx, &(_, row))| (idx, row)).collect();
        for n_proposed in 1..=depth {
            let mut batch = Vec::new();
            let mut next = Vec::new();
            for (idx, entry_idx) in rows {
                let Some((token, chance)) = self.likeliest(entry_idx)? else { continue };
                let proposal = &mut found[idx].1;
                let before = proposal.chances.last().copied().unwrap_or(1.0);
                proposal.tokens.push(token);
                proposal.chances.push(before * chance);
                let seat = ready[idx].0.seat;
                next.push((idx, batch.len()));
                batch.push(entry(token, self.seats[seat].tokens.len(), seat, true));
            }
            if batch.is_empty() || n_proposed == depth {
                break;
            }
            self.step(&batch)?;
            batch.iter().for_each(|entry| self.seats[entry.seq as usize].tokens.push(entry.token));
            rows = next;
        }
        Ok(found)
    }

    /// Computes a step; how many seconds it took.
    fn step(&mut self, batch: &[BatchToken]) -> Result<f64, DecodeError> {
        let begun = Instant::now();
        self.draft.decoder.decode(batch)?;
        let secs = begun.elapsed().as_secs_f64();
        let n_rows = batch.iter().filter(|entry| entry.wants_row).count();
        if batch.len() <= 3 * n_rows {
            self.policy.stepped(secs);
        }
        Ok(secs)
    }

    /// The draft model's favourite by the row of an entry, and its probability; `None` where it is not sure enough.
    fn likeliest(&mut self, entry_idx: usize) -> Result<Option<(TokenId, f64)>, DecodeError> {
        let least_chance = f64::from(self.draft.config.least_chance);
        let row =
            self.draft.decoder.row(entry_idx).map_err(|error| DecodeError::Failed { reason: error.to_string() })?;
        let row = &row[..self.n_vocab];
        let peak = argmax(row).map_err(|_| DecodeError::Failed { reason: "its logits are no numbers".into() })?;
        let chance = 1.0 / sum_exp(row, peak.value);
        Ok((chance >= least_chance).then_some((peak.index as TokenId, chance)))
    }
}

fn entry(token: TokenId, position: usize, seat: usize, wants_row: bool) -> BatchToken {
    BatchToken { token, position, seq: seat as SeqId, wants_row }
}

/// Tokens that both begin with.
fn common(one: &[TokenId], other: &[TokenId]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
