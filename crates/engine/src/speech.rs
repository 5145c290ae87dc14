//! Words of models that hear and speak: transcripts of recordings, voice activity, spoken sentences.
//!
//! A recording is heard in windows of at most 30 s, since that is what speech models take. A window is one request of an
//! engine thread, so windows of several clients are computed together and a client that leaves costs one window at
//! most; who walks through a long recording is the caller.

use std::sync::Arc;

use crate::{BatchThread, Cost};

/// Samples in a second of everything that is heard.
pub const HEARING_RATE: usize = 16_000;

/// What becomes of what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HearingTask {
    /// It is written in its language.
    #[default]
    Transcribe,
    /// It is written in English.
    Translate,
}

/// How a window is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct HearingOptions {
    /// Code or English name of the language; absent: it is detected.
    pub language: Option<String>,
    /// What becomes of what was said.
    pub task: HearingTask,
    /// Temperatures to try in turn while an answer repeats itself or is unlikely. 0 takes the likeliest words.
    pub temperatures: Vec<f32>,
    /// Beams of the search at temperature 0; absent: the model's own.
    pub n_beams: Option<usize>,
    /// Texts that are drawn above temperature 0, of which the likeliest counts.
    pub best_of: usize,
    /// Whether each word gets its time.
    pub word_times: bool,
    /// A text that compresses better than this repeats itself.
    pub max_compression: f64,
    /// A text whose tokens are less likely than this on average is not trusted.
    pub min_avg_logprob: f64,
    /// Above this probability of silence an untrusted text is silence.
    pub max_no_speech_prob: f64,
    /// Of draws above temperature 0.
    pub seed: u64,
}

impl Default for HearingOptions {
    fn default() -> Self {
        Self {
            language: None,
            task: HearingTask::Transcribe,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            n_beams: None,
            best_of: 5,
            word_times: false,
            max_compression: 2.4,
            min_avg_logprob: -1.0,
            max_no_speech_prob: 0.6,
            seed: 0,
        }
    }
}

/// At most 30 s of a recording.
#[derive(Debug, Clone)]
pub struct HearingWindow {
    /// Mono, 16 kHz, −1 to 1.
    pub samples: Arc<[f32]>,
    /// Text that was said before or that shows names and spelling; the model goes on in its style.
    pub prompt: String,
    /// Tokens that were written of the windows before.
    pub previous: Vec<u32>,
    /// When the last segment of the windows before ended, in seconds from the start of this one: 0 or less.
    pub last_speech_secs: f64,
    /// How it is written down.
    pub options: Arc<HearingOptions>,
}

impl Cost for HearingWindow {
    /// Windows: whatever its length, it is computed as 30 s.
    fn cost(&self) -> usize {
        1
    }
}

/// A word with its times, in seconds from the start of the recording or window.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardWord {
    /// With the space in front of it, where there is one.
    pub text: String,
    /// When it begins.
    pub start_secs: f64,
    /// When it ends.
    pub end_secs: f64,
    /// Mean probability of its tokens.
    pub probability: f32,
}

/// A piece of a transcript, in seconds from the start of the recording or window.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardSegment {
    /// When it begins.
    pub start_secs: f64,
    /// When it ends.
    pub end_secs: f64,
    /// With the space in front of it, where there is one.
    pub text: String,
    /// Its tokens, timestamps included.
    pub tokens: Vec<u32>,
    /// Its words, where they were asked for.
    pub words: Vec<HeardWord>,
    /// The temperature at which it was written.
    pub temperature: f32,
    /// ln p of a token on average.
    pub avg_logprob: f64,
    /// Bytes of the window's text for each byte of it compressed.
    pub compression_ratio: f64,
    /// Probability that there is no speech in the window.
    pub no_speech_prob: f64,
}

/// What was said in a window.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardWindow {
    /// Code of the language.
    pub language: &'static str,
    /// Its English name.
    pub language_name: &'static str,
    /// In order; empty for silence.
    pub segments: Vec<HeardSegment>,
    /// From where the next window should begin, in seconds; absent: everything was written.
    pub resume_secs: Option<f64>,
    /// Whether the text may be given to the next window as what came before.
    pub is_trusted: bool,
    /// Tokens written, those of discarded tries included.
    pub n_tokens: usize,
}

/// What callers need to know of a model that hears.
#[derive(Debug, Clone, PartialEq)]
pub struct HearingInfo {
    /// Samples of a window at most.
    pub window_len: usize,
    /// Codes of the languages it knows.
    pub languages: Vec<&'static str>,
    /// Whether it knows other languages than English.
    pub is_multilingual: bool,
    /// Architecture, such as `whisper`.
    pub architecture: String,
}

/// A running model that writes down what it hears; clones are cheap.
#[derive(Clone)]
pub struct TranscribeModel {
    /// Turns windows into text.
    pub thread: BatchThread<HearingWindow, HeardWindow>,
    /// What it is.
    pub info: Arc<HearingInfo>,
}

/// A piece of a recording whose voice activity is asked for, and what is remembered of the pieces before.
#[derive(Debug, Clone)]
pub struct VoiceChunk {
    /// Mono, 16 kHz; a multiple of [`VoiceInfo::frame_len`], except for the last piece, which is filled up.
    pub samples: Arc<[f32]>,
    /// From the piece before; empty at the start.
    pub memory: Vec<f32>,
}

impl Cost for VoiceChunk {
    fn cost(&self) -> usize {
        self.samples.len().div_ceil(HEARING_RATE).max(1)
    }
}

/// Voice activity of a piece.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceActivity {
    /// Probability of speech for each frame.
    pub probabilities: Vec<f32>,
    /// For the next piece.
    pub memory: Vec<f32>,
}

/// What callers need to know of a voice activity detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoiceInfo {
    /// Samples of a frame.
    pub frame_len: usize,
}

/// A running voice activity detector; clones are cheap.
#[derive(Clone)]
pub struct VoiceModel {
    /// Turns pieces into probabilities.
    pub thread: BatchThread<VoiceChunk, VoiceActivity>,
    /// What it is.
    pub info: VoiceInfo,
}

/// A sentence to be spoken.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenText {
    /// The sentence.
    pub text: String,
    /// The speaker; absent is the first.
    pub speaker: Option<usize>,
    /// 2 is twice as fast.
    pub speed: f32,
}

impl Cost for SpokenText {
    fn cost(&self) -> usize {
        self.text.len()
    }
}

/// What callers need to know of a voice.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakInfo {
    /// Samples in a second of what it says.
    pub sample_rate: u32,
    /// Names of its speakers, by number; empty where there is one.
    pub speakers: Vec<String>,
    /// Its language as its author spells it, such as `en_US`.
    pub language: String,
    /// Architecture, such as `piper`.
    pub architecture: String,
}

/// A running voice; clones are cheap.
#[derive(Clone)]
pub struct SpeakModel {
    /// Turns sentences into samples, mono, −1 to 1.
    pub thread: BatchThread<SpokenText, Vec<f32>>,
    /// What it is.
    pub info: Arc<SpeakInfo>,
}
