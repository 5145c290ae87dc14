//! Speech: Whisper writes down what it hears, Silero's detector hears whether anybody speaks, Piper speaks.

mod backend;
mod ops;
pub mod piper;
pub mod vad;
pub mod whisper;

pub use backend::SpeechBackend;
pub use ops::Precision;
