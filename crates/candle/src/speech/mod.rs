//! Speech: Whisper writes down what it hears, Silero's detector hears whether anybody speaks, Piper and Kokoro speak.

mod backend;
pub mod kokoro;
mod network;
mod ops;
mod phonemes;
pub mod piper;
pub mod vad;
mod voice;
pub mod whisper;

pub use backend::SpeechBackend;
pub use ops::Precision;
pub use phonemes::{Espeak, EspeakError};
pub use voice::VoiceError;
