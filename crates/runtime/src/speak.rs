//! Text to speech: sentence by sentence, so that the first is heard while the others are spoken.

mod sentences;

use std::collections::VecDeque;

use ingle_catalog::Usecase;
use ingle_engine::{Answered, Pending, SpeakInfo, SpokenText};

use crate::{Lease, Runtime, RuntimeError};

/// Most bytes of a text: more than an hour of speech.
const MAX_BYTES: usize = 100_000;
/// Silence between sentences, as in Piper.
const PAUSE_SECS: f32 = 0.2;
/// Speeds that can be listened to; OpenAI's.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;
/// OpenAI's voices: clients must name one, so each of them is the voice of the model.
const USUAL_VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "cedar", "coral", "default", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
];

/// A text to be spoken.
#[derive(Debug, Clone, Default)]
pub struct SpeakCall {
    /// The model; absent is the first one that speaks.
    pub model: Option<String>,
    /// The text.
    pub text: String,
    /// Name or number of the speaker; absent is the model's configuration, or its first.
    pub voice: Option<String>,
    /// 2 is twice as fast; absent is 1.
    pub speed: Option<f32>,
}

/// A text that is being spoken. Dropping it ends the work.
pub struct Speech {
    lease: Lease,
    runtime: Runtime,
    sentences: VecDeque<SpokenText>,
    /// The sentence that is being spoken.
    pending: Option<Pending<Vec<f32>>>,
    has_begun: bool,
    sample_rate: u32,
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speech").field("sentences", &self.sentences).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Begins to speak a text; [`Speech::next`] gives the sound.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`RuntimeError::InvalidParameter`] for a text that is empty or too long, an unknown voice
    /// or an impossible speed.
    pub async fn speak(&self, call: SpeakCall) -> Result<Speech, RuntimeError> {
        let invalid = |parameter, value: String, permitted: &str| RuntimeError::InvalidParameter {
            parameter,
            value,
            permitted: permitted.to_owned(),
        };
        if call.text.len() > MAX_BYTES {
            let value = format!("a text of {} bytes", call.text.len());
            return Err(invalid("input", value, &format!("at most {MAX_BYTES} bytes, in several requests")));
        }
        let speed = call.speed.unwrap_or(1.0);
        if !SPEEDS.contains(&speed) {
            return Err(invalid("speed", speed.to_string(), "a number from 0.25 to 4"));
        }
        let sentences = sentences::split(&call.text);
        if sentences.is_empty() {
            return Err(invalid("input", "a text without a letter or number".into(), "a text that can be spoken"));
        }
        let lease = self.lease(call.model.as_deref(), Usecase::Tts).await?;
        let info = &lease.speak()?.info;
        let asked = call.voice.filter(|voice| !voice.trim().is_empty());
        let usual = lease.config().speech.voice.as_deref();
        let speaker = speaker(info, asked.as_deref(), usual, lease.model())?;
        let sample_rate = info.sample_rate;
        let sentences = sentences.into_iter().map(|text| SpokenText { text, speaker, speed }).collect();
        let mut speech =
            Speech { lease, runtime: self.clone(), sentences, pending: None, has_begun: false, sample_rate };
        speech.begin_next()?;
        Ok(speech)
    }
}

/// The number of a speaker, where the voice has several; none is the engine's own choice. OpenAI's names, of which clients
/// must send one, mean the voice of the configuration (`usual`), or else Kokoro's namesake: `alloy` is `af_alloy`.
fn speaker(
    info: &SpeakInfo,
    asked: Option<&str>,
    usual: Option<&str>,
    model: &str,
) -> Result<Option<usize>, RuntimeError> {
    let Some(wanted) = asked.or(usual).map(str::trim) else { return Ok(None) };
    let is_name = |name: &String| name.eq_ignore_ascii_case(wanted);
    let is_bare_name = |name: &String| name.split_once('_').is_some_and(|(_, bare)| bare.eq_ignore_ascii_case(wanted));
    let number = || wanted.parse().ok().filter(|&number: &usize| number < info.speakers.len());
    if let Some(found) = info.speakers.iter().position(is_name).or_else(number) {
        return Ok(Some(found));
    }
    let means_any =
        USUAL_VOICES.iter().any(|name| name.eq_ignore_ascii_case(wanted)) || wanted == "verse" || wanted == model;
    if means_any && asked.is_some() && usual.is_some() {
        return speaker(info, None, usual, model);
    }
    if let Some(found) = info.speakers.iter().position(is_bare_name) {
        return Ok(Some(found));
    }
    if means_any {
        return Ok(None);
    }
    let permitted = match &info.speakers[..] {
        [] => format!("{model} or alloy: this model has one voice"),
        names => format!("one of {}", names.iter().take(100).cloned().collect::<Vec<_>>().join(", ")),
    };
    Err(RuntimeError::InvalidParameter { parameter: "voice", value: wanted.to_owned(), permitted })
}

impl Speech {
    /// The model that speaks.
    pub fn model(&self) -> &str {
        self.lease.model()
    }

    /// Samples in a second of what [`Speech::next`] gives.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// The sound of the next sentence, mono, −1 to 1; none at the end. The sentence behind it is begun, so that it is
    /// spoken while this one is sent.
    ///
    /// # Errors
    /// The engine's own.
    pub async fn next(&mut self) -> Result<Option<Vec<f32>>, RuntimeError> {
        while let Some(pending) = self.pending.take() {
            let Answered { mut responses, .. } = pending.await?;
            self.begin_next()?;
            let sound = responses.remove(0);
            if sound.is_empty() {
                continue;
            }
            let pause = if self.has_begun { (self.sample_rate as f32 * PAUSE_SECS) as usize } else { 0 };
            self.has_begun = true;
            let mut with_pause = vec![0.0; pause];
            with_pause.extend(sound);
            return Ok(Some(with_pause));
        }
        Ok(None)
    }

    fn begin_next(&mut self) -> Result<(), RuntimeError> {
        let Some(sentence) = self.sentences.pop_front() else { return Ok(()) };
        self.pending = Some(self.lease.speak()?.thread.submit(vec![sentence], self.runtime.time_limit())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speakers_are_found_by_name_number_and_openai_s_name() {
        let speakers = ["af_alloy", "af_heart", "am_onyx", "bf_alice"].map(str::to_owned).to_vec();
        let info = SpeakInfo { sample_rate: 24_000, speakers, language: String::new(), architecture: "kokoro".into() };
        let found = |voice| speaker(&info, Some(voice), None, "model");
        assert_eq!(found("bf_alice").unwrap(), Some(3));
        assert_eq!(found("Onyx").unwrap(), Some(2));
        assert_eq!(found("1").unwrap(), Some(1));
        // OpenAI's voices that this model has no namesake of, and the model's own name: whoever speaks usually.
        assert_eq!(["nova", "model"].map(|voice| found(voice).unwrap()), [None; 2]);
        // They mean the configured voice, where there is one; other names mean themselves.
        let configured = |voice| speaker(&info, voice, Some("bf_alice"), "model").unwrap();
        assert_eq!([None, Some("alloy"), Some("nova"), Some("model")].map(configured), [Some(3); 4]);
        assert_eq!([Some("af_alloy"), Some("heart")].map(configured), [Some(0), Some(1)]);
        assert!(speaker(&info, None, Some("nobody"), "model").is_err());
        assert!(found("4").is_err() && found("nobody").is_err());
        let single = SpeakInfo { speakers: Vec::new(), ..info };
        assert_eq!(speaker(&single, Some("alloy"), None, "model").unwrap(), None);
    }
}
