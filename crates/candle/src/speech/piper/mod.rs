//! Piper voices: VITS networks as ONNX files with a JSON file beside them, run by rten.
//!
//! A voice speaks phonemes. They come from espeak-ng, which is looked for when it is needed: it is licensed under the
//! GPL, so it is run as a program and never linked in.

mod config;
mod phonemes;
mod voice;

pub use config::VoiceConfig;
pub use phonemes::{Espeak, EspeakError};
pub use voice::{PiperError, Voice};
