//! The tokens still in play: first a whole row, after the first truncation a short list.

use std::collections::HashMap;

use ingle_kernels::{
    BlockMaxima, Candidate, EXP_BLOCK, ExpMoments, RowFault, by_rank, copy_divided, copy_masked, divide_row,
    exp_block_sums, exp_moments, exp_non_positive, gather_at_least, gather_masked, keep_top, mask_words, masked_top_k,
    sum_exp, sum_exp_at_least, top_k,
};

use super::error::SamplingError;

/// Lists up to this length are sorted rather than selected from.
const SORT_LEN: usize = 512;

/// Each halves the logits among which the end of a nucleus is looked for, at the price of a pass over the row.
const N_BISECTIONS: usize = 8;

/// Candidates at the head of a list that certainly belong to a nucleus.
#[derive(Clone, Copy, Default)]
pub(super) struct Settled {
    pub len: usize,
    /// Their weight together.
    pub weight: f64,
}

/// Buffers that sampling reuses from token to token. They carry nothing over; sequences may share one.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// `[n_vocab]`: the row after edits.
    row: Vec<f32>,
    pub(super) maxima: BlockMaxima,
    pub(super) list: Vec<Candidate>,
    pub(super) pivots: Vec<f32>,
    sums: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The backend's row, untouched.
    Lent,
    /// The backend's row, of which the mask allows a part.
    Masked,
    /// The row in the scratch.
    Edited,
    /// The list in the scratch.
    List,
}

/// The denominator of a softmax.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    /// The largest logit.
    pub max: f32,
    /// Σ e^(logit − max)
    pub sum: f64,
}

impl Softmax {
    /// The logit of a token with this probability.
    pub(super) fn logit_of(&self, probability: f64) -> f64 {
        f64::from(self.max) + (probability * self.sum).ln()
    }
}

/// Candidates of one row. Tokens at −∞ are never listed, but `n_counted` counts those that llama.cpp's chain would
/// still carry: its dynamic temperature and `min_keep` depend on that number.
pub(super) struct Pool<'a> {
    lent: &'a [f32],
    /// Empty where there is none.
    mask: &'a [u32],
    scratch: &'a mut Scratch,
    form: Form,
    sorted: bool,
    n_counted: usize,
}

impl<'a> Pool<'a> {
    /// All tokens of `row` that `mask` allows.
    ///
    /// # Errors
    /// A NaN or +∞ in the row, with a mask among what it allows and near it, or a mask that is too short.
    pub(super) fn open(
        row: &'a [f32],
        mask: Option<&'a [u32]>,
        scratch: &'a mut Scratch,
    ) -> Result<Self, SamplingError> {
        let needed_words = mask_words(row.len());
        let form = match mask {
            None => {
                scan(&mut scratch.maxima, row)?;
                Form::Lent
            }
            Some(mask) if mask.len() < needed_words => {
                return Err(SamplingError::MaskLength { words: mask.len(), needed_words });
            }
            Some(mask) => {
                let scanned = scratch.maxima.scan_masked(row, mask);
                checked(scanned, &scratch.maxima, row)?;
                Form::Masked
            }
        };
        let mask = mask.unwrap_or_default();
        Ok(Self { lent: row, mask, scratch, form, sorted: false, n_counted: row.len() })
    }

    /// Makes a row of its own, without the mask, for what looks at whole rows.
    fn unmask(&mut self) {
        if self.form == Form::Masked {
            // The mask is long enough, and the row was looked at.
            let _ = copy_masked(self.lent, self.mask, &mut self.scratch.row);
            self.form = Form::Edited;
        }
    }

    pub(super) fn is_row(&self) -> bool {
        self.form != Form::List
    }

    pub(super) fn n_counted(&self) -> usize {
        self.n_counted
    }

    /// The list; meaningless while the pool is a row.
    pub(super) fn list(&self) -> &[Candidate] {
        &self.scratch.list
    }

    /// The row; while the pool is one.
    pub(super) fn row(&mut self) -> &[f32] {
        self.unmask();
        if self.form == Form::Lent { self.lent } else { &self.scratch.row }
    }

    /// Values of the row.
    pub(super) fn row_len(&self) -> usize {
        self.lent.len()
    }

    /// The most likely token, ties to the lowest; `None` when every token is excluded.
    pub(super) fn peak(&self) -> Option<Candidate> {
        if !self.is_row() {
            return self.list().iter().copied().min_by(by_rank);
        }
        let peak = match self.form {
            Form::Masked => self.scratch.maxima.masked_peak(self.lent, self.mask)?,
            Form::Lent => self.scratch.maxima.peak(self.lent)?,
            Form::Edited | Form::List => self.scratch.maxima.peak(&self.scratch.row)?,
        };
        let candidate = Candidate { index: peak.index as u32, value: peak.value, weight: 1.0 };
        (peak.value > f32::NEG_INFINITY).then_some(candidate)
    }

    /// Changes the logits of the tokens that `tokens` names; none becomes +∞.
    pub(super) fn change<V>(&mut self, tokens: &HashMap<u32, V>, change: impl Fn(f32, &V) -> f32) {
        if tokens.is_empty() {
            return;
        }
        if self.form == Form::List {
            self.sorted = false;
            for candidate in &mut self.scratch.list {
                if let Some(value) = tokens.get(&candidate.index) {
                    candidate.value = change(candidate.value, value).min(f32::MAX);
                }
            }
            self.scratch.list.retain(|candidate| candidate.value > f32::NEG_INFINITY);
            return;
        }
        self.own_row();
        let Scratch { row, maxima, .. } = &mut *self.scratch;
        for (&token, value) in tokens {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit = change(*logit, value).min(f32::MAX);
                maxima.refresh(row, token as usize);
            }
        }
    }

    /// As [`Self::change`], but no token is excluded by it: a logit above −∞ stays above.
    pub(super) fn penalise<V>(&mut self, tokens: &HashMap<u32, V>, change: impl Fn(f32, &V) -> f32) {
        self.change(tokens, |logit, value| match logit {
            f32::NEG_INFINITY => logit,
            _ => change(logit, value).max(f32::MIN),
        });
    }

    fn own_row(&mut self) {
        self.unmask();
        if self.form == Form::Lent {
            self.scratch.row.clear();
            self.scratch.row.extend_from_slice(self.lent);
            self.form = Form::Edited;
        }
    }

    /// Divides every logit; `divisor` is positive. A token whose quotient overflows to −∞ drops out.
    pub(super) fn divide(&mut self, divisor: f32) {
        self.unmask();
        match self.form {
            Form::List => {
                self.scratch.list.iter_mut().for_each(|candidate| candidate.value /= divisor);
                self.scratch.list.retain(|candidate| candidate.value > f32::NEG_INFINITY);
            }
            Form::Edited => {
                divide_row(&mut self.scratch.row, divisor);
                self.scratch.maxima.divide(divisor);
            }
            Form::Lent => {
                copy_divided(self.lent, divisor, &mut self.scratch.row);
                self.scratch.maxima.divide(divisor);
                self.form = Form::Edited;
            }
            Form::Masked => {}
        }
    }

    /// The softmax denominator over the pool; weighs the list if it is one.
    pub(super) fn softmax(&mut self) -> Softmax {
        let max = self.max();
        if self.is_row() {
            return Softmax { max, sum: sum_exp(self.row(), max) };
        }
        Softmax { max, sum: self.weigh(max) }
    }

    /// Softmax denominator and entropy moments over the pool; weighs the list if it is one.
    pub(super) fn moments(&mut self) -> (Softmax, ExpMoments) {
        let max = self.max();
        let moments = if self.is_row() {
            exp_moments(self.row(), max)
        } else {
            let sum = self.weigh(max);
            let weighed = self.list().iter().filter(|c| c.weight > 0.0);
            let first = weighed.map(|c| f64::from(c.weight) * f64::from(c.value - max)).sum();
            ExpMoments { sum, first }
        };
        (Softmax { max, sum: moments.sum }, moments)
    }

    /// The largest logit.
    pub(super) fn max(&self) -> f32 {
        if self.is_row() {
            return self.scratch.maxima.max();
        }
        self.list().iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.value))
    }

    /// Sets each listed weight to e^(logit − max); answers their sum.
    pub(super) fn weigh(&mut self, max: f32) -> f64 {
        let mut sum = 0.0;
        for candidate in &mut self.scratch.list {
            candidate.weight = exp_non_positive(candidate.value - max);
            sum += f64::from(candidate.weight);
        }
        sum
    }

    /// Fills the list with the `k` largest of the row. The row stays the pool until [`Self::become_list`].
    pub(super) fn gather_top(&mut self, k: usize) {
        let Scratch { row, maxima, pivots, list, .. } = &mut *self.scratch;
        match self.form {
            Form::Masked => masked_top_k((self.lent, self.mask), maxima, k, pivots, list),
            Form::Lent => top_k(self.lent, maxima, k, pivots, list),
            Form::Edited | Form::List => top_k(row, maxima, k, pivots, list),
        }
        self.sorted = false;
    }

    /// Fills the list with the logits at or above `threshold` (−∞: all there are). The row stays the pool until
    /// [`Self::become_list`].
    pub(super) fn gather_at_least(&mut self, threshold: f32) {
        let Scratch { row, maxima, list, .. } = &mut *self.scratch;
        match self.form {
            Form::Masked => gather_masked(self.lent, self.mask, maxima, threshold, list),
            Form::Lent => gather_at_least(self.lent, maxima, threshold, list),
            Form::Edited | Form::List => gather_at_least(row, maxima, threshold, list),
        }
        self.sorted = false;
    }

    /// From here on the list is the pool. `n_counted` is what llama.cpp would count.
    pub(super) fn become_list(&mut self, n_counted: usize) {
        self.form = Form::List;
        self.n_counted = n_counted.max(self.scratch.list.len());
    }

    /// Makes the list the pool, with every token above −∞.
    pub(super) fn list_all(&mut self) {
        if self.is_row() {
            self.gather_at_least(f32::NEG_INFINITY);
            self.become_list(self.n_counted);
        }
    }

    /// Keeps listed candidates that `keep` accepts.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Candidate) -> bool) {
        self.scratch.list.retain(keep);
    }

    /// Keeps the `k` best of the list.
    pub(super) fn keep_top(&mut self, k: usize) {
        if self.sorted {
            self.scratch.list.truncate(k);
        } else {
            keep_top(&mut self.scratch.list, k);
        }
    }

    pub(super) fn sort(&mut self) {
        if !self.sorted {
            self.scratch.list.sort_unstable_by(by_rank);
            self.sorted = true;
        }
    }

    /// Sorts lists that are short enough for a sort to be the quick way.
    pub(super) fn sort_if_short(&mut self) {
        if self.scratch.list.len() <= SORT_LEN {
            self.sort();
        }
    }

    /// How many of the best candidates reach `reached` together (it sees the running sum of weights), at least
    /// `min_keep`; these then stand first. `rank` orders the candidates. The first `settled.len` of the list are known
    /// to belong to them; the others must be weighed.
    pub(super) fn nucleus_len(
        &mut self,
        settled: Settled,
        min_keep: usize,
        rank: impl Fn(&Candidate, &Candidate) -> std::cmp::Ordering,
        reached: impl Fn(f64) -> bool,
    ) -> Option<usize> {
        let list = &mut self.scratch.list;
        let (mut low, mut high, mut before) = (settled.len, list.len(), settled.weight);
        // Invariant: the answer lies in low..high, everything before `low` ranks above it and weighs `before`.
        while high - low > SORT_LEN {
            let middle = (high - low) / 2;
            list[low..high].select_nth_unstable_by(middle, &rank);
            let half: f64 = list[low..low + middle].iter().map(|c| f64::from(c.weight)).sum();
            if reached(before + half) && low + middle >= min_keep {
                high = low + middle;
            } else {
                before += half;
                low += middle;
            }
        }
        list[low..high].sort_unstable_by(&rank);
        self.sorted = false;
        for (offset, candidate) in list[low..high].iter().enumerate() {
            before += f64::from(candidate.weight);
            let n_kept = low + offset + 1;
            if n_kept >= min_keep && reached(before) {
                return Some(n_kept);
            }
        }
        None
    }

    /// Fills the list from the row with the tokens that weigh `target` together and as few more as bisecting the logits
    /// finds, from `low`, which all of them reach, up to `guess`. The tokens that certainly belong stand first and are
    /// not weighed, the others are.
    pub(super) fn gather_nucleus(&mut self, softmax: Softmax, target: f64, low: f32, guess: f32) -> Settled {
        self.unmask();
        let row = if self.form == Form::Lent { self.lent } else { &self.scratch.row };
        let (mut low, mut high, mut middle) = (low, f32::INFINITY, guess);
        let mut settled = Settled::default();
        for _ in 0..N_BISECTIONS {
            let weight = sum_exp_at_least(row, &self.scratch.maxima, softmax.max, middle);
            if weight >= target {
                low = middle;
            } else {
                (high, settled.weight) = (middle, weight);
            }
            if high == f32::INFINITY {
                break; // Ties: the tokens as likely as the guess already reach the target.
            }
            middle = 0.5 * (low + high);
        }
        self.gather_at_least(low);
        for at in 0..self.scratch.list.len() {
            if self.scratch.list[at].value >= high {
                self.scratch.list.swap(at, settled.len);
                settled.len += 1;
            }
        }
        for candidate in &mut self.scratch.list[settled.len..] {
            candidate.weight = exp_non_positive(candidate.value - softmax.max);
        }
        settled
    }

    /// As [`Self::nucleus_len`] over the first of a list that is sorted by logit.
    pub(super) fn sorted_nucleus_len(&self, min_keep: usize, reached: impl Fn(f64) -> bool) -> Option<usize> {
        let mut sum = 0.0;
        let enough = |(index, candidate): (usize, &Candidate)| {
            sum += f64::from(candidate.weight);
            index + 1 >= min_keep && reached(sum)
        };
        self.list().iter().enumerate().position(enough).map(|index| index + 1)
    }

    pub(super) fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// Keeps the first `n` of the list.
    pub(super) fn truncate(&mut self, n: usize) {
        self.scratch.list.truncate(n);
    }

    /// Draws a token: `uniform` is in [0, 1). Answers the token and its probability within the pool.
    pub(super) fn draw(&mut self, uniform: f64) -> Option<(u32, f64)> {
        let max = self.max();
        if max == f32::NEG_INFINITY {
            return None;
        }
        if self.is_row() { self.draw_from_row(max, uniform) } else { self.draw_from_list(max, uniform) }
    }

    fn draw_from_list(&mut self, max: f32, uniform: f64) -> Option<(u32, f64)> {
        let sum = self.weigh(max);
        let weights = self.list().iter().map(|c| (c.index, c.weight));
        pick(weights, uniform * sum).map(|(token, weight)| (token, f64::from(weight) / sum))
    }

    /// Finds the block by its sum, then the token in the block.
    fn draw_from_row(&mut self, max: f32, uniform: f64) -> Option<(u32, f64)> {
        self.unmask();
        let row = if self.form == Form::Lent { self.lent } else { &self.scratch.row };
        let sum = exp_block_sums(row, max, &mut self.scratch.sums);
        let blocks = self.scratch.sums.iter().enumerate();
        let mut before = 0.0;
        let mut chosen = None;
        for (block_idx, &weight) in blocks.filter(|(_, weight)| **weight > 0.0) {
            chosen = Some((block_idx, before));
            if before + weight >= uniform * sum {
                break;
            }
            before += weight;
        }
        let (block_idx, before) = chosen?;
        let start = block_idx * EXP_BLOCK;
        let end = (start + EXP_BLOCK).min(row.len());
        let weights = (start..end).map(|token| (token as u32, exp_non_positive(row[token] - max)));
        pick(weights, uniform * sum - before).map(|(token, weight)| (token, f64::from(weight) / sum))
    }

    /// Every token left with its probability, likeliest first.
    pub(super) fn distribution(mut self) -> Vec<(u32, f32)> {
        self.list_all();
        self.sort();
        let softmax = self.softmax();
        self.list().iter().map(|c| (c.index, (f64::from(c.weight) / softmax.sum) as f32)).collect()
    }
}

/// The token where the running sum of weights reaches `target`; the last with a weight when rounding leaves none.
fn pick(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> Option<(u32, f32)> {
    let (mut sum, mut last) = (0.0, None);
    for (token, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        sum += f64::from(weight);
        last = Some((token, weight));
        if sum >= target {
            break;
        }
    }
    last
}

/// Scans a row; refuses NaN and +∞.
pub(super) fn scan(maxima: &mut BlockMaxima, row: &[f32]) -> Result<(), SamplingError> {
    let scanned = maxima.scan(row);
    checked(scanned, maxima, row)
}

fn checked(scanned: Result<(), RowFault>, maxima: &BlockMaxima, row: &[f32]) -> Result<(), SamplingError> {
    match scanned {
        Err(RowFault::NotANumber { index }) => Err(SamplingError::BadLogit { index }),
        Err(RowFault::Empty) => Err(SamplingError::NoCandidate),
        Ok(()) if maxima.max() == f32::INFINITY => Err(bad_logit(row)),
        Ok(()) => Ok(()),
    }
}

#[cold]
fn bad_logit(row: &[f32]) -> SamplingError {
    let index = row.iter().position(|x| x.is_nan() || *x == f32::INFINITY).unwrap_or(0);
    SamplingError::BadLogit { index }
}
