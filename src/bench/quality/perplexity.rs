//! How well a model predicts a text.

use anyhow::bail;

use super::scorer::Scorer;
use crate::bench::progress::Progress;
use crate::bench::report::{Better, Metric, number};
use crate::bench::stats::Spread;
use crate::bench::stop::Stop;

/// The size of pieces, and how many at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) n_context: usize,
    pub(super) n_pieces: Option<usize>,
}

/// What came out.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Of each scored token.
    log_probabilities: Vec<f64>,
    /// Perplexity of each piece.
    pieces: Vec<f64>,
}

/// Scores the second half of each piece of `n_context` tokens. What does not fill a piece at the end is left out.
pub(super) fn measure(scorer: &mut Scorer, text: &str, plan: Plan, stop: &Stop) -> anyhow::Result<Found> {
    let n_context = plan.n_context;
    if n_context > scorer.n_context() {
        bail!("a context of {n_context} tokens is more than the model's {}", scorer.n_context());
    }
    let tokens = scorer.tokenize(text)?;
    if tokens.len() < 2 * n_context {
        let least = 2 * n_context;
        bail!("the text has {} tokens; a perplexity needs at least two pieces of {n_context}, {least}", tokens.len());
    }
    let beginning = scorer.beginning()?;
    let n_pieces = plan.n_pieces.unwrap_or(usize::MAX).min(tokens.len() / n_context);
    let mut progress = Progress::new(n_pieces);
    let mut found = Found { log_probabilities: Vec::new(), pieces: Vec::new() };
    for piece in tokens.chunks_exact(n_context).take(n_pieces) {
        if stop.is_requested() {
            break;
        }
        let mut piece = piece.to_vec();
        piece[0] = beginning.unwrap_or(piece[0]);
        let scores = scorer.score(&piece, n_context / 2 + 1)?;
        found.pieces.push((-mean(&scores)).exp());
        found.log_probabilities.extend(scores);
        progress.done(&format!("perplexity so far {}", number(found.perplexity())));
    }
    Ok(found)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Found {
    pub(super) fn perplexity(&self) -> f64 {
        (-mean(&self.log_probabilities)).exp()
    }

    /// Perplexity with the interval that the spread over tokens gives, and how many were scored.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        if self.pieces.is_empty() {
            return Vec::new();
        }
        let (n, mean) = (self.log_probabilities.len() as f64, mean(&self.log_probabilities));
        let variance =
            self.log_probabilities.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let error = 1.96 * (variance / n).sqrt();
        let spread = Spread { median: (-mean).exp(), low: (-mean - error).exp(), high: (-mean + error).exp() };
        let perplexity = Metric::with_spread("perplexity", "", Better::Lower, self.pieces.clone(), spread);
        std::iter::once(perplexity).chain(Metric::new("scored tokens", "", Better::Neither, vec![n])).collect()
    }
}
