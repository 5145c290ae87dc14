//! The samplers that drop tokens: top-k, nucleus, min-p, typical, n-sigma and XTC.

use ingle_kernels::{Candidate, by_rank, mean_deviation};

use super::params::Xtc;
use super::pool::{Pool, Settled, Softmax};

/// The nucleus is looked for among this many tokens first; a model that is sure of itself needs no more.
const NUCLEUS_HEAD: usize = 128;

/// Keeps the `k` largest logits.
pub(super) fn top_k(pool: &mut Pool, k: usize) {
    let n_counted = pool.n_counted().min(k);
    if pool.is_row() {
        pool.gather_top(k);
    } else {
        pool.keep_top(k);
    }
    pool.become_list(n_counted);
}

/// Keeps the smallest set of the likeliest tokens that reaches `p`.
pub(super) fn top_p(pool: &mut Pool, p: f32, min_keep: usize) {
    let softmax = pool.softmax();
    let target = f64::from(p) * softmax.sum;
    if pool.is_row() {
        return top_p_of_row(pool, softmax, p, min_keep);
    }
    pool.sort_if_short();
    let reached = |sum: f64| sum >= target;
    let n_kept = match pool.is_sorted() {
        true => pool.sorted_nucleus_len(min_keep, reached),
        false => pool.nucleus_len(Settled::default(), min_keep, by_rank, reached),
    };
    if let Some(n_kept) = n_kept {
        keep_first(pool, n_kept);
    }
}

/// Looks at the head of the row first, and only then for the end of the nucleus in all of it.
fn top_p_of_row(pool: &mut Pool, softmax: Softmax, p: f32, min_keep: usize) {
    let target = f64::from(p) * softmax.sum;
    let reached = |sum: f64| sum >= target;
    let n_counted = pool.n_counted();
    pool.gather_top(NUCLEUS_HEAD.max(min_keep));
    if pool.list().len() < min_keep {
        return pool.become_list(n_counted.min(min_keep));
    }
    pool.sort();
    pool.weigh(softmax.max);
    if let Some(n_kept) = pool.sorted_nucleus_len(min_keep, reached) {
        return keep_first(pool, n_kept);
    }
    // All tokens below this logit together weigh less than half of what the nucleus may leave out.
    let low = softmax.logit_of(0.5 * (1.0 - f64::from(p)) / n_counted as f64) as f32;
    let head_end = pool.list().last().map_or(softmax.max, |least| least.value);
    let settled = pool.gather_nucleus(softmax, target, low.min(head_end), head_end);
    pool.become_list(n_counted);
    if let Some(n_kept) = pool.nucleus_len(settled, min_keep, by_rank, reached) {
        keep_first(pool, n_kept);
    }
}

/// Keeps tokens at least `p` times as likely as the likeliest.
pub(super) fn min_p(pool: &mut Pool, p: f32, min_keep: usize) {
    let threshold = pool.max() + p.ln();
    let n_counted = pool.n_counted();
    if pool.is_row() {
        pool.gather_at_least(threshold);
        if pool.list().len() < min_keep {
            pool.gather_top(min_keep);
        }
    } else {
        let n_reaching = pool.list().iter().filter(|c| c.value >= threshold).count();
        pool.keep_top(n_reaching.max(min_keep));
    }
    pool.become_list(n_counted.min(min_keep));
}

/// Keeps the tokens whose surprise is nearest to the entropy, until they exceed `p` together.
pub(super) fn typical_p(pool: &mut Pool, p: f32, min_keep: usize) {
    let (softmax, moments) = pool.moments();
    let n_counted = pool.n_counted();
    let max = f64::from(softmax.max);
    // The logit of a token exactly as surprising as the entropy; distance from it is the score.
    let centre = max + softmax.sum.ln() - moments.entropy();
    if pool.is_row() {
        // Below lie tokens further from the centre than the largest logit, together too light to matter.
        let spared = softmax.logit_of(0.5 * (1.0 - f64::from(p)) / n_counted as f64);
        pool.gather_at_least(spared.min(2.0 * centre - max).min(max) as f32);
        if pool.list().len() < min_keep {
            pool.gather_at_least(f32::NEG_INFINITY);
        }
        pool.become_list(n_counted);
        pool.weigh(softmax.max);
    }
    let distance = |c: &Candidate| (f64::from(c.value) - centre).abs();
    let rank = |a: &Candidate, b: &Candidate| distance(a).total_cmp(&distance(b)).then(a.index.cmp(&b.index));
    let target = f64::from(p) * softmax.sum;
    if let Some(n_kept) = pool.nucleus_len(Settled::default(), min_keep, rank, |sum| sum > target) {
        keep_first(pool, n_kept);
    }
}

fn keep_first(pool: &mut Pool, n_kept: usize) {
    pool.truncate(n_kept);
    pool.become_list(n_kept);
}

/// Keeps logits within `n` standard deviations of the largest.
pub(super) fn top_n_sigma(pool: &mut Pool, n: f32) {
    if pool.n_counted() <= 1 {
        return;
    }
    let n_counted = pool.n_counted();
    if pool.is_row() {
        let threshold = pool.max() - n * pool.row_deviation() as f32;
        pool.gather_at_least(threshold);
    } else {
        let threshold = pool.max() - n * list_deviation(pool.list()) as f32;
        pool.retain(|candidate| candidate.value >= threshold);
    }
    pool.become_list(n_counted);
}

fn list_deviation(list: &[Candidate]) -> f64 {
    let n = list.len().max(1) as f64;
    let mean = list.iter().map(|c| f64::from(c.value)).sum::<f64>() / n;
    let squares: f64 = list.iter().map(|c| (f64::from(c.value) - mean).powi(2)).sum();
    (squares / n).sqrt()
}

impl Pool<'_> {
    /// Standard deviation of the row.
    fn row_deviation(&mut self) -> f64 {
        mean_deviation(self.row()).deviation
    }
}

/// With the configured probability (`chance` is uniform in [0, 1)), drops all top choices but the least likely.
pub(super) fn xtc(pool: &mut Pool, xtc: Xtc, min_keep: usize, chance: f32) {
    if chance > xtc.probability || pool.n_counted() < 2 {
        return;
    }
    pool.list_all();
    let softmax = pool.softmax();
    let threshold = f64::from(xtc.threshold) * softmax.sum;
    let is_top = |candidate: &Candidate| f64::from(candidate.weight) >= threshold;
    let tops = pool.list().iter().filter(|candidate| is_top(candidate));
    let n_tops = tops.clone().count();
    let Some(least) = tops.copied().max_by(by_rank) else { return };
    let n_left = pool.n_counted() + 1 - n_tops;
    if n_tops >= 2 && n_left >= min_keep {
        pool.retain(|candidate| candidate.index == least.index || !is_top(candidate));
        pool.become_list(n_left);
    }
}
