//! Sound in and out: any usual container and codec to samples, samples to the formats clients ask for.
//!
//! Everything is read and written as a stream, so an hour of sound takes no more memory than a second. All codecs are
//! Rust: a file that a client sent can make a decoder panic at worst, and that ends one request.

mod decode;
mod encode;
mod resample;

pub use decode::{AudioReader, MediaError};
pub use encode::{EncodeError, SoundEncoder, SoundFormat, complete_wav, wav};
pub use resample::Resampler;

/// A source of bytes that can be rewound, such as a file.
pub use symphonia::core::io::MediaSource;
