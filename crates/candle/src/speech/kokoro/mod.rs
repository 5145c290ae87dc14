//! Kokoro-82M: StyleTTS 2 with a vocoder of inverse Fourier transforms, as an ONNX file, run by rten.
//!
//! A network speaks with every voice; a voice is a table of styles, one for each length of what is said. The networks take
//! symbols of their own for sounds ([`symbols`]), which are made from espeak-ng's phonemes.
//!
//! Source: Kokoro-82M v1.0 by hexgrad, <https://github.com/hexgrad/kokoro>, and the exports of `kokoro-onnx` and
//! `onnx-community`.

mod styles;
mod symbols;
mod voice;

pub(super) use styles::{is_kokoro, network_of};

pub use styles::Style;
pub use symbols::Language;
pub use voice::Kokoro;
