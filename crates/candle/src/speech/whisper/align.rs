//! When each word was said: the cross attention of some heads follows the words through the recording.
//!
//! After OpenAI's `timing.py`: the attention of the alignment heads is normalised, smoothed and averaged, and the
//! cheapest monotonic path through it (dynamic time warping, Sakoe and Chiba 1978) gives each token its frame.

use candle_core::Result;

use super::cache::Heard;
use super::model::Network;
use super::rules::log_sum_exp;
use super::vocabulary::Vocabulary;

/// Frames behind the encoder in a second.
const FRAMES_PER_SEC: f64 = 50.0;
/// Width of the median that smooths the attention over time.
const MEDIAN_WIDTH: usize = 7;
/// ASCII's signs in their order; a word that is a part of this text is none of letters.
const SIGNS: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
/// Signs that belong to the word behind them.
const OPENING: &str = "\"'“¿([{-";
/// Signs that belong to the word in front of them.
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";

/// A word and when it was said, in seconds from the start of the recording.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedWord {
    /// With the space in front of it, where there is one.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// When it begins.
    pub start_secs: f64,
    /// When it ends.
    pub end_secs: f64,
    /// Mean probability of its tokens.
    pub probability: f32,
}

/// Words with their times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aligned {
    /// In order.
    pub words: Vec<TimedWord>,
    /// How long a word lasts: the median, at most 0.7 s; 0 where nothing is known.
    pub usual_secs: f64,
}

/// What is to be aligned.
pub struct Alignment<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its words.
    pub vocabulary: &'a Vocabulary,
    /// `(layer, head)` whose attention follows the words.
    pub heads: &'a [(usize, usize)],
    /// The recording, alone.
    pub heard: &'a Heard,
    /// Frames behind the encoder that hold sound.
    pub n_frames: usize,
}

impl Alignment<'_> {
    /// The words of `text`, tokens without timestamps, spoken in `language`; `start` are the start tokens.
    ///
    /// # Errors
    /// When the device fails.
    pub fn words(&self, start: &[u32], text: &[u32], language: &str) -> Result<Aligned> {
        let n_most = self.network.dims.n_text.saturating_sub(start.len() + 2);
        let text = &text[..text.len().min(n_most)];
        if text.is_empty() || self.n_frames == 0 {
            return Ok(Aligned::default());
        }
        let mut tokens = start.to_vec();
        tokens.push(self.vocabulary.no_timestamps());
        tokens.extend(text);
        tokens.push(self.vocabulary.end());
        let (scores, rows) = self.network.align(&tokens, self.heard, self.heads)?;
        let probabilities = self.probabilities(&rows.squeeze(0)?.narrow(0, start.len(), text.len())?, text)?;
        let attention = self.attention(&scores, start.len(), text.len() + 1)?;
        let frames = first_frames(&attention, self.n_frames);
        let secs = |token: usize| frames[token.min(frames.len() - 1)] as f64 / FRAMES_PER_SEC;
        let mut words = Vec::new();
        let mut first = 0;
        for (text, tokens) in self.split(text, language) {
            let last = first + tokens.len();
            let probability = probabilities[first..last].iter().sum::<f32>() / tokens.len() as f32;
            words.push(TimedWord { text, tokens, start_secs: secs(first), end_secs: secs(last), probability });
            first = last;
        }
        let usual_secs = usual_secs(&words);
        shorten(&mut words, 2.0 * usual_secs);
        Ok(Aligned { words: with_signs(words), usual_secs })
    }

    /// Probability of each token of `text`; row `t` of `rows` foretells token `t`.
    fn probabilities(&self, rows: &candle_core::Tensor, text: &[u32]) -> Result<Vec<f32>> {
        let end = self.vocabulary.end() as usize;
        let logits = self.network.logits(rows)?;
        let of = |(row, &token): (&Vec<f32>, &u32)| (row[token as usize] - log_sum_exp(&row[..end])).exp();
        Ok(logits.iter().zip(text).map(of).collect())
    }

    /// `[n_rows, n_frames]`: normalised, smoothed attention of the rows behind `first`, averaged over the heads.
    fn attention(&self, scores: &[candle_core::Tensor], first: usize, n_rows: usize) -> Result<Vec<f32>> {
        let n_frames = self.n_frames;
        let mut mean = vec![0.0_f32; n_rows * n_frames];
        for head in scores {
            let weights = candle_nn::ops::softmax_last_dim(&head.narrow(1, 0, n_frames)?.contiguous()?)?;
            let weights: Vec<f32> = weights.flatten_all()?.to_vec1()?;
            let normalised = over_tokens(&weights, n_frames);
            let rows = normalised.chunks(n_frames).skip(first).take(n_rows);
            for (sum, row) in mean.chunks_mut(n_frames).zip(rows) {
                sum.iter_mut().zip(smoothed(row)).for_each(|(sum, value)| *sum += value / scores.len() as f32);
            }
        }
        Ok(mean)
    }

    /// The words of a text and their tokens.
    fn split(&self, text: &[u32], language: &str) -> Vec<(String, Vec<u32>)> {
        let characters = self.whole_characters(text);
        if !ingle_engine::has_spaces(language) {
            return characters;
        }
        let mut words: Vec<(String, Vec<u32>)> = Vec::new();
        for (text, tokens) in characters {
            // As OpenAI's tokenizer has it: several signs are one word only where they stand so in the list.
            let sign = SIGNS.contains(text.trim());
            match words.last_mut() {
                Some(word) if !text.starts_with(' ') && !sign => {
                    word.0.push_str(&text);
                    word.1.extend(tokens);
                }
                _ => words.push((text, tokens)),
            }
        }
        words
    }

    /// The smallest groups of tokens that are whole characters.
    fn whole_characters(&self, text: &[u32]) -> Vec<(String, Vec<u32>)> {
        let mut groups = Vec::new();
        let mut open: Vec<u32> = Vec::new();
        for &token in text {
            open.push(token);
            if let Ok(text) = String::from_utf8(self.vocabulary.bytes(&open)) {
                groups.push((text, std::mem::take(&mut open)));
            }
        }
        if !open.is_empty() {
            groups.push((self.vocabulary.text(&open), open));
        }
        groups
    }
}

/// Attention `[n_tokens, n_frames]`, each frame moved to mean 0 and deviation 1 over the tokens.
fn over_tokens(weights: &[f32], n_frames: usize) -> Vec<f32> {
    let n_tokens = (weights.len() / n_frames).max(1) as f32;
    let mut mean = vec![0.0_f32; n_frames];
    for row in weights.chunks(n_frames) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / n_tokens);
    }
    // In a second pass: most weights are far below a thousandth, and the difference of squares has no digits there.
    let mut variance = vec![0.0_f32; n_frames];
    for row in weights.chunks(n_frames) {
        for ((variance, mean), value) in variance.iter_mut().zip(&mean).zip(row) {
            *variance += (value - mean) * (value - mean) / n_tokens;
        }
    }
    let deviation: Vec<f32> = variance.iter().map(|variance| variance.max(f32::MIN_POSITIVE).sqrt()).collect();
    let rows = weights.chunks(n_frames);
    rows.flat_map(|row| {
        row.iter().zip(&mean).zip(&deviation).map(|((value, mean), deviation)| (value - mean) / deviation)
    })
    .collect()
}

/// The median of each number and its neighbours in time; the ends are mirrored.
fn smoothed(row: &[f32]) -> Vec<f32> {
    let half = MEDIAN_WIDTH / 2;
    if row.len() <= half {
        return row.to_vec();
    }
    let at = |index: isize| {
        let last = row.len() as isize - 1;
        let index = if index < 0 { -index } else { index };
        row[(if index > last { 2 * last - index } else { index }) as usize]
    };
    let mut window = [0.0; MEDIAN_WIDTH];
    let median = |center: usize| {
        for (offset, value) in window.iter_mut().enumerate() {
            *value = at(center as isize + offset as isize - half as isize);
        }
        window.sort_by(f32::total_cmp);
        window[half]
    };
    (0..row.len()).map(median).collect()
}

/// The frame at which each row of `attention`, `[n_rows, n_frames]`, begins on the path of the highest sum.
fn first_frames(attention: &[f32], n_frames: usize) -> Vec<usize> {
    let n_rows = attention.len() / n_frames;
    let width = n_frames + 1;
    let mut cost = vec![f32::INFINITY; (n_rows + 1) * width];
    // 0: from both, 1: from the row above, 2: from the frame before.
    let mut trace = vec![0_u8; (n_rows + 1) * width];
    cost[0] = 0.0;
    for frame in 1..=n_frames {
        for row in 1..=n_rows {
            let here = row * width + frame;
            let (both, above, before) = (cost[here - width - 1], cost[here - width], cost[here - 1]);
            let (least, from) = if both < above && both < before {
                (both, 0)
            } else if above < both && above < before {
                (above, 1)
            } else {
                (before, 2)
            };
            cost[here] = least - attention[(row - 1) * n_frames + frame - 1];
            trace[here] = from;
        }
    }
    let mut first = vec![0; n_rows];
    let (mut row, mut frame) = (n_rows, n_frames);
    while row > 0 && frame > 0 {
        first[row - 1] = frame - 1;
        match trace[row * width + frame] {
            0 => (row, frame) = (row - 1, frame - 1),
            1 => row -= 1,
            _ => frame -= 1,
        }
    }
    first
}

/// The median of the words' durations, at most 0.7 s.
fn usual_secs(words: &[TimedWord]) -> f64 {
    let mut durations: Vec<f64> =
        words.iter().map(|word| word.end_secs - word.start_secs).filter(|secs| *secs > 0.0).collect();
    durations.sort_by(f64::total_cmp);
    let middle = |offset: usize| durations.get((durations.len().saturating_sub(offset)) / 2).copied().unwrap_or(0.0);
    // Of an even number the mean of the two in the middle.
    ((middle(0) + middle(1)) / 2.0).min(0.7)
}

/// Words at the borders of sentences must not be longer than `most` seconds: attention likes to rest there.
fn shorten(words: &mut [TimedWord], most: f64) {
    const SENTENCE_ENDS: &str = ".。!！?？";
    if most == 0.0 {
        return;
    }
    let is_end = |word: &TimedWord| SENTENCE_ENDS.contains(&*word.text);
    for at in 1..words.len() {
        if words[at].end_secs - words[at].start_secs > most {
            if is_end(&words[at]) {
                words[at].end_secs = words[at].start_secs + most;
            } else if is_end(&words[at - 1]) {
                words[at].start_secs = words[at].end_secs - most;
            }
        }
    }
}

/// Joins signs with the words they belong to.
fn with_signs(words: Vec<TimedWord>) -> Vec<TimedWord> {
    // Backwards, so that several opening signs go to one word.
    let mut opened: Vec<TimedWord> = Vec::new();
    for word in words.into_iter().rev() {
        match opened.last_mut() {
            Some(next) if word.text.starts_with(' ') && OPENING.contains(word.text.trim()) => {
                next.text.insert_str(0, &word.text);
                next.tokens.splice(0..0, word.tokens);
            }
            _ => opened.push(word),
        }
    }
    let mut joined: Vec<TimedWord> = Vec::new();
    for word in opened.into_iter().rev() {
        match joined.last_mut() {
            Some(last) if CLOSING.contains(&*word.text) && !last.text.ends_with(' ') => {
                last.text.push_str(&word.text);
                last.tokens.extend(&word.tokens);
            }
            _ => joined.push(word),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
