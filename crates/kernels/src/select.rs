//! Taking the few large values out of a row without sorting it.

use std::cmp::Ordering;

use crate::peak::BlockMaxima;

/// One value of a row that is still in play.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Candidate {
    /// Where the value stands in its row: the token.
    pub index: u32,
    /// The value: the logit.
    pub value: f32,
    /// Unnormalised probability; 0 until somebody computes it.
    pub weight: f32,
}

/// Larger value first, ties by lower index: a total order of sound values, so every selection has one answer.
#[inline]
pub fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.partial_cmp(&a.value).unwrap_or(Ordering::Equal).then(a.index.cmp(&b.index))
}

/// Replaces `found` by all values of `row` that are `>= threshold` and above −∞, in the order of the row. Only blocks
/// whose maximum reaches the threshold are read.
///
/// `maxima` must be a scan of `row`.
pub fn gather_at_least(row: &[f32], maxima: &BlockMaxima, threshold: f32, found: &mut Vec<Candidate>) {
    let threshold = threshold.max(f32::MIN);
    found.clear();
    let block_len = maxima.block_len();
    for (block_idx, &block_max) in maxima.values().iter().enumerate() {
        if block_max >= threshold {
            let start = block_idx * block_len;
            let end = (start + block_len).min(row.len());
            gather_block(&row[start..end], start, threshold, found);
        }
    }
}

/// As [`gather_at_least`], of the values whose bit in `mask` is set; `maxima` must be a scan under that mask.
pub fn gather_masked(row: &[f32], mask: &[u32], maxima: &BlockMaxima, threshold: f32, found: &mut Vec<Candidate>) {
    let threshold = threshold.max(f32::MIN);
    found.clear();
    let block_len = maxima.block_len();
    for (block_idx, &block_max) in maxima.values().iter().enumerate() {
        if block_max < threshold {
            continue;
        }
        let start = block_idx * block_len;
        let end = (start + block_len).min(row.len());
        // Blocks are whole words of the mask.
        for (word_idx, &word) in mask[start / 32..end.div_ceil(32)].iter().enumerate().filter(|(_, word)| **word != 0) {
            let from = start + 32 * word_idx;
            for (offset, &value) in row[from..end.min(from + 32)].iter().enumerate() {
                if word >> offset & 1 == 1 && value >= threshold {
                    found.push(Candidate { index: (from + offset) as u32, value, weight: 0.0 });
                }
            }
        }
    }
}

/// Writes every value and keeps the matching ones by moving the end: no branch to mispredict.
fn gather_block(block: &[f32], start: usize, threshold: f32, found: &mut Vec<Candidate>) {
    let kept_len = found.len();
    found.resize(kept_len + block.len(), Candidate::default());
    let room = &mut found[kept_len..];
    let mut n_found = 0;
    for (offset, &value) in block.iter().enumerate() {
        room[n_found] = Candidate { index: (start + offset) as u32, value, weight: 0.0 };
        n_found += usize::from(value >= threshold);
    }
    found.truncate(kept_len + n_found);
}

/// Replaces `best` by the `k` largest values of `row` above −∞ (fewer when the row has fewer), unsorted.
///
/// The k-th largest block maximum is a bound that at least k values reach, so one selection among the maxima and a
/// look into k blocks replace a sort. `maxima` must be a scan of `row`; `pivots` is scratch.
pub fn top_k(row: &[f32], maxima: &BlockMaxima, k: usize, pivots: &mut Vec<f32>, best: &mut Vec<Candidate>) {
    if k == 0 {
        best.clear();
        return;
    }
    gather_at_least(row, maxima, kth_maximum(maxima, k, pivots), best);
    keep_top(best, k);
}

/// As [`top_k`], of the values whose bit in `mask` is set; `maxima` must be a scan under that mask.
pub fn masked_top_k(
    (row, mask): (&[f32], &[u32]),
    maxima: &BlockMaxima,
    k: usize,
    pivots: &mut Vec<f32>,
    best: &mut Vec<Candidate>,
) {
    if k == 0 {
        best.clear();
        return;
    }
    gather_masked(row, mask, maxima, kth_maximum(maxima, k, pivots), best);
    keep_top(best, k);
}

/// A bound that at least `k` values reach: the k-th largest block maximum, −∞ where there are fewer blocks.
fn kth_maximum(maxima: &BlockMaxima, k: usize, pivots: &mut Vec<f32>) -> f32 {
    if k > maxima.values().len() {
        return f32::NEG_INFINITY;
    }
    pivots.clear();
    pivots.extend_from_slice(maxima.values());
    *pivots.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Keeps the `k` best of `candidates` by [`by_rank`], unsorted.
pub fn keep_top(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, by_rank);
    }
    candidates.truncate(k);
}
