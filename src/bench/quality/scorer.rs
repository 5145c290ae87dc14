//! Log-probabilities of given tokens.

use std::sync::Arc;

use anyhow::bail;
use ingle::{BatchToken, Decoder, LoadOptions, Segment, Surround, TokenId, Tokenizer};

/// A model that says how likely texts are.
pub(super) struct Scorer {
    decoder: Box<dyn Decoder>,
    pub(super) tokenizer: Arc<dyn Tokenizer>,
}

impl Scorer {
    #[cfg(feature = "llama")]
    pub(super) fn open(options: &LoadOptions) -> anyhow::Result<Self> {
        let loaded = ingle_llama::LlamaBackend.load_model(options, &ingle::hardware_in_use())?;
        Ok(Self { decoder: Box::new(loaded.decoder), tokenizer: loaded.tokenizer })
    }

    #[cfg(not(feature = "llama"))]
    pub(super) fn open(_options: &LoadOptions) -> anyhow::Result<Self> {
        bail!("texts are scored by the backend llama, which this program does not have")
    }

    #[cfg(test)]
    pub(super) fn of(decoder: impl Decoder + 'static, tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self { decoder: Box::new(decoder), tokenizer }
    }

    /// The tokens of a text, with what the model wants around it.
    pub(super) fn tokenize(&self, text: &str) -> anyhow::Result<Vec<TokenId>> {
        Ok(self.tokenizer.tokenize(&[Segment::plain(text)], Surround::AsModelWants)?)
    }

    /// The token that the model wants in front of every text, if it does.
    pub(super) fn beginning(&self) -> anyhow::Result<Option<TokenId>> {
        let around = self.tokenize("")?;
        Ok(self.tokenizer.beginning_of_sequence().filter(|bos| around.first() == Some(bos)))
    }

    /// Most tokens of one text.
    pub(super) fn n_context(&self) -> usize {
        self.decoder.limits().n_sequence_tokens
    }

    /// Log-probability of each of `tokens[from..]`, given all tokens in front of it. `from` is at least 1.
    pub(super) fn score(&mut self, tokens: &[TokenId], from: usize) -> anyhow::Result<Vec<f64>> {
        self.start(&tokens[..from - 1])?;
        self.go_on(tokens, from)
    }

    /// Begins a text: computes `tokens`.
    pub(super) fn start(&mut self, tokens: &[TokenId]) -> anyhow::Result<()> {
        self.decoder.clear(0);
        self.compute(tokens, 0)
    }

    /// As [`Scorer::score`] when the first `from - 1` tokens were computed by [`Scorer::start`]; whatever was computed
    /// behind them is dropped.
    pub(super) fn go_on(&mut self, tokens: &[TokenId], from: usize) -> anyhow::Result<Vec<f64>> {
        if tokens.len() > self.n_context() {
            bail!("a text of {} tokens is longer than the context of {}", tokens.len(), self.n_context());
        }
        // A state that cannot be cut is made anew.
        if self.decoder.cut(0, from - 1).is_err() {
            self.start(&tokens[..from - 1])?;
        }
        let limits = self.decoder.limits();
        let n_rows = limits.n_seqs.min(limits.n_batch);
        let mut scores = Vec::with_capacity(tokens.len() - from);
        let mut position = from - 1;
        // The last token is only predicted.
        while position + 1 < tokens.len() {
            let end = (position + n_rows).min(tokens.len() - 1);
            let batch: Vec<BatchToken> = (position..end)
                .map(|position| BatchToken { token: tokens[position], position, seq: 0, wants_row: true })
                .collect();
            self.decoder.decode(&batch)?;
            for (entry_idx, next) in tokens[position + 1..=end].iter().enumerate() {
                scores.push(log_probability(self.decoder.row(entry_idx)?, *next)?);
            }
            position = end;
        }
        Ok(scores)
    }

    /// Computes tokens without looking at the result.
    fn compute(&mut self, tokens: &[TokenId], position: usize) -> anyhow::Result<()> {
        let n_batch = self.decoder.limits().n_batch;
        let entries: Vec<BatchToken> = (position..)
            .zip(tokens)
            .map(|(position, &token)| BatchToken { token, position, seq: 0, wants_row: false })
            .collect();
        for piece in entries.chunks(n_batch) {
            self.decoder.decode(piece)?;
        }
        Ok(())
    }
}

/// Logarithm of the softmax of `row`, `[n_vocab]`, at `token`.
fn log_probability(row: &[f32], token: TokenId) -> anyhow::Result<f64> {
    let Some(&logit) = row.get(token as usize) else { bail!("the model has no token {token}") };
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 =
        row.chunks(1024).map(|part| f64::from(part.iter().map(|&value| (value - most).exp()).sum::<f32>())).sum();
    let result = f64::from(logit - most) - sum.ln();
    if result.is_nan() {
        bail!("the model gives no probabilities: its logits are not numbers");
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::log_probability;

    #[test]
    fn probabilities_add_up_to_one() {
        let row: Vec<f32> = (0..3000).map(|idx| (idx % 17) as f32 * 0.7 - 300.0).collect();
        let sum: f64 = (0..3000).map(|token| log_probability(&row, token).unwrap().exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(log_probability(&row, 3000).is_err() && log_probability(&[f32::NAN], 0).is_err());
    }
}
