//! Piper voices: VITS networks as ONNX files with a JSON file beside them, run by rten. A voice speaks phonemes.

mod config;
mod voice;

pub use config::VoiceConfig;
pub use voice::Voice;
