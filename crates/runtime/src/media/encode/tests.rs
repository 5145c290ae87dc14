use std::io::Cursor;

use super::super::AudioReader;
use super::{SoundEncoder, SoundFormat, complete_wav, wav};

const RATE: u32 = 22_050;

/// Two tones in turn, a second each.
fn sound() -> Vec<f32> {
    let tone = |at: usize| if (at / RATE as usize).is_multiple_of(2) { 300.0 } else { 700.0 };
    let sample = |at: usize| (at as f32 * tone(at) * std::f32::consts::TAU / RATE as f32).sin() * 0.5;
    (0..2 * RATE as usize + 777).map(sample).collect()
}

fn encode(format: SoundFormat) -> Vec<u8> {
    let mut encoder = SoundEncoder::new(format, RATE, None).unwrap();
    let mut bytes = Vec::new();
    for piece in sound().chunks(1000) {
        bytes.extend(encoder.push(piece).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

fn decode(bytes: Vec<u8>) -> Vec<f32> {
    let mut reader = AudioReader::open(Box::new(Cursor::new(bytes))).unwrap();
    let mut samples = Vec::new();
    while let Some(piece) = reader.read().unwrap() {
        samples.extend(piece);
    }
    samples
}

/// How much of the power of a second is at a frequency.
fn share(samples: &[f32], frequency: f32) -> f32 {
    let (mut real, mut imaginary, mut power) = (0.0, 0.0, 1e-9);
    for (at, sample) in samples.iter().enumerate() {
        let angle = at as f32 * frequency * std::f32::consts::TAU / 16_000.0;
        real += sample * angle.cos();
        imaginary += sample * angle.sin();
        power += sample * sample;
    }
    2.0 * (real * real + imaginary * imaginary) / (samples.len() as f32 * power)
}

#[test]
fn every_format_is_heard_again() {
    for format in [SoundFormat::Wav, SoundFormat::Mp3, SoundFormat::Opus, SoundFormat::Flac] {
        let samples = decode(encode(format));
        let secs = samples.len() as f32 / 16_000.0;
        // MP3 adds its own delay.
        assert!((secs - 2.035).abs() < 0.12, "{format:?}: {secs} s");
        let (first, second) = (&samples[3_200..12_800], &samples[19_200..28_800]);
        assert!(share(first, 300.0) > 0.9, "{format:?}: {}", share(first, 300.0));
        assert!(share(second, 700.0) > 0.9, "{format:?}: {}", share(second, 700.0));
    }
}

#[test]
fn a_wav_that_was_streamed_can_be_completed() {
    let mut streamed = encode(SoundFormat::Wav);
    let whole = wav(&sound(), RATE);
    assert_ne!(streamed, whole);
    complete_wav(&mut streamed);
    assert_eq!(streamed, whole);
    // Not even a head.
    complete_wav(&mut [0; 10]);
}

#[test]
fn pcm_is_bare_samples_at_24_khz() {
    let bytes = encode(SoundFormat::Pcm);
    let wanted = sound().len() as f64 * 24_000.0 / f64::from(RATE);
    assert!((bytes.len() as f64 / 2.0 - wanted).abs() < 2.0, "{} bytes", bytes.len());
}

#[test]
fn nothing_is_a_file_without_sound() {
    for format in [SoundFormat::Wav, SoundFormat::Mp3, SoundFormat::Opus, SoundFormat::Flac, SoundFormat::Pcm] {
        let mut encoder = SoundEncoder::new(format, RATE, None).unwrap();
        let mut bytes = encoder.push(&[]).unwrap();
        bytes.extend(encoder.finish().unwrap());
        assert!(bytes.len() < 2000, "{format:?}: {} bytes", bytes.len());
    }
}

#[test]
fn a_wav_of_known_length_says_so() {
    let bytes = wav(&[0.0; 10], 16_000);
    assert_eq!(bytes.len(), 44 + 20);
    assert_eq!(bytes[4..8], 56_u32.to_le_bytes());
    assert_eq!(bytes[40..44], 20_u32.to_le_bytes());
}
