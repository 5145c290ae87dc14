//! Which tokens may come next: the rules OpenAI decodes Whisper by.

use super::vocabulary::Vocabulary;

/// The first timestamp lies within this many steps: within the first second.
const MAX_FIRST_STEP: u32 = 50;

/// Tokens that one model never says, and how its timestamps go.
pub struct Rules {
    /// Sorted.
    never: Vec<u32>,
    /// Tokens that may not come first.
    not_first: [u32; 2],
    end: u32,
    no_timestamps: u32,
    first_timestamp: u32,
}

impl Rules {
    /// Those of a model.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut never = vocabulary.annotations();
        never.extend([
            vocabulary.start(),
            vocabulary.task(super::Task::Transcribe),
            vocabulary.task(super::Task::Translate),
            vocabulary.start_of_text(),
            vocabulary.start_of_previous(),
            vocabulary.no_speech(),
        ]);
        never.extend((0..vocabulary.n_languages).map(|index| vocabulary.language(index)));
        let blank = vocabulary.encode(" ").first().copied().unwrap_or(vocabulary.end());
        Self {
            never,
            not_first: [blank, vocabulary.end()],
            end: vocabulary.end(),
            no_timestamps: vocabulary.no_timestamps(),
            first_timestamp: vocabulary.first_timestamp(),
        }
    }

    /// Sets the logits, `[n_vocab]`, of tokens that may not follow `said` to −∞. `said` begins behind the prompt.
    pub fn apply(&self, logits: &mut [f32], said: &[u32], timestamps: bool) {
        let mut forbid = |token: u32| logits[token as usize] = f32::NEG_INFINITY;
        self.never.iter().for_each(|&token| forbid(token));
        if said.is_empty() {
            self.not_first.iter().for_each(|&token| forbid(token));
        }
        if timestamps {
            forbid(self.no_timestamps);
            self.pair(logits, said);
            self.prefer_timestamps(logits);
        }
    }

    /// Timestamps come in pairs, never go back, and the first is an early one.
    fn pair(&self, logits: &mut [f32], said: &[u32]) {
        let first = self.first_timestamp as usize;
        let is_timestamp = |token: &u32| *token >= self.first_timestamp;
        let last = said.last().is_some_and(is_timestamp);
        let before_last = said.len() < 2 || is_timestamp(&said[said.len() - 2]);
        match (last, before_last) {
            (true, true) => logits[first..].fill(f32::NEG_INFINITY),
            (true, false) => logits[..self.end as usize].fill(f32::NEG_INFINITY),
            (false, _) => {}
        }
        if let Some(&latest) = said.iter().rev().find(|token| is_timestamp(token)) {
            let from = if last && !before_last { latest } else { latest + 1 };
            logits[first..from as usize].fill(f32::NEG_INFINITY);
        }
        if said.is_empty() {
            logits[..first].fill(f32::NEG_INFINITY);
            let behind = (self.first_timestamp + MAX_FIRST_STEP + 1) as usize;
            logits[behind..].fill(f32::NEG_INFINITY);
        }
    }

    /// Where a timestamp is likelier than any word, it is a timestamp.
    fn prefer_timestamps(&self, logits: &mut [f32]) {
        let (words, timestamps) = logits.split_at_mut(self.first_timestamp as usize);
        let best_word = largest(words);
        let best_timestamp = largest(timestamps);
        if best_timestamp == f32::NEG_INFINITY {
            return;
        }
        let together = best_timestamp + ingle_kernels::sum_exp(timestamps, best_timestamp).ln() as f32;
        if together > best_word {
            words.fill(f32::NEG_INFINITY);
        }
    }
}

/// The largest number of a row, −∞ for none.
pub fn largest(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `ln Σ e^x` over a row with at least one finite number.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let largest = largest(row);
    largest + ingle_kernels::sum_exp(row, largest).ln() as f32
}
