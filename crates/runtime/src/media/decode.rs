//! Any usual sound file to mono samples at 16 kHz.

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::Resampler;

/// Samples in a second of what comes out.
const RATE: u32 = 16_000;
/// The rate Opus counts its delay in.
const OPUS_RATE: u32 = 48_000;
/// Samples of the longest packet of Opus, 120 ms, at 16 kHz.
const OPUS_PACKET: usize = 1920;
/// Rates that are believed.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;
/// Packets in a row that may be damaged before the file is given up.
const MAX_DAMAGED: usize = 1000;
/// Frames of a packet that a file may announce. Decoders set room aside for as many as are announced; the longest real
/// packets, of FLAC, have 65,535.
const MAX_PACKET_FRAMES: u64 = 1 << 16;
/// Channels that a file may have.
const MAX_CHANNELS: usize = 64;
/// Bytes of a packet that is decoded.
const MAX_PACKET_BYTES: usize = 32 << 20;
/// Seconds of a packet that is believed.
const MAX_PACKET_SECS: usize = 10;

/// Why a file is not heard.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MediaError {
    /// There is nothing.
    #[error("the audio is empty; send a file with sound in it")]
    Empty,
    /// No known container.
    #[error("this is no audio file that is known here ({reason}); send wav, mp3, flac, ogg, opus, m4a, webm or aiff")]
    Unknown {
        /// What the library said.
        reason: String,
    },
    /// A container without sound.
    #[error("the file has no audio track")]
    NoTrack,
    /// A codec that is not here.
    #[error("the audio track has a codec that is not decoded here ({reason}); convert it to wav, mp3, flac or opus")]
    Codec {
        /// What the library said.
        reason: String,
    },
    /// The file is damaged.
    #[error("the audio file is damaged: {reason}")]
    Damaged {
        /// What the library said.
        reason: String,
    },
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<ropus::Decoder>),
}

/// Reads a file as mono samples at 16 kHz, piece by piece.
pub struct AudioReader {
    format: Box<dyn FormatReader>,
    track_id: u32,
    codec: Codec,
    resampler: Option<(u32, Resampler)>,
    /// Samples at the start that belong to the codec, not to the sound.
    n_to_skip: usize,
    n_damaged: usize,
    has_sound: bool,
    has_ended: bool,
}

impl AudioReader {
    /// Opens a file; what it is shows in its content, not in a name.
    ///
    /// # Errors
    /// When it is no audio file or its codec is unknown.
    pub fn open(source: Box<dyn MediaSource>) -> Result<Self, MediaError> {
        if source.byte_len() == Some(0) {
            return Err(MediaError::Empty);
        }
        let stream = MediaSourceStream::new(source, Default::default());
        let probe = symphonia::default::get_probe();
        let opened = probe.probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default());
        let format = opened.map_err(|error| MediaError::Unknown { reason: error.to_string() })?;
        let Opened { track_id, codec, n_to_skip } = open_track(&*format)?;
        Ok(Self {
            track_id,
            codec,
            format,
            resampler: None,
            n_to_skip,
            n_damaged: 0,
            has_sound: false,
            has_ended: false,
        })
    }

    /// The next samples; none at the end.
    ///
    /// # Errors
    /// When the file is damaged or has no sound at all.
    pub fn read(&mut self) -> Result<Option<Vec<f32>>, MediaError> {
        while !self.has_ended {
            let samples = match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track_id => self.decode(&packet)?,
                Ok(Some(_)) => Vec::new(),
                // A file that was cut off is heard as far as it goes.
                Ok(None) | Err(SymphoniaError::IoError(_)) => self.end()?,
                Err(SymphoniaError::ResetRequired) => self.reopen()?,
                Err(SymphoniaError::DecodeError(reason)) => {
                    self.damage(reason)?;
                    Vec::new()
                }
                Err(error) => return Err(MediaError::Damaged { reason: error.to_string() }),
            };
            if !samples.is_empty() {
                self.has_sound = true;
                return Ok(Some(samples));
            }
        }
        if self.has_sound { Ok(None) } else { Err(MediaError::Empty) }
    }

    /// Goes on with the next link of a chained Ogg file, such as a recorded radio stream has one for each song.
    fn reopen(&mut self) -> Result<Vec<f32>, MediaError> {
        let rest = self.resampler.take().map(|(_, mut resampler)| resampler.finish()).unwrap_or_default();
        let Opened { track_id, codec, n_to_skip } = open_track(&*self.format)?;
        (self.track_id, self.codec, self.n_to_skip) = (track_id, codec, n_to_skip);
        Ok(rest)
    }

    fn decode(&mut self, packet: &Packet) -> Result<Vec<f32>, MediaError> {
        if packet.data.len() > MAX_PACKET_BYTES {
            self.damage(&format!("a packet of {} bytes", packet.data.len()))?;
            return Ok(Vec::new());
        }
        let decoded = match &mut self.codec {
            Codec::Opus(_) => return self.decode_opus(packet),
            Codec::Symphonia(decoder) => decoder.decode(packet),
        };
        match decoded {
            Ok(sound) => {
                let rate = sound.spec().rate();
                let n_channels = sound.num_planes();
                let n_frames = sound.frames();
                // Room for what a small packet claims to unpack to could be many times the file's size.
                if n_frames > (MAX_PACKET_SECS * rate as usize).max(MAX_PACKET_FRAMES as usize) {
                    self.damage(&format!("a packet of {n_frames} samples at {rate} Hz"))?;
                    return Ok(Vec::new());
                }
                let mut interleaved: Vec<f32> = Vec::new();
                sound.copy_to_vec_interleaved(&mut interleaved);
                self.n_damaged = 0;
                self.resample(rate, &mono(&interleaved, n_channels))
            }
            Err(error) => {
                self.damage(&error.to_string())?;
                Ok(Vec::new())
            }
        }
    }

    fn decode_opus(&mut self, packet: &Packet) -> Result<Vec<f32>, MediaError> {
        let Codec::Opus(decoder) = &mut self.codec else { return Ok(Vec::new()) };
        let mut samples = vec![0.0; OPUS_PACKET];
        match decoder.decode_float(&packet.data, &mut samples, ropus::DecodeMode::Normal) {
            Ok(n) => {
                samples.truncate(n);
                let skipped = self.n_to_skip.min(n);
                self.n_to_skip -= skipped;
                samples.drain(..skipped);
                self.n_damaged = 0;
                Ok(samples)
            }
            Err(error) => {
                self.damage(&error.to_string())?;
                Ok(Vec::new())
            }
        }
    }

    fn resample(&mut self, rate: u32, samples: &[f32]) -> Result<Vec<f32>, MediaError> {
        if !RATES.contains(&rate) {
            return Err(MediaError::Damaged { reason: format!("a sample rate of {rate} Hz is impossible") });
        }
        // Some streams change their rate on the way.
        let mut ready = Vec::new();
        if self.resampler.as_ref().is_none_or(|(current, _)| *current != rate) {
            if let Some((_, mut old)) = self.resampler.take() {
                ready = old.finish();
            }
            self.resampler = Some((rate, Resampler::new(rate, RATE)));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            ready.extend(resampler.push(samples));
        }
        Ok(ready)
    }

    fn end(&mut self) -> Result<Vec<f32>, MediaError> {
        self.has_ended = true;
        Ok(self.resampler.as_mut().map(|(_, resampler)| resampler.finish()).unwrap_or_default())
    }

    /// A damaged packet is left out, as players do; a file of nothing else is refused.
    fn damage(&mut self, reason: &str) -> Result<(), MediaError> {
        self.n_damaged += 1;
        if self.n_damaged > MAX_DAMAGED {
            return Err(MediaError::Damaged { reason: reason.to_owned() });
        }
        Ok(())
    }
}

/// A track that can be decoded.
struct Opened {
    track_id: u32,
    codec: Codec,
    /// Samples at the start that belong to the codec, not to the sound.
    n_to_skip: usize,
}

/// The first audio track of the file, or of the link of a chained file that has just begun.
fn open_track(format: &dyn FormatReader) -> Result<Opened, MediaError> {
    let track = format.default_track(TrackType::Audio).ok_or(MediaError::NoTrack)?;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let codec = codec(parameters.ok_or(MediaError::NoTrack)?)?;
    let n_to_skip = match codec {
        Codec::Opus(_) => (track.delay.unwrap_or(0) / (OPUS_RATE / RATE)) as usize,
        Codec::Symphonia(_) => 0,
    };
    Ok(Opened { track_id: track.id, codec, n_to_skip })
}

fn codec(parameters: &AudioCodecParameters) -> Result<Codec, MediaError> {
    if let Some(n) = parameters.max_frames_per_packet.filter(|&n| n > MAX_PACKET_FRAMES) {
        return Err(MediaError::Codec { reason: format!("packets of {n} samples") });
    }
    if let Some(n) = parameters.channels.as_ref().map(|channels| channels.count()).filter(|&n| n > MAX_CHANNELS) {
        return Err(MediaError::Codec { reason: format!("{n} channels") });
    }
    if parameters.codec == CODEC_ID_OPUS {
        if parameters.channels.as_ref().is_some_and(|channels| channels.count() > 2) {
            return Err(MediaError::Codec { reason: "Opus with more than two channels".into() });
        }
        let decoder = ropus::Decoder::new(RATE, ropus::Channels::Mono);
        let decoder = decoder.map_err(|error| MediaError::Codec { reason: error.to_string() })?;
        return Ok(Codec::Opus(Box::new(decoder)));
    }
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default());
    Ok(Codec::Symphonia(decoder.map_err(|error| MediaError::Codec { reason: error.to_string() })?))
}

/// The mean of all channels. What is no number is silence.
fn mono(interleaved: &[f32], n_channels: usize) -> Vec<f32> {
    let n_channels = n_channels.max(1);
    let mean = |frame: &[f32]| frame.iter().sum::<f32>() / n_channels as f32;
    interleaved.chunks_exact(n_channels).map(mean).map(|sample| if sample.is_finite() { sample } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests;
