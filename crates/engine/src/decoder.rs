//! What the batching loop needs of a model.

use crate::{EngineError, TokenId};

/// Number of a sequence in the model's cache, `0..n_seq_max`.
pub type SeqId = u32;

/// How a cached prefix may be handed to another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixSharing {
    /// Any prefix of any sequence can be copied without computing it again; the cells are shared.
    Copy,
    /// A finished sequence can be cut and taken over, but two sequences never share cells.
    TakeOver,
    /// A finished sequence can be taken over, but only whole: the state cannot be cut (recurrent models).
    TakeOverWhole,
}

/// Fixed facts about a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Cells in the cache, shared by all sequences.
    pub n_cells: usize,
    /// Most tokens one sequence may hold.
    pub n_sequence_tokens: usize,
    /// Sequence ids that exist.
    pub n_seqs: usize,
    /// Most tokens in one step.
    pub n_batch: usize,
    /// Most tokens that are computed at once: a longer step is taken apart, and between its pieces cells that have left
    /// a sliding window may be lost.
    pub n_physical_batch: usize,
    /// Entries in the vocabulary: length of a logits row.
    pub n_vocab: usize,
    /// What prefix reuse is possible.
    pub sharing: PrefixSharing,
    /// Width of the attention window in tokens where cells behind it may be lost.
    pub sliding_window: Option<usize>,
    /// Can positions be moved, as a context shift needs?
    pub can_shift: bool,
}

impl DecoderLimits {
    /// Can a sequence that every layer holds from `first_held` on be continued behind its first `n_tokens`? What comes
    /// next attends to itself and to one token less than the window before it. A state that is only ever continued at
    /// its end has what it needs there.
    pub fn can_continue(&self, n_tokens: usize, first_held: usize) -> bool {
        match self.sliding_window {
            Some(window) if self.sharing != PrefixSharing::TakeOverWhole => {
                first_held <= (n_tokens + 1).saturating_sub(window)
            }
            Some(_) | None => true,
        }
    }
}

/// One token of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchToken {
    /// The token.
    pub token: TokenId,
    /// Its position in the sequence, from 0.
    pub position: usize,
    /// The sequence.
    pub seq: SeqId,
    /// Is a logits row wanted for it?
    pub wants_row: bool,
}

/// What is done with a row: it gets an index and the row.
pub type RowWork<'a> = dyn Fn(usize, Result<&[f32], EngineError>) + Sync + 'a;

/// A model with its cache, owned by one thread. It decodes and lends rows; it never samples.
pub trait Decoder {
    /// The fixed facts; the same at every call.
    fn limits(&self) -> &DecoderLimits;

    /// Computes one step, at most `n_batch` tokens. Positions of a sequence must follow what it holds. Rows of the
    /// previous step become invalid. A failed step leaves the cache as it was before.
    ///
    /// # Errors
    /// [`DecodeError::NoRoom`] when the cache has no place for the batch, [`DecodeError::Failed`] otherwise.
    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError>;

    /// Logits of the batch entry `entry_idx` of the last step: `[n_vocab]`, f32. Valid until the next call that
    /// takes `&mut self`.
    ///
    /// # Errors
    /// [`EngineError::Decode`] when the entry asked for no row.
    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError>;

    /// Runs `work` once for each of these entries of the last step, with the index into `entry_idxs` and the row
    /// ([`Decoder::row`]): for several of them at once where that is worth it and threads are free. `work` must not panic.
    fn for_each_row(&mut self, entry_idxs: &[usize], work: &RowWork<'_>) {
        entry_idxs.iter().enumerate().for_each(|(idx, &entry_idx)| work(idx, self.row(entry_idx)));
    }

    /// Makes `to` (empty before) hold the first `n_tokens` of `from`, sharing cells where it can.
    ///
    /// # Errors
    /// [`CacheRefused`] when this cannot be done, or when `from` is shorter or does not hold any more what the token
    /// behind the prefix attends to; both sequences are unchanged then.
    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused>;

    /// Drops everything of `seq` from position `n_tokens` on.
    ///
    /// # Errors
    /// [`CacheRefused`] for a state that cannot be cut, and as for [`Decoder::copy_prefix`]; the sequence is unchanged
    /// then.
    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused>;

    /// Drops all of `seq`; always possible.
    fn clear(&mut self, seq: SeqId);

    /// Drops positions `keep..keep + discard` of `seq` and moves the later ones down by `discard`.
    ///
    /// # Errors
    /// [`CacheRefused`] when positions cannot be moved.
    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused>;

    /// The state of `seq` as bytes for [`Decoder::restore`]; `None` when it cannot be had. With a sliding window it holds
    /// what the end of the sequence attends to, and no earlier cells of it.
    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>>;

    /// Gives `to` (empty before) a state that [`Decoder::save`] made, of a sequence of this decoder.
    ///
    /// # Errors
    /// [`CacheRefused`] when there is no room or the bytes are not such a state; `to` is empty then.
    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused>;

    /// First position of `seq` that every layer still holds; 0 for models without a sliding window.
    fn first_held(&self, seq: SeqId) -> usize;
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The cache has no place for the batch; less may fit.
    #[error("the cache has no room for the batch")]
    NoRoom,
    /// Anything else.
    #[error("{reason}")]
    Failed {
        /// What the backend said.
        reason: String,
    },
}

/// The cache cannot do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cache refused the operation")]
pub struct CacheRefused;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::limits;

    #[test]
    fn the_window_of_the_next_token_must_be_held() {
        let windowed = DecoderLimits { sliding_window: Some(16), ..limits() };
        // The token at position 20 attends to positions 5 to 20.
        assert!(windowed.can_continue(20, 5) && !windowed.can_continue(20, 6));
        assert!(windowed.can_continue(15, 0) && !windowed.can_continue(15, 1));
        let whole = DecoderLimits { sharing: PrefixSharing::TakeOverWhole, ..windowed };
        assert!(whole.can_continue(20, 19), "its end is where it goes on");
        assert!(limits().can_continue(20, 0));
    }
}
