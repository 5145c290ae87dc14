//! Speech to text: a recording of any length, heard window by window.

use std::collections::VecDeque;
use std::sync::Arc;

use ingle_catalog::Usecase;
use ingle_engine::{HEARING_RATE, HeardSegment, HeardWindow, HearingOptions, HearingTask, HearingWindow};
use tokio::sync::mpsc;

mod gate;
mod runs;
mod sound;

pub use gate::{VoiceFilter, VoiceFilterOptions};

use crate::media::MediaSource;
use crate::{Lease, Runtime, RuntimeError};
use gate::Gate;
use runs::Runs;
use sound::Sound;

/// Tokens of what was written that the next window is given; models take half of their text at most.
const MAX_PREVIOUS: usize = 223;

/// A recording to be written down.
pub struct TranscribeCall {
    /// The model; absent is the first one that hears.
    pub model: Option<String>,
    /// The recording: any file that [`AudioReader`] reads.
    pub audio: Box<dyn MediaSource>,
    /// Code or English name of the language; absent is the model's configuration, or what is heard.
    pub language: Option<String>,
    /// What becomes of what was said; absent is the model's configuration.
    pub task: Option<HearingTask>,
    /// Text that shows names and spelling.
    pub prompt: String,
    /// 0 takes the likeliest words, and others while an answer repeats itself; absent is 0.
    pub temperature: Option<f32>,
    /// Beams of the search at temperature 0; absent is the model's.
    pub n_beams: Option<usize>,
    /// Whether each word gets its time.
    pub word_times: bool,
    /// Whether what is no speech is left out before.
    pub voice_filter: VoiceFilter,
}

impl std::fmt::Debug for TranscribeCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TranscribeCall").field("model", &self.model).finish_non_exhaustive()
    }
}

/// A recording that is being written down. Dropping it ends the work.
pub struct Transcription {
    lease: Lease,
    runtime: Runtime,
    sound: mpsc::Receiver<Sound>,
    /// Takes out what is no speech.
    gate: Option<Gate>,
    /// Samples that are heard and not written down yet.
    waiting: Vec<f32>,
    has_ended: bool,
    /// Samples of the recording that were read.
    n_read: u64,
    /// Samples that are heard in front of `waiting`.
    n_done: u64,
    /// Where in the recording lies what is heard.
    runs: Runs,
    /// End of the last segment, in seconds of what is heard.
    last_speech_secs: f64,
    /// Start of the window of `ready`, in seconds of the recording.
    window_secs: f64,
    options: HearingOptions,
    prompt: String,
    previous: Vec<u32>,
    ready: VecDeque<HeardSegment>,
    language: Option<(&'static str, &'static str)>,
    n_tokens: usize,
}

impl Runtime {
    /// Begins to write a recording down; [`Transcription::next`] gives the segments.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`RuntimeError::Media`] for a file that is no sound; [`RuntimeError::InvalidParameter`] for
    /// a language that the model does not know or an impossible temperature; [`RuntimeError::NoDetector`] where silence
    /// should be left out and nothing can find it.
    pub async fn transcribe(&self, call: TranscribeCall) -> Result<Transcription, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), Usecase::Transcript).await?;
        let options = hearing_options(&lease, &call)?;
        let gate = self.gate(&lease.config().load.options.voice_filter, call.voice_filter).await?;
        Ok(Transcription {
            sound: sound::read_aside(call.audio)?,
            gate,
            lease,
            runtime: self.clone(),
            waiting: Vec::new(),
            has_ended: false,
            n_read: 0,
            n_done: 0,
            runs: Runs::default(),
            last_speech_secs: 0.0,
            window_secs: 0.0,
            options,
            prompt: call.prompt,
            previous: Vec::new(),
            ready: VecDeque::new(),
            language: None,
            n_tokens: 0,
        })
    }
}

fn hearing_options(lease: &Lease, call: &TranscribeCall) -> Result<HearingOptions, RuntimeError> {
    let info = &lease.transcribe()?.info;
    let defaults = &lease.config().speech;
    let named = |language: &Option<String>| language.clone().filter(|name| !name.is_empty() && name != "auto");
    let language = named(&call.language).or_else(|| named(&defaults.language));
    if let Some(name) = &language {
        let known = ingle_engine::find_language(name).filter(|code| info.languages.contains(code));
        if known.is_none() {
            let permitted = format!("the code of a language this model knows: {}", info.languages.join(", "));
            return Err(RuntimeError::InvalidParameter { parameter: "language", value: name.clone(), permitted });
        }
    }
    let configured = if defaults.is_translation { HearingTask::Translate } else { HearingTask::Transcribe };
    let task = call.task.unwrap_or(configured);
    if task == HearingTask::Translate && !info.is_multilingual {
        return Err(lease.incapable("translate speech: it knows English only"));
    }
    let temperature = call.temperature.unwrap_or(0.0);
    if !(0.0..=2.0).contains(&temperature) {
        let (value, permitted) = (temperature.to_string(), "a number from 0 to 2".to_owned());
        return Err(RuntimeError::InvalidParameter { parameter: "temperature", value, permitted });
    }
    let base =
        HearingOptions { language, task, n_beams: call.n_beams, word_times: call.word_times, ..Default::default() };
    Ok(if temperature > 0.0 { HearingOptions { temperatures: vec![temperature], ..base } } else { base })
}

impl Transcription {
    /// The model that writes.
    pub fn model(&self) -> &str {
        self.lease.model()
    }

    /// Code and English name of the language, once something was heard.
    pub fn language(&self) -> Option<(&'static str, &'static str)> {
        self.language
    }

    /// What becomes of what was said.
    pub fn task(&self) -> HearingTask {
        self.options.task
    }

    /// Seconds of the recording that are written down; in the end, how long it is.
    pub fn done_secs(&self) -> f64 {
        if self.has_ended && self.waiting.is_empty() {
            return secs(self.n_read);
        }
        self.runs.secs(self.n_done)
    }

    /// Where the window of the segment that [`Transcription::next`] gave last begins, in seconds from the start of the
    /// recording.
    pub fn window_secs(&self) -> f64 {
        self.window_secs
    }

    /// Tokens written, those of discarded tries included.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The next segment, in seconds from the start of the recording; none at the end.
    ///
    /// # Errors
    /// [`RuntimeError::Media`] for a file that is damaged or empty; the engine's own.
    pub async fn next(&mut self) -> Result<Option<HeardSegment>, RuntimeError> {
        loop {
            if let Some(segment) = self.ready.pop_front() {
                return Ok(Some(segment));
            }
            self.fill().await?;
            if self.waiting.is_empty() {
                return Ok(None);
            }
            if self.skip_mute_window() {
                continue;
            }
            let heard = self.hear().await?;
            self.take(heard);
        }
    }

    /// Reads until there is a whole window, or the end.
    async fn fill(&mut self) -> Result<(), RuntimeError> {
        let window_len = self.lease.transcribe()?.info.window_len;
        while self.waiting.len() < window_len && !self.has_ended {
            match self.sound.recv().await {
                Some(samples) => self.listen(samples?).await?,
                None => self.end().await?,
            }
        }
        Ok(())
    }

    /// Takes samples of the recording, or what of them is speech.
    async fn listen(&mut self, samples: Vec<f32>) -> Result<(), RuntimeError> {
        let from = self.n_read;
        self.n_read += samples.len() as u64;
        match &mut self.gate {
            None => self.hear_later(from, &samples),
            Some(gate) => {
                for piece in gate.push(&self.runtime, &samples).await? {
                    self.hear_later(piece.from, &piece.samples);
                }
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), RuntimeError> {
        self.has_ended = true;
        // The detector is not needed any more.
        if let Some(mut gate) = self.gate.take() {
            for piece in gate.finish(&self.runtime).await? {
                self.hear_later(piece.from, &piece.samples);
            }
        }
        Ok(())
    }

    fn hear_later(&mut self, from: u64, samples: &[f32]) {
        self.runs.add(from, samples.len() as u64);
        self.waiting.extend_from_slice(samples);
    }

    /// Passes over the first `n` samples that wait.
    fn pass(&mut self, n: usize) {
        self.waiting.drain(..n);
        self.n_done += n as u64;
        self.runs.forget(self.n_done);
    }

    /// Passes over a window in which nothing can be said: of silence Whisper makes the words that it has met beside
    /// silence most often.
    fn skip_mute_window(&mut self) -> bool {
        let window_len = self.lease.transcribe().map_or(self.waiting.len(), |model| model.info.window_len);
        let len = self.waiting.len().min(window_len);
        if !is_mute(&self.waiting[..len]) {
            return false;
        }
        self.pass(len);
        self.previous.clear();
        true
    }

    async fn hear(&self) -> Result<HeardWindow, RuntimeError> {
        let model = self.lease.transcribe()?;
        let len = self.waiting.len().min(model.info.window_len);
        let window = HearingWindow {
            samples: self.waiting[..len].into(),
            prompt: self.prompt.clone(),
            previous: self.previous.clone(),
            last_speech_secs: self.last_speech_secs - secs(self.n_done),
            options: Arc::new(self.options.clone()),
        };
        let mut answered = model.thread.submit(vec![window], self.runtime.time_limit())?.await?;
        Ok(answered.responses.remove(0))
    }

    /// Takes what was heard in a window and moves on.
    fn take(&mut self, heard: HeardWindow) {
        let start_secs = secs(self.n_done);
        self.window_secs = self.runs.secs(self.n_done);
        self.n_tokens += heard.n_tokens;
        if !heard.segments.is_empty() && self.language.is_none() {
            self.language = Some((heard.language, heard.language_name));
            // What was heard at first counts for the rest.
            self.options.language.get_or_insert_with(|| heard.language.to_owned());
        }
        if heard.is_trusted {
            self.previous.extend(heard.segments.iter().flat_map(|segment| segment.tokens.iter().copied()));
            let n_old = self.previous.len().saturating_sub(MAX_PREVIOUS);
            self.previous.drain(..n_old);
        } else {
            self.previous.clear();
        }
        if let Some(last) = heard.segments.last() {
            self.last_speech_secs = start_secs + last.end_secs;
        }
        for segment in heard.segments {
            self.ready.push_back(self.runs.moved(later(segment, start_secs)));
        }
        let window_len = self.lease.transcribe().map_or(self.waiting.len(), |model| model.info.window_len);
        let whole = self.waiting.len().min(window_len);
        let resume = heard.resume_secs.map(|secs| (secs * HEARING_RATE as f64) as usize);
        let n_heard = resume.filter(|&n| n > 0).map_or(whole, |n| n.min(whole));
        self.pass(n_heard);
    }
}

/// Is it too short for a sound of speech, or silent throughout? `samples` are 16,000 a second, from -1 to 1.
fn is_mute(samples: &[f32]) -> bool {
    /// 50 ms: the shortest words take twice that.
    const SHORTEST: usize = HEARING_RATE / 20;
    /// 20 ms.
    const FRAME: usize = HEARING_RATE / 50;
    /// -80 dB of full scale; the noise of 16-bit samples lies at -98 dB, that of a quiet room above -70 dB.
    const SILENT_RMS: f32 = 1e-4;
    let is_silent = |frame: &[f32]| {
        let energy: f32 = frame.iter().map(|sample| sample * sample).sum();
        energy <= SILENT_RMS * SILENT_RMS * frame.len() as f32
    };
    samples.len() < SHORTEST || samples.chunks(FRAME).all(is_silent)
}

fn secs(samples: u64) -> f64 {
    samples as f64 / HEARING_RATE as f64
}

/// The segment with its times moved by `secs`.
fn later(mut segment: HeardSegment, secs: f64) -> HeardSegment {
    segment.start_secs += secs;
    segment.end_secs += secs;
    for word in &mut segment.words {
        word.start_secs += secs;
        word.end_secs += secs;
    }
    segment
}

#[cfg(test)]
mod tests;
