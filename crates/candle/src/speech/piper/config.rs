//! The JSON file beside a voice.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use super::super::VoiceError;
use super::super::phonemes::parts;

/// Starts what is said.
const START: char = '^';
/// Ends what is said.
const END: char = '$';
/// Stands between phonemes.
const BETWEEN: char = '_';
/// Most bytes of the file.
const MAX_BYTES: u64 = 4 << 20;

/// How a voice turns text into sound.
#[derive(Debug, Clone, Deserialize)]
pub struct VoiceConfig {
    /// The sound.
    pub audio: AudioConfig,
    /// The phonemes; absent for voices that take letters.
    #[serde(default)]
    pub espeak: EspeakConfig,
    /// How it speaks.
    #[serde(default)]
    pub inference: InferenceConfig,
    /// `espeak` or `text`.
    #[serde(default = "espeak")]
    pub phoneme_type: String,
    /// Ids of each phoneme.
    pub phoneme_id_map: HashMap<String, Vec<i32>>,
    /// Speakers, 1 or more.
    #[serde(default = "one")]
    pub num_speakers: usize,
    /// Speakers by name.
    #[serde(default)]
    pub speaker_id_map: HashMap<String, usize>,
    /// The language.
    #[serde(default)]
    pub language: LanguageConfig,
}

/// The sound.
#[derive(Debug, Clone, Deserialize)]
pub struct AudioConfig {
    /// Samples in a second.
    pub sample_rate: u32,
}

/// The phonemes.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EspeakConfig {
    /// Name of espeak-ng's voice.
    #[serde(default)]
    pub voice: String,
}

/// How a voice speaks.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct InferenceConfig {
    /// Variation of the sound.
    pub noise_scale: f32,
    /// Length of the phonemes; 2 is half as fast.
    pub length_scale: f32,
    /// Variation of the lengths.
    pub noise_w: f32,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 }
    }
}

/// The language.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LanguageConfig {
    /// Such as `en_US`.
    #[serde(default)]
    pub code: String,
}

fn espeak() -> String {
    "espeak".into()
}

fn one() -> usize {
    1
}

impl VoiceConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or not valid.
    pub fn read(path: &Path) -> Result<Self, VoiceError> {
        let wrong = |reason: String| VoiceError::Config { path: path.to_owned(), reason };
        let len = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if len > MAX_BYTES {
            return Err(wrong(format!("it has {len} bytes")));
        }
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let config: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if !(4_000..=192_000).contains(&config.audio.sample_rate) {
            return Err(wrong(format!("a sample rate of {} is impossible", config.audio.sample_rate)));
        }
        match &*config.phoneme_type {
            "text" => {}
            "espeak" if !config.espeak.voice.is_empty() => {}
            "espeak" => return Err(wrong("espeak.voice is missing".into())),
            other => return Err(wrong(format!("phoneme_type {other} is not one of espeak, text"))),
        }
        Ok(config)
    }

    /// Names of the speakers by number; empty where there is one.
    pub fn speakers(&self) -> Vec<String> {
        if self.num_speakers < 2 {
            return Vec::new();
        }
        let mut names: Vec<String> = (0..self.num_speakers).map(|speaker| speaker.to_string()).collect();
        for (name, &speaker) in &self.speaker_id_map {
            if let Some(place) = names.get_mut(speaker) {
                place.clone_from(name);
            }
        }
        names
    }

    /// Cuts phonemes into parts of at most `most` ids each, start and end apart.
    pub fn parts<'a>(&self, phonemes: &'a str, most: usize) -> Vec<&'a str> {
        parts(phonemes, most, |phoneme| self.n_ids(phoneme))
    }

    /// Ids of a phoneme with its gap; none where the voice does not know it.
    fn n_ids(&self, phoneme: char) -> usize {
        let of = |phoneme: char| self.phoneme_id_map.get(phoneme.encode_utf8(&mut [0; 4]) as &str).map(Vec::len);
        let between = of(BETWEEN).unwrap_or(0);
        std::iter::once(phoneme).nfd().filter_map(of).map(|n_ids| n_ids + between).sum()
    }

    /// Ids of phonemes with start, end and gaps; phonemes the voice does not know are left out. None: nothing is left.
    pub fn ids(&self, phonemes: &str) -> Option<Vec<i32>> {
        let of = |phoneme: char| self.phoneme_id_map.get(phoneme.encode_utf8(&mut [0; 4]) as &str);
        let between = of(BETWEEN).cloned().unwrap_or_default();
        let mut ids = of(START).cloned().unwrap_or_default();
        ids.extend(&between);
        let n_lead = ids.len();
        for known in phonemes.nfd().filter_map(of) {
            ids.extend(known);
            ids.extend(&between);
        }
        let says_something = ids.len() > n_lead && phonemes.chars().any(char::is_alphabetic);
        ids.extend(of(END).into_iter().flatten());
        says_something.then_some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voice of letters, each with one id.
    fn letters() -> VoiceConfig {
        let map: HashMap<String, Vec<i32>> =
            ('a'..='z').chain([' ', START, END, BETWEEN]).zip(0..).map(|(c, id)| (c.to_string(), vec![id])).collect();
        let json = serde_json::json!({"audio": {"sample_rate": 16_000}, "phoneme_type": "text", "phoneme_id_map": map});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn long_phonemes_are_cut_at_blanks_or_hard() {
        let config = letters();
        let words = "abcd efgh ij ".repeat(500);
        let endless = "x".repeat(5000);
        let mixed = format!("{endless} {words}{endless}");
        for text in [words.as_str(), &endless, &mixed, "", "a", "ü".repeat(300).as_str()] {
            for most in [1, 2, 20, 64, 4096, 1 << 20] {
                let parts = config.parts(text, most);
                assert_eq!(parts.concat(), text);
                let frame = config.ids("a").unwrap().len() - 2;
                for part in &parts {
                    let n_ids = config.ids(part).map_or(0, |ids| ids.len() - frame);
                    assert!(n_ids <= most.max(2), "{n_ids} ids where {most} may be");
                }
            }
        }
        // Each letter has an id and a gap.
        assert_eq!(config.parts("abcd efgh ij", 20), ["abcd efgh ", "ij"]);
        assert_eq!(config.parts("abcdefgh", 8), ["abcd", "efgh"]);
        assert!(config.parts(&words, 100).iter().rev().skip(1).all(|part| part.ends_with(' ')));
    }
}
