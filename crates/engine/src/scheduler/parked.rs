//! Finished prefixes that have left the cache for main memory.
//!
//! A cached prefix costs every step a little: attention looks at its cells, if only to skip them. While the model is
//! idle the engine therefore saves cached prefixes and clears their cells; a request that matches gets the state back.

use super::admission::common_len;
use super::*;

/// Cells of finished prefixes that a step hardly notices.
const EXCESS_CELLS: usize = 1024;

/// Identifies a saved state; the engine keeps the bytes.
pub type StateKey = u64;

/// A saved sequence.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) key: StateKey,
    pub(super) tokens: Vec<TokenId>,
    /// What [`crate::Decoder::first_held`] said when it was saved.
    pub(super) first_held: usize,
    /// Size of the state.
    n_bytes: usize,
    pub(super) last_used: u64,
}

/// A cached prefix that can be saved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parkable {
    /// Who holds it.
    pub seq: SeqId,
    /// Under which name its state is to be kept.
    pub key: StateKey,
    /// How long it is.
    pub n_tokens: usize,
}

impl Scheduler {
    /// A cached prefix to save, oldest first; `None` while there is work or nothing is cached. A request that wants to
    /// be reproducible and is next on an idle model counts as no work: it shall find the cache empty, since sums come
    /// out differently with other cells in between.
    pub fn parkable(&self) -> Option<Parkable> {
        let may_wait = self.waiting.front().is_none_or(|next| next.submission.prefix_step > 1);
        (self.running.is_empty() && may_wait).then(|| self.oldest_parkable())?
    }

    /// A cached prefix to save although there is work, oldest first: finished prefixes alone hold more cells than running
    /// requests do, by more than a little, and every step pays for them.
    pub fn excess(&self) -> Option<Parkable> {
        let Occupancy { cells_running, cells_cached, .. } = self.occupancy();
        if cells_cached <= cells_running + EXCESS_CELLS {
            return None;
        }
        self.oldest_parkable()
    }

    /// The cached prefix to save first. One that is still to be cut or shifted is not in the cache what it is here.
    pub(super) fn oldest_parkable(&self) -> Option<Parkable> {
        let is_settled = |seq| self.pending_ops.iter().all(|op| op.seq() != seq);
        let candidates = self.cached.iter().filter(|cached| !cached.stays && is_settled(cached.seq));
        let oldest = candidates.min_by_key(|cached| cached.last_used)?;
        Some(Parkable { seq: oldest.seq, key: self.use_counter + 1, n_tokens: oldest.tokens.len() })
    }

    /// The state of `parkable` was saved: its cells are cleared. Saved states beyond `most_bytes` in all are forgotten,
    /// oldest first. Returns the keys whose bytes are to be dropped.
    pub fn parked(
        &mut self,
        parkable: Parkable,
        first_held: usize,
        n_bytes: usize,
        most_bytes: usize,
    ) -> Vec<StateKey> {
        let Some(idx) = self.cached.iter().position(|cached| cached.seq == parkable.seq) else {
            return vec![parkable.key];
        };
        self.use_counter = self.use_counter.max(parkable.key);
        let (tokens, last_used) = (std::mem::take(&mut self.cached[idx].tokens), self.cached[idx].last_used);
        self.evict(idx);
        let mut dropped = Vec::new();
        // A state that another one begins with adds nothing, unless states can be continued at their end only.
        if self.config.limits.sharing != crate::PrefixSharing::TakeOverWhole {
            self.parked.retain(|other| {
                let keep = !tokens.starts_with(&other.tokens);
                dropped.extend((!keep).then_some(other.key));
                keep
            });
        }
        // A state has what its last token attends to only, however much the sequence had.
        let attended = self.config.limits.sliding_window.map_or(0, |window| tokens.len().saturating_sub(window));
        let first_held = first_held.max(attended);
        self.parked.push(Parked { key: parkable.key, tokens, first_held, n_bytes, last_used });
        while self.parked.iter().map(|parked| parked.n_bytes).sum::<usize>() > most_bytes {
            let oldest = (0..self.parked.len()).min_by_key(|&idx| self.parked[idx].last_used);
            dropped.push(self.parked.remove(oldest.expect("a sum above 0 has a summand; this is a bug")).key);
        }
        dropped
    }

    /// The state cannot be saved or is too large: the prefix stays in the cache and is not offered again.
    pub fn not_parked(&mut self, parkable: Parkable) {
        if let Some(cached) = self.cached.iter_mut().find(|cached| cached.seq == parkable.seq) {
            cached.stays = true;
        }
    }

    /// Tokens of `reusable` that a saved state covers.
    pub(super) fn parked_len(&self, idx: usize, reusable: &[TokenId]) -> usize {
        common_len(reusable, &self.parked[idx].tokens)
    }
}
