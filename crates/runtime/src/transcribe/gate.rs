//! Silence taken out of a recording on its way: a detector listens ahead, and only speech goes on.
//!
//! The rule is faster-whisper's (`vad_filter`): speech begins at a threshold, ends with enough silence, and keeps some of
//! the silence at its ends. It is applied as the sound comes in, so no more is held than what is not decided yet.

use std::ops::Range;

use ingle_catalog::{CatalogError, Usecase, VoiceFilterConfig};
use ingle_engine::{EngineError, HEARING_RATE, VoiceChunk};

use crate::voice::VoiceRule;
use crate::{Lease, Runtime, RuntimeError};

/// Longest silence that may be asked to pass within speech, in milliseconds: that much sound is held.
const MOST_SILENCE_MS: u32 = 20_000;
/// Most silence that may be kept at the ends of speech, in milliseconds.
const MOST_PAD_MS: u32 = 4_000;

/// Whether what is no speech is left out before a recording is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum VoiceFilter {
    /// As the model's configuration says.
    #[default]
    Configured,
    /// No.
    Off,
    /// Where a detector is installed.
    Available,
    /// Yes, with these settings.
    On(VoiceFilterOptions),
}

/// Settings of the filter; absent ones are the model's configuration's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VoiceFilterOptions {
    /// From this probability on it is speech; 0 to 1.
    pub threshold: Option<f32>,
    /// Silence of so many milliseconds ends speech.
    pub min_silence_ms: Option<u32>,
    /// Milliseconds of silence that stay at each end of speech.
    pub pad_ms: Option<u32>,
}

/// A piece of speech.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// Sample of the recording it begins with.
    pub(super) from: u64,
    /// Its samples.
    pub(super) samples: Vec<f32>,
}

/// Lets speech through.
pub(super) struct Gate {
    lease: Lease,
    sieve: Sieve,
    /// The detector's, of the sound so far.
    memory: Vec<f32>,
}

impl Runtime {
    /// The gate that a call or the configuration of its model wants.
    pub(super) async fn gate(
        &self,
        config: &VoiceFilterConfig,
        filter: VoiceFilter,
    ) -> Result<Option<Gate>, RuntimeError> {
        let options = match filter {
            VoiceFilter::Off => return Ok(None),
            VoiceFilter::Configured if !config.is_on => return Ok(None),
            VoiceFilter::Configured | VoiceFilter::Available => VoiceFilterOptions::default(),
            VoiceFilter::On(options) => options,
        };
        let rule = rule(config, options)?;
        let lease = match self.lease(config.model.as_deref(), Usecase::Vad).await {
            Err(RuntimeError::Catalog(error)) if matches!(*error, CatalogError::NoneSuits { .. }) => {
                return if filter == VoiceFilter::Available { Ok(None) } else { Err(RuntimeError::NoDetector) };
            }
            other => other?,
        };
        let sieve = Sieve::new(rule, lease.voice()?.info.frame_len);
        Ok(Some(Gate { lease, sieve, memory: Vec::new() }))
    }
}

/// The rule with the call's settings before the configuration's before faster-whisper's.
fn rule(config: &VoiceFilterConfig, options: VoiceFilterOptions) -> Result<VoiceRule, RuntimeError> {
    let threshold = options.threshold.or(config.threshold).unwrap_or(0.5);
    if !(0.0..=1.0).contains(&threshold) {
        let (value, permitted) = (threshold.to_string(), "a probability from 0 to 1".to_owned());
        return Err(RuntimeError::InvalidParameter { parameter: "vad_threshold", value, permitted });
    }
    let samples = |parameter: &'static str, ms: u32, most: u32| match ms {
        ms if ms <= most => Ok(ms as usize * HEARING_RATE / 1000),
        ms => {
            let permitted = format!("0 to {most} milliseconds");
            Err(RuntimeError::InvalidParameter { parameter, value: ms.to_string(), permitted })
        }
    };
    let silence_ms = options.min_silence_ms.or(config.min_silence_ms).unwrap_or(2000);
    let pad_ms = options.pad_ms.or(config.pad_ms).unwrap_or(400);
    Ok(VoiceRule {
        threshold,
        end_threshold: (threshold - 0.15).max(0.01),
        min_speech: 0,
        min_silence: samples("min_silence_duration_ms", silence_ms, MOST_SILENCE_MS)?,
        pad: samples("speech_pad_ms", pad_ms, MOST_PAD_MS)?,
    })
}

impl Gate {
    /// Takes the next samples of the recording and returns the speech that is certain now.
    ///
    /// # Errors
    /// The engine's own.
    pub(super) async fn push(&mut self, runtime: &Runtime, samples: &[f32]) -> Result<Vec<Piece>, RuntimeError> {
        self.sieve.push(samples);
        self.listen(runtime, Reach::WholeFrames).await
    }

    /// The rest of the speech, at the end of the recording.
    ///
    /// # Errors
    /// The engine's own.
    pub(super) async fn finish(&mut self, runtime: &Runtime) -> Result<Vec<Piece>, RuntimeError> {
        self.listen(runtime, Reach::End).await
    }

    async fn listen(&mut self, runtime: &Runtime, reach: Reach) -> Result<Vec<Piece>, RuntimeError> {
        let unseen = self.sieve.unseen(reach);
        let (n_frames, mut probabilities) = (unseen.len().div_ceil(self.sieve.frame_len), Vec::new());
        if n_frames > 0 {
            let chunk = VoiceChunk { samples: unseen.into(), memory: self.memory.clone() };
            let thread = &self.lease.voice()?.thread;
            let heard = thread.submit(vec![chunk], runtime.time_limit())?.await?.responses.remove(0);
            (probabilities, self.memory) = (heard.probabilities, heard.memory);
        }
        if probabilities.len() != n_frames {
            let reason = format!("{} probabilities came for {n_frames} frames; this is a bug", probabilities.len());
            return Err(EngineError::Decode { reason }.into());
        }
        Ok(self.sieve.take(&probabilities, reach))
    }
}

/// How far the detector hears.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    /// To the last frame that is there as a whole.
    WholeFrames,
    /// To the end of the recording.
    End,
}

/// Holds the samples that are not decided yet.
struct Sieve {
    cutter: Cutter,
    frame_len: usize,
    /// Samples from `held_from` on; the detector has heard those before the cutter's place.
    held: Vec<f32>,
    held_from: u64,
}

impl Sieve {
    fn new(rule: VoiceRule, frame_len: usize) -> Self {
        Self { cutter: Cutter::new(rule), frame_len: frame_len.max(1), held: Vec::new(), held_from: 0 }
    }

    fn push(&mut self, samples: &[f32]) {
        self.held.extend_from_slice(samples);
    }

    /// What the detector has not heard.
    fn unseen(&self, reach: Reach) -> &[f32] {
        let rest = &self.held[(self.cutter.at - self.held_from) as usize..];
        match reach {
            Reach::WholeFrames => &rest[..rest.len() / self.frame_len * self.frame_len],
            Reach::End => rest,
        }
    }

    /// Takes a probability for each frame of what was unseen, and returns the speech that is certain now.
    fn take(&mut self, probabilities: &[f32], reach: Reach) -> Vec<Piece> {
        let mut n_left = self.unseen(reach).len();
        let mut found = Vec::new();
        for &probability in probabilities {
            let len = n_left.min(self.frame_len);
            n_left -= len;
            self.cutter.frame(probability, len as u64, &mut found);
        }
        if reach == Reach::End {
            self.cutter.finish(&mut found);
        }
        let place = |sample: u64| (sample - self.held_from) as usize;
        let piece = |range: Range<u64>| Piece {
            from: range.start,
            samples: self.held[place(range.start)..place(range.end)].to_vec(),
        };
        let pieces = joined(found).into_iter().map(piece).collect();
        // At the end of the recording there is no next speech that could ask for more.
        let needed = self.cutter.needed_from().max(self.held_from);
        self.held.drain(..place(needed));
        self.held_from = needed;
        pieces
    }
}

/// Ranges that touch as one; empty ones are left out.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether it is speech just now.
#[derive(Debug, Clone, Copy)]
enum Now {
    /// No. `ended`: the speech before ended there, and how much silence it keeps depends on when the next begins.
    Quiet { ended: Option<u64> },
    /// Yes; `silent_from`: unless it has ended there.
    Speech { silent_from: Option<u64> },
}

/// Decides frame by frame which samples are speech. What it says never changes again.
struct Cutter {
    rule: VoiceRule,
    /// Samples whose probability is known.
    at: u64,
    /// Samples of the running speech before this are told.
    told: u64,
    now: Now,
}

impl Cutter {
    fn new(rule: VoiceRule) -> Self {
        Self { rule, at: 0, told: 0, now: Now::Quiet { ended: None } }
    }

    /// Takes the probability of the next frame and adds what is certain to be speech.
    fn frame(&mut self, probability: f32, len: u64, found: &mut Vec<Range<u64>>) {
        let begin = self.at;
        self.at += len;
        let is_speech = probability >= self.rule.threshold;
        let is_silence = probability < self.rule.end_threshold;
        self.now = match self.now {
            Now::Quiet { ended } if is_speech => {
                self.told = self.start(begin, ended, found);
                Now::Speech { silent_from: None }
            }
            Now::Speech { .. } if is_speech => Now::Speech { silent_from: None },
            Now::Speech { silent_from } if is_silence => {
                let from = silent_from.unwrap_or(begin);
                if begin - from >= self.rule.min_silence as u64 {
                    found.push(self.told..from);
                    Now::Quiet { ended: Some(from) }
                } else {
                    Now::Speech { silent_from: Some(from) }
                }
            }
            unchanged => unchanged,
        };
        self.tell(found);
    }

    /// Where speech that shows at `begin` begins, with its share of the silence before it.
    fn start(&self, begin: u64, ended: Option<u64>, found: &mut Vec<Range<u64>>) -> u64 {
        let pad = self.rule.pad as u64;
        let Some(ended) = ended else { return begin.saturating_sub(pad) };
        // Silence that is too short for both ends is shared.
        let share = pad.min((begin - ended) / 2);
        found.push(ended..ended + share);
        begin - share
    }

    /// Adds what can be no different any more.
    fn tell(&mut self, found: &mut Vec<Range<u64>>) {
        let pad = self.rule.pad as u64;
        match self.now {
            Now::Quiet { ended: Some(ended) } if self.at - ended >= 2 * pad => {
                found.push(ended..ended + pad);
                self.now = Now::Quiet { ended: None };
            }
            Now::Quiet { .. } => {}
            Now::Speech { silent_from } => {
                let certain = silent_from.unwrap_or(self.at).max(self.told);
                found.push(self.told..certain);
                self.told = certain;
            }
        }
    }

    /// Ends the recording: running speech goes to its end.
    fn finish(&mut self, found: &mut Vec<Range<u64>>) {
        match self.now {
            Now::Quiet { ended: Some(ended) } => found.push(ended..self.at.min(ended + self.rule.pad as u64)),
            Now::Quiet { ended: None } => {}
            Now::Speech { .. } => found.push(self.told..self.at),
        }
        (self.told, self.now) = (self.at, Now::Quiet { ended: None });
    }

    /// The first sample that may still turn out to be speech.
    fn needed_from(&self) -> u64 {
        match self.now {
            Now::Quiet { ended } => ended.unwrap_or(self.at.saturating_sub(self.rule.pad as u64)),
            Now::Speech { .. } => self.told,
        }
    }
}

#[cfg(test)]
mod tests;
