//! Mono samples to the formats clients ask for, as a stream.

use std::sync::mpsc;

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr as _, Stream, StreamInfo};
use flacenc::error::Verify as _;
use flacenc::source::{Fill as _, FrameBuf};
use ogg::writing::{PacketWriteEndInfo, PacketWriter};

use super::Resampler;

/// OpenAI's `pcm`: 24 kHz.
const PCM_RATE: u32 = 24_000;
/// A rate that Opus and MP3 know, for voices whose own they do not.
const USUAL_RATE: u32 = 24_000;
/// Opus counts in samples at 48 kHz whatever the input.
const OPUS_CLOCK: u64 = 48_000;
/// Frames of Opus a second.
const OPUS_FRAMES: u32 = 50;
/// Samples of a FLAC block.
const FLAC_BLOCK: usize = 4096;
/// Bits a second of MP3 up to 24 kHz, in thousands.
const MP3_KBPS: u32 = 64;
/// Of MP3 above.
const MP3_HIGH_KBPS: u32 = 128;

/// Bytes in front of the samples of a WAV file that is written here.
const WAV_HEADER_BYTES: usize = 44;

/// A format of spoken answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundFormat {
    /// RIFF, 16 bit.
    Wav,
    /// MPEG layer III.
    Mp3,
    /// Opus in Ogg.
    Opus,
    /// FLAC, 16 bit.
    Flac,
    /// 16-bit little-endian samples at 24 kHz without a header.
    Pcm,
}

impl SoundFormat {
    /// The format of a name as OpenAI spells it.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "wav" => Self::Wav,
            "mp3" => Self::Mp3,
            "opus" | "ogg" => Self::Opus,
            "flac" => Self::Flac,
            "pcm" => Self::Pcm,
            _ => return None,
        })
    }

    /// The media type of a body.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Flac => "audio/flac",
            Self::Pcm => "audio/pcm",
        }
    }

    /// The ending of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Opus => "ogg",
            Self::Flac => "flac",
            Self::Pcm => "pcm",
        }
    }

    /// The rate in which a voice of `rate` is written.
    fn rate(self, rate: u32) -> u32 {
        match self {
            Self::Wav | Self::Flac => rate,
            Self::Mp3 if [16_000, 22_050, 24_000, 32_000, 44_100, 48_000].contains(&rate) => rate,
            Self::Opus if [8_000, 12_000, 16_000, 24_000, 48_000].contains(&rate) => rate,
            Self::Mp3 | Self::Opus => USUAL_RATE,
            Self::Pcm => PCM_RATE,
        }
    }
}

/// An encoder failed; this does not depend on what is said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the sound cannot be written as {format}: {reason}")]
pub struct EncodeError {
    /// The format.
    pub format: &'static str,
    /// What the library said.
    pub reason: String,
}

/// Writes mono samples, −1 to 1, in a format.
pub struct SoundEncoder {
    resampler: Resampler,
    kind: Kind,
}

enum Kind {
    Wav { rate: u32, is_started: bool },
    Pcm,
    Mp3(Mp3Writer),
    Opus(Box<OpusWriter>),
    Flac(Box<FlacWriter>),
}

impl SoundEncoder {
    /// For samples of `rate` a second, which `wanted` replaces where the format leaves a choice.
    ///
    /// # Errors
    /// When the format cannot have such a rate.
    pub fn new(format: SoundFormat, rate: u32, wanted: Option<u32>) -> Result<Self, EncodeError> {
        let target = format.rate(wanted.unwrap_or(rate));
        let kind = match format {
            SoundFormat::Wav => Kind::Wav { rate: target, is_started: false },
            SoundFormat::Pcm => Kind::Pcm,
            SoundFormat::Mp3 => Kind::Mp3(Mp3Writer::new(target)?),
            SoundFormat::Opus => Kind::Opus(Box::new(OpusWriter::new(target)?)),
            SoundFormat::Flac => Kind::Flac(Box::new(FlacWriter::new(target)?)),
        };
        Ok(Self { resampler: Resampler::new(rate, target), kind })
    }

    /// Takes samples and returns bytes that are ready.
    ///
    /// # Errors
    /// When the library fails.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        let samples = self.resampler.push(samples);
        self.write(&samples)
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// When the library fails.
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let samples = self.resampler.finish();
        let mut bytes = self.write(&samples)?;
        match self.kind {
            Kind::Wav { .. } | Kind::Pcm => {}
            Kind::Mp3(encoder) => bytes.extend(encoder.ask(None)?),
            Kind::Opus(encoder) => bytes.extend(encoder.finish()?),
            Kind::Flac(encoder) => bytes.extend(encoder.finish()?),
        }
        Ok(bytes)
    }

    fn write(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        match &mut self.kind {
            Kind::Wav { rate, is_started } => {
                let mut bytes = if *is_started { Vec::new() } else { wav_header(*rate, None) };
                *is_started = true;
                bytes.extend(little_endian(samples));
                Ok(bytes)
            }
            Kind::Pcm => Ok(little_endian(samples)),
            Kind::Mp3(_) if samples.is_empty() => Ok(Vec::new()),
            Kind::Mp3(encoder) => encoder.ask(Some(sixteen_bit(samples))),
            Kind::Opus(encoder) => encoder.push(samples),
            Kind::Flac(encoder) => encoder.push(samples),
        }
    }
}

/// A whole WAV file of 16-bit samples.
pub fn wav(samples: &[f32], rate: u32) -> Vec<u8> {
    let mut bytes = wav_header(rate, u32::try_from(2 * samples.len()).ok());
    bytes.extend(little_endian(samples));
    bytes
}

/// Writes the length of a whole WAV file of [`SoundEncoder`] into its head, where it was not known at first.
///
/// Files of 4 GiB and more stay as they are: the head has no room for their length.
pub fn complete_wav(file: &mut [u8]) {
    let n_data = file.len().checked_sub(WAV_HEADER_BYTES).and_then(|n| u32::try_from(n).ok());
    let Some(n_data) = n_data.filter(|n| *n <= u32::MAX - 36) else { return };
    file[4..8].copy_from_slice(&(n_data + 36).to_le_bytes());
    file[WAV_HEADER_BYTES - 4..WAV_HEADER_BYTES].copy_from_slice(&n_data.to_le_bytes());
}

/// The head of a WAV file of 16-bit mono samples; a length that is not known yet is written as the largest there is.
fn wav_header(rate: u32, n_data: Option<u32>) -> Vec<u8> {
    let n_data = n_data.filter(|n| *n <= u32::MAX - 36);
    let mut header = Vec::with_capacity(WAV_HEADER_BYTES);
    header.extend(b"RIFF");
    header.extend(n_data.map_or(u32::MAX, |n| n + 36).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    header.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    header.extend([rate, 2 * rate].map(u32::to_le_bytes).concat());
    header.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    header.extend(b"data");
    header.extend(n_data.unwrap_or(u32::MAX).to_le_bytes());
    header
}

fn sixteen_bit(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|sample| (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).collect()
}

fn little_endian(samples: &[f32]) -> Vec<u8> {
    sixteen_bit(samples).into_iter().flat_map(i16::to_le_bytes).collect()
}

fn failed<E: std::fmt::Debug>(format: &'static str) -> impl Fn(E) -> EncodeError {
    move |error| EncodeError { format, reason: format!("{error:?}") }
}

/// The library's encoder holds pointers into itself and may not change threads, as streams do: it has one of its own,
/// which ends with the writer.
struct Mp3Writer {
    /// None ends the file.
    samples: mpsc::Sender<Option<Vec<i16>>>,
    bytes: mpsc::Receiver<Result<Vec<u8>, EncodeError>>,
}

impl Mp3Writer {
    fn new(rate: u32) -> Result<Self, EncodeError> {
        let (samples, taken) = mpsc::channel::<Option<Vec<i16>>>();
        let (given, bytes) = mpsc::channel();
        let encode = move || {
            let mut encoder = match mp3(rate) {
                Ok(encoder) => encoder,
                // The first push is told; nobody misses it who is gone.
                Err(error) => return drop(given.send(Err(error))),
            };
            while let Ok(samples) = taken.recv() {
                let encoded = match samples {
                    Some(samples) => encoder.encode_interleaved(&samples).map(|frames| frames.concat()),
                    None => encoder.finish(),
                };
                if given.send(encoded.map_err(failed("mp3"))).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("mp3".into()).spawn(encode).map_err(failed("mp3"))?;
        Ok(Self { samples, bytes })
    }

    fn ask(&self, samples: Option<Vec<i16>>) -> Result<Vec<u8>, EncodeError> {
        // A thread that has ended said why before, or panicked.
        let _ = self.samples.send(samples);
        self.bytes.recv().unwrap_or_else(|_| Err(EncodeError { format: "mp3", reason: "the encoder ended".into() }))
    }
}

fn mp3(rate: u32) -> Result<shine_rs::Mp3Encoder, EncodeError> {
    let kbps = if rate > 24_000 { MP3_HIGH_KBPS } else { MP3_KBPS };
    let config = shine_rs::Mp3EncoderConfig::new().sample_rate(rate).bitrate(kbps).channels(1);
    shine_rs::Mp3Encoder::new(config.stereo_mode(shine_rs::StereoMode::Mono)).map_err(failed("mp3"))
}

/// Opus packets in an Ogg stream (RFC 7845).
struct OpusWriter {
    encoder: ropus::Encoder,
    writer: PacketWriter<'static, Vec<u8>>,
    waiting: Vec<f32>,
    /// The last packet, held back because only the very last one ends the stream.
    held: Option<Vec<u8>>,
    frame_len: usize,
    rate: u32,
    serial: u32,
    /// Samples at 48 kHz up to the end of the packet held back.
    position: u64,
    n_samples: u64,
    pre_skip: u16,
}

impl OpusWriter {
    fn new(rate: u32) -> Result<Self, EncodeError> {
        let builder = ropus::Encoder::builder(rate, ropus::Channels::Mono, ropus::Application::Audio);
        let encoder = builder.build().map_err(failed("opus"))?;
        let pre_skip = (u64::from(encoder.lookahead()) * OPUS_CLOCK / u64::from(rate)) as u16;
        let mut writer = PacketWriter::new(Vec::new());
        let serial = 1;
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend(pre_skip.to_le_bytes());
        head.extend(rate.to_le_bytes());
        head.extend([0, 0, 0]);
        let mut tags = b"OpusTags".to_vec();
        tags.extend(5_u32.to_le_bytes());
        tags.extend(b"ingle");
        tags.extend(0_u32.to_le_bytes());
        for packet in [head, tags] {
            writer.write_packet(packet, serial, PacketWriteEndInfo::EndPage, 0).map_err(failed("opus"))?;
        }
        let (waiting, held) = (Vec::new(), None);
        let frame_len = (rate / OPUS_FRAMES) as usize;
        Ok(Self { encoder, writer, waiting, held, frame_len, rate, serial, position: 0, n_samples: 0, pre_skip })
    }

    fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        self.n_samples += samples.len() as u64;
        self.waiting.extend_from_slice(samples);
        while self.waiting.len() >= self.frame_len {
            let frame: Vec<f32> = self.waiting.drain(..self.frame_len).collect();
            self.encode(&frame)?;
        }
        self.take()
    }

    fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let end = self.n_samples * OPUS_CLOCK / u64::from(self.rate) + u64::from(self.pre_skip);
        // What the encoder looked ahead comes out behind the last samples.
        while self.position < end || self.held.is_none() {
            let mut frame = std::mem::take(&mut self.waiting);
            frame.resize(self.frame_len, 0.0);
            self.encode(&frame)?;
        }
        if let Some(last) = self.held.take() {
            self.writer.write_packet(last, self.serial, PacketWriteEndInfo::EndStream, end).map_err(failed("opus"))?;
        }
        self.take()
    }

    fn encode(&mut self, frame: &[f32]) -> Result<(), EncodeError> {
        let mut packet = vec![0; 4000];
        let n = self.encoder.encode_float(frame, &mut packet).map_err(failed("opus"))?;
        packet.truncate(n);
        if let Some(before) = self.held.replace(packet) {
            // A page a second keeps the overhead small and the stream alive.
            let is_second = self.position.is_multiple_of(OPUS_CLOCK);
            let end = if is_second { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.writer.write_packet(before, self.serial, end, self.position).map_err(failed("opus"))?;
        }
        self.position += OPUS_CLOCK / u64::from(OPUS_FRAMES);
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<u8>, EncodeError> {
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}

/// FLAC frames behind a header that leaves the length open.
struct FlacWriter {
    config: flacenc::error::Verified<flacenc::config::Encoder>,
    info: StreamInfo,
    waiting: Vec<f32>,
    n_frames: usize,
    header: Option<Vec<u8>>,
}

impl FlacWriter {
    fn new(rate: u32) -> Result<Self, EncodeError> {
        let config = flacenc::config::Encoder::default().into_verified().map_err(failed("flac"))?;
        let mut stream = Stream::new(rate as usize, 1, 16).map_err(failed("flac"))?;
        stream.stream_info_mut().set_block_sizes(FLAC_BLOCK, FLAC_BLOCK).map_err(failed("flac"))?;
        let mut sink = ByteSink::new();
        stream.write(&mut sink).map_err(failed("flac"))?;
        let info = stream.stream_info().clone();
        Ok(Self { config, info, waiting: Vec::new(), n_frames: 0, header: Some(sink.as_slice().to_vec()) })
    }

    fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header.take().unwrap_or_default();
        self.waiting.extend_from_slice(samples);
        while self.waiting.len() >= FLAC_BLOCK {
            let block: Vec<f32> = self.waiting.drain(..FLAC_BLOCK).collect();
            bytes.extend(self.frame(&block)?);
        }
        Ok(bytes)
    }

    fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header.take().unwrap_or_default();
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            bytes.extend(self.frame(&rest)?);
        }
        Ok(bytes)
    }

    fn frame(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        let samples: Vec<i32> = sixteen_bit(samples).into_iter().map(i32::from).collect();
        let mut block = FrameBuf::with_size(1, samples.len()).map_err(failed("flac"))?;
        block.fill_interleaved(&samples).map_err(failed("flac"))?;
        let frame = flacenc::encode_fixed_size_frame(&self.config, &block, self.n_frames, &self.info);
        self.n_frames += 1;
        let mut sink = ByteSink::new();
        frame.map_err(failed("flac"))?.write(&mut sink).map_err(failed("flac"))?;
        Ok(sink.as_slice().to_vec())
    }
}

#[cfg(test)]
mod tests;
