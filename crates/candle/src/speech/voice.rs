//! What goes wrong with voices, whatever their family.

use std::path::PathBuf;

use super::EspeakError;

/// Why a voice cannot be loaded or does not speak.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// A file beside the network: Piper's settings, Kokoro's styles.
    #[error("{path}, which belongs to the voice, cannot be used: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The network.
    #[error("{path} is no {family} voice: {reason}", path = path.display())]
    Network {
        /// What it was taken for.
        family: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No phonemes.
    #[error(transparent)]
    Espeak(#[from] EspeakError),
    /// No such speaker.
    #[error("this voice has {n_speakers} speakers, there is no number {speaker}")]
    Speaker {
        /// What was asked for.
        speaker: usize,
        /// What there is.
        n_speakers: usize,
    },
    /// The network failed.
    #[error("the voice failed: {reason}")]
    Run {
        /// What it said.
        reason: String,
    },
}
