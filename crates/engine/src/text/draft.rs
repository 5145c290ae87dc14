//! A smaller model with the same vocabulary that proposes what comes next (speculative decoding, Leviathan et al. 2023,
//! arXiv:2211.17192). Proposals are checked like every other guess, against what is sampled from the model's own rows: a
//! draft model changes how long an answer takes, and nothing else.
//!
//! Its steps come one after the other and before the model's own, so how far it looks ahead is decided anew for each
//! step: by what its steps and the rows of the check cost, and by how often it has been right of late.

use std::time::Instant;

use ingle_kernels::{argmax, sum_exp};

use crate::scheduler::RequestId;
use crate::{BatchToken, DecodeError, Decoder, DecoderLimits, EngineError, PrefixSharing, SeqId, TokenId};

/// Tokens that are proposed at most unless the configuration says otherwise.
const DEFAULT_MOST: usize = 8;
/// A token whose share of the draft model's probability is smaller is not proposed, unless the configuration says so.
const DEFAULT_LEAST_CHANCE: f32 = 0.4;
/// Right and wrong proposals that are believed to have been seen before the first one.
const BELIEF: (f64, f64) = (3.0, 1.5);
/// What a proposal seen before the last one counts for.
const FADE: f64 = 0.98;
/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// Proposals have to promise this much more speed before they are made.
const MARGIN: f64 = 1.08;
/// Where they did not promise it for so many steps, one is made all the same, to see whether they do now.
const RETRY: usize = 64;
/// Part of a step of the model that the draft model may take to read what it has not seen of the texts.
const READ_PART: f64 = 0.5;
/// Tokens that it reads at least, and at once before anything was measured.
const LEAST_READ: usize = 32;

/// How a draft model is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftConfig {
    /// Tokens proposed at a time at most.
    pub most: usize,
    /// Least probability, by the draft model, of a token that is proposed.
    pub least_chance: f32,
}

impl Default for DraftConfig {
    fn default() -> Self {
        Self { most: DEFAULT_MOST, least_chance: DEFAULT_LEAST_CHANCE }
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

/// How far to look ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth {
    /// Tokens for each text.
    pub(super) n_tokens: usize,
    /// To learn what it costs and gives, not because it promises something: one proposal is to be checked all the same.
    pub(super) is_trial: bool,
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
    seats: Vec<Seat>,
    /// Seconds of a step that gives each text one more token, and of a token that is read; smoothed.
    step_secs: Option<f64>,
    read_secs: Option<f64>,
    /// Right and wrong proposals, the older ones faded.
    seen: (f64, f64),
    n_idle: usize,
}

impl Drafter {
    /// For a model with `limits` and `n_slots` requests at a time. `None` for a draft model whose state cannot be cut:
    /// what it proposed could not be taken back.
    pub(super) fn new(draft: Draft, limits: &DecoderLimits, n_slots: usize) -> Option<Self> {
        let own = draft.decoder.limits();
        let n_vocab = own.n_vocab.min(limits.n_vocab);
        let n_seats = n_slots.min(own.n_seqs);
        let can_cut = own.sharing != PrefixSharing::TakeOverWhole;
        can_cut.then(|| Self {
            n_vocab,
            seats: (0..n_seats).map(|_| Seat::default()).collect(),
            step_secs: None,
            read_secs: None,
            seen: BELIEF,
            n_idle: 0,
            draft,
        })
    }

    /// Learns whether a proposed token was the one that was sampled.
    pub(super) fn learn(&mut self, is_right: bool) {
        let (right, wrong) = &mut self.seen;
        (*right, *wrong) = (FADE * *right, FADE * *wrong);
        *(if is_right { right } else { wrong }) += 1.0;
    }

    /// The request has ended; its sequence is free for others and keeps what it has read until then.
    pub(super) fn release(&mut self, request: RequestId) {
        self.seats.iter_mut().filter(|seat| seat.request == Some(request)).for_each(|seat| seat.request = None);
    }

    /// How many tokens to propose for each of `n_texts` of the `n_answers` of a step that takes `plain_secs`: what
    /// promises the most tokens a second, none where nothing does. `row_secs(n)` is what each of `n` rows of a check costs.
    pub(super) fn depth(
        &mut self,
        plain_secs: f64,
        n_answers: usize,
        n_texts: usize,
        row_secs: &dyn Fn(usize) -> f64,
    ) -> Depth {
        let most = self.draft.config.most;
        let Some(step_secs) = self.step_secs else { return Depth { n_tokens: most.min(2), is_trial: true } };
        let (right, wrong) = self.seen;
        let rate = right / (right + wrong);
        let (n_answers, n_texts) = (n_answers as f64, n_texts as f64);
        let (mut n_best, mut best, mut all_right, mut extra) = (0, MARGIN * n_answers / plain_secs, 1.0, 0.0);
        for n in 1..=most {
            all_right *= rate;
            extra += all_right * n_texts;
            let n_rows = n as f64 * n_texts;
            let secs = plain_secs + n as f64 * step_secs + n_rows * row_secs(n_rows as usize);
            let speed = (n_answers + extra) / secs;
            if speed > best {
                (n_best, best) = (n, speed);
            }
        }
        self.n_idle = if n_best == 0 { self.n_idle + 1 } else { 0 };
        if self.n_idle < RETRY || most == 0 {
            return Depth { n_tokens: n_best, is_trial: false };
        }
        self.n_idle = 0;
        Depth { n_tokens: 1, is_trial: true }
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
        let longest = self.draft.decoder.limits().n_sequence_tokens;
        let n_vocab = self.n_vocab;
        let fits = |text: &[TokenId]| {
            !text.is_empty() && text.len() + depth <= longest && text.iter().all(|&token| (token as usize) < n_vocab)
        };
        let mut readers = Vec::new();
        for &(request, text) in texts.iter().filter(|(_, text)| fits(text)) {
            if let Some(seat) = self.seat(request, text) {
                self.keep_common(seat, text);
                readers.push(Reader { request, text, seat });
            }
        }
        let found = self.read(readers, plain_secs).and_then(|ready| self.go_on(&ready, depth));
        match found {
            // Texts of requests that have ended take the cells: everything is read again.
            Err(DecodeError::NoRoom) => {
                self.forget();
                Ok(Vec::new())
            }
            Err(DecodeError::Failed { reason }) => Err(EngineError::Decode { reason }),
            Ok(found) => Ok(found),
        }
    }

    /// The sequence of a request: its own, or the free one that holds most of its text.
    fn seat(&mut self, request: RequestId, text: &[TokenId]) -> Option<usize> {
        if let Some(own) = self.seats.iter().position(|seat| seat.request == Some(request)) {
            return Some(own);
        }
        let free = self.seats.iter().enumerate().filter(|(_, seat)| seat.request.is_none());
        let (best, _) = free.max_by_key(|(_, seat)| (common(&seat.tokens, text), usize::MAX - seat.tokens.len()))?;
        self.seats[best].request = Some(request);
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
            held.clear();
            self.draft.decoder.clear(seat as SeqId);
        }
    }

    /// Reads what is missing of the texts as far as the time goes. Those that are read to their end have a row now: for
    /// each its index in the step.
    fn read<'a>(&mut self, readers: Vec<Reader<'a>>, plain_secs: f64) -> Result<Vec<(Reader<'a>, usize)>, DecodeError> {
        let n_batch = self.draft.decoder.limits().n_batch;
        let in_time = self.read_secs.map_or(LEAST_READ, |secs| (READ_PART * plain_secs / secs) as usize);
        let mut left = in_time.max(LEAST_READ).min(n_batch);
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
        if batch.len() >= LEAST_READ {
            smooth(&mut self.read_secs, secs / batch.len() as f64);
        }
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
            smooth(&mut self.step_secs, secs);
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

    fn forget(&mut self) {
        for (seq, seat) in self.seats.iter_mut().enumerate() {
            seat.tokens.clear();
            self.draft.decoder.clear(seq as SeqId);
        }
    }
}

fn entry(token: TokenId, position: usize, seat: usize, wants_row: bool) -> BatchToken {
    BatchToken { token, position, seq: seat as SeqId, wants_row }
}

/// Tokens that both begin with.
fn common(one: &[TokenId], other: &[TokenId]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

fn smooth(known: &mut Option<f64>, secs: f64) {
    *known = Some(known.map_or(secs, |old| old + NEW * (secs - old)));
}
