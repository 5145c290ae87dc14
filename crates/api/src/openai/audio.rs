//! Speech: transcripts and spoken text.
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// The body of `POST /v1/audio/speech`.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SpeechRequest {
    /// Which model speaks; absent, the server's first one that does.
    pub model: Option<String>,
    /// The text.
    pub input: Option<String>,
    /// The speaker: a name or number of the model's. OpenAI's names stand for the model's first.
    pub voice: Option<Voice>,
    /// `wav` (what comes when absent), `mp3`, `opus`, `flac` or `pcm`.
    pub response_format: Option<String>,
    /// 0.25 to 4; 1 is the model's own speed.
    pub speed: Option<f32>,
    /// `audio`, or `sse` for events with pieces in base64.
    pub stream_format: Option<String>,
    /// Answers are sent while they are made; a wav only where this is true, since its length stands at its beginning.
    pub stream: Option<bool>,
    /// Samples in a second of wav and flac; absent, the model's.
    #[serde(deserialize_with = "crate::lenient::integer")]
    pub sample_rate: Option<u32>,
}

/// A speaker, as a name or as an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Voice {
    /// Its name.
    Name(String),
    /// Its id.
    Id {
        /// The id.
        id: String,
    },
}

impl Voice {
    /// The name.
    pub fn name(self) -> String {
        match self {
            Self::Name(name) => name,
            Self::Id { id } => id,
        }
    }
}

/// The body of `POST /v1/text-to-speech/{voice}`, as ElevenLabs has it.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TextToSpeechRequest {
    /// The text.
    pub text: Option<String>,
    /// Which model speaks; absent, the one that the path names.
    pub model_id: Option<String>,
    /// A voice speaks its own language.
    pub language_code: Option<String>,
}

/// The answer of `POST /v1/audio/transcriptions`.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Transcript {
    /// `transcribe` or `translate`.
    pub task: Option<String>,
    /// English name of the language.
    pub language: Option<String>,
    /// Seconds of the recording.
    pub duration: Option<f64>,
    /// Everything that was said.
    pub text: String,
    /// Piece by piece.
    pub segments: Option<Vec<TranscriptSegment>>,
    /// Word by word, where it was asked for.
    pub words: Option<Vec<TranscriptWord>>,
}

/// A piece of a transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TranscriptSegment {
    /// From 0.
    pub id: usize,
    /// Where its window begins, in hundredths of a second.
    pub seek: u64,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording.
    pub end: f64,
    /// What was said.
    pub text: String,
    /// The model's tokens.
    pub tokens: Vec<u32>,
    /// The temperature at which it was written.
    pub temperature: f32,
    /// ln p of a token on average.
    pub avg_logprob: f64,
    /// High where the text repeats itself.
    pub compression_ratio: f64,
    /// Probability of silence.
    pub no_speech_prob: f64,
}

/// A word of a transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TranscriptWord {
    /// The word.
    pub word: String,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// Seconds from the start of the recording.
    pub end: f64,
}

/// An event of a transcript that is streamed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum TranscriptEvent {
    /// More text.
    #[serde(rename = "transcript.text.delta")]
    Delta {
        /// What follows the text so far.
        delta: String,
    },
    /// The end.
    #[serde(rename = "transcript.text.done")]
    Done {
        /// Everything that was said.
        #[serde(flatten)]
        transcript: Transcript,
    },
}

/// An event of spoken text that is streamed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum SpeechEvent {
    /// More sound.
    #[serde(rename = "speech.audio.delta")]
    Delta {
        /// Bytes of the format, in base64.
        audio: String,
    },
    /// The end.
    #[serde(rename = "speech.audio.done")]
    Done {
        /// What it took.
        usage: SpeechUsage,
    },
}

/// What spoken text took. Voices do not count tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeechUsage {
    /// Bytes of text.
    pub input_tokens: usize,
    /// Tenths of a second of sound.
    pub output_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}
