//! Voice activity: where in a recording somebody speaks.

use ingle_catalog::Usecase;
use ingle_engine::{HEARING_RATE, VoiceChunk};

use crate::{Runtime, RuntimeError};

/// From where on it is speech.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VoiceRule {
    /// From this probability on it is speech.
    pub(crate) threshold: f32,
    /// Below this it is none any more.
    pub(crate) end_threshold: f32,
    /// Samples; speech that is not longer is noise.
    pub(crate) min_speech: usize,
    /// Samples; silence that is shorter ends nothing.
    pub(crate) min_silence: usize,
    /// Samples of silence that stay at each end of speech.
    pub(crate) pad: usize,
}

/// The rule of Silero's own library.
const LIBRARY: VoiceRule = VoiceRule {
    threshold: 0.5,
    end_threshold: 0.35,
    min_speech: HEARING_RATE / 4,
    min_silence: HEARING_RATE / 10,
    pad: HEARING_RATE * 30 / 1000,
};
/// Samples of one request to the detector.
const PIECE_SECS: usize = 30;

/// Samples to look at.
#[derive(Debug, Clone, Default)]
pub struct VoiceCall {
    /// The model; absent is the first one that detects.
    pub model: Option<String>,
    /// Mono, 16 kHz, −1 to 1.
    pub samples: Vec<f32>,
}

/// Speech from one second to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoiceSegment {
    /// When it begins.
    pub start_secs: f64,
    /// When it ends.
    pub end_secs: f64,
}

impl Runtime {
    /// Where somebody speaks, with the thresholds of Silero's own library.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; the engine's own.
    pub async fn voice_activity(&self, call: VoiceCall) -> Result<Vec<VoiceSegment>, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), Usecase::Vad).await?;
        let model = lease.voice()?;
        let frame_len = model.info.frame_len;
        let mut probabilities = Vec::with_capacity(call.samples.len().div_ceil(frame_len));
        let mut memory = Vec::new();
        for piece in call.samples.chunks(PIECE_SECS * HEARING_RATE / frame_len * frame_len) {
            let chunk = VoiceChunk { samples: piece.into(), memory };
            let mut answered = model.thread.submit(vec![chunk], self.time_limit())?.await?;
            let heard = answered.responses.remove(0);
            probabilities.extend(heard.probabilities);
            memory = heard.memory;
        }
        let secs = |sample: usize| sample as f64 / HEARING_RATE as f64;
        let found = segments(&probabilities, frame_len, call.samples.len(), &LIBRARY);
        Ok(found
            .into_iter()
            .map(|(start, end)| VoiceSegment { start_secs: secs(start), end_secs: secs(end) })
            .collect())
    }
}

/// Speech in samples, by the rules of `get_speech_timestamps` of Silero's library: it begins at the threshold, ends with
/// enough silence, and keeps a little silence at its ends.
pub(crate) fn segments(
    probabilities: &[f32],
    frame_len: usize,
    n_samples: usize,
    rule: &VoiceRule,
) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut start = None;
    let mut silence_from = None;
    for (index, &probability) in probabilities.iter().enumerate() {
        let at = index * frame_len;
        if probability >= rule.threshold {
            silence_from = None;
            start.get_or_insert(at);
        } else if let (Some(begun), true) = (start, probability < rule.end_threshold) {
            let end = *silence_from.get_or_insert(at);
            if at - end >= rule.min_silence {
                if end - begun > rule.min_speech {
                    found.push((begun, end));
                }
                (start, silence_from) = (None, None);
            }
        }
    }
    if let Some(begun) = start.filter(|&begun| n_samples.saturating_sub(begun) > rule.min_speech) {
        found.push((begun, n_samples));
    }
    padded(found, n_samples, rule.pad)
}

/// Segments with silence at their ends; what is too near for that shares the silence between.
fn padded(mut found: Vec<(usize, usize)>, n_samples: usize, pad: usize) -> Vec<(usize, usize)> {
    if let Some(first) = found.first_mut() {
        first.0 = first.0.saturating_sub(pad);
    }
    for at in 0..found.len() {
        if at + 1 == found.len() {
            found[at].1 = (found[at].1 + pad).min(n_samples);
            break;
        }
        let between = found[at + 1].0 - found[at].1;
        if between < 2 * pad {
            found[at].1 += between / 2;
            found[at + 1].0 -= between / 2;
        } else {
            found[at].1 += pad;
            found[at + 1].0 -= pad;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{LIBRARY, segments};

    const FRAME: usize = 512;

    fn check(runs: &[(f32, usize)], wanted: &[(usize, usize)]) {
        let probabilities: Vec<f32> = runs.iter().flat_map(|&(p, n)| std::iter::repeat_n(p, n)).collect();
        assert_eq!(segments(&probabilities, FRAME, probabilities.len() * FRAME, &LIBRARY), wanted, "{runs:?}");
    }

    #[test]
    fn speech_begins_and_ends_as_in_the_library() {
        check(&[], &[]);
        check(&[(0.1, 50)], &[]);
        // Too short for speech, then long enough; 480 samples stay at the ends.
        check(&[(0.1, 10), (0.9, 5), (0.1, 20)], &[]);
        check(&[(0.1, 10), (0.9, 20), (0.1, 20)], &[(10 * FRAME - 480, 30 * FRAME + 480)]);
        // Between the thresholds speech goes on.
        check(&[(0.1, 10), (0.9, 10), (0.4, 10), (0.9, 10), (0.1, 20)], &[(10 * FRAME - 480, 40 * FRAME + 480)]);
        // Short silence ends nothing, long silence does.
        check(&[(0.9, 20), (0.1, 3), (0.9, 20), (0.1, 9)], &[(0, 43 * FRAME + 480)]);
        check(&[(0.9, 20), (0.1, 5), (0.9, 20)], &[(0, 20 * FRAME + 480), (25 * FRAME - 480, 45 * FRAME)]);
    }
}
