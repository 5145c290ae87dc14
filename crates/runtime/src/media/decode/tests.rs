use std::io::Cursor;

use super::super::encode::wav;
use super::{AudioReader, MediaError};

fn read(bytes: Vec<u8>) -> Result<Vec<f32>, MediaError> {
    let mut reader = AudioReader::open(Box::new(Cursor::new(bytes)))?;
    let mut samples = Vec::new();
    while let Some(piece) = reader.read()? {
        samples.extend(piece);
    }
    Ok(samples)
}

/// A WAV header for `n_channels` at `rate` with `n_data` bytes of 16-bit data announced.
fn header(n_channels: u16, rate: u32, n_data: u32) -> Vec<u8> {
    let mut bytes = wav(&[], rate);
    bytes[22..24].copy_from_slice(&n_channels.to_le_bytes());
    bytes[28..32].copy_from_slice(&(rate.wrapping_mul(u32::from(n_channels) * 2)).to_le_bytes());
    bytes[32..34].copy_from_slice(&(n_channels * 2).to_le_bytes());
    bytes[4..8].copy_from_slice(&n_data.saturating_add(36).to_le_bytes());
    bytes[40..44].copy_from_slice(&n_data.to_le_bytes());
    bytes
}

#[test]
fn what_is_no_sound_is_refused() {
    assert!(matches!(read(Vec::new()), Err(MediaError::Empty)));
    assert!(matches!(read(b"hello, this is text and not sound at all".to_vec()), Err(MediaError::Unknown { .. })));
    assert!(matches!(read(vec![0; 5000]), Err(MediaError::Unknown { .. })));
    assert!(matches!(read(wav(&[], 16_000)), Err(MediaError::Empty)));
    let mut random = 7_u64;
    let noise = (0..20_000).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as u8
    });
    assert!(read(noise.collect()).is_err());
}

#[test]
fn one_sample_is_sound() {
    assert_eq!(read(wav(&[0.5], 16_000)).unwrap().len(), 1);
}

#[test]
fn channels_are_mixed_and_high_rates_lowered() {
    let mut bytes = header(8, 192_000, 8 * 2 * 19_200);
    bytes.extend([0_u8, 64].repeat(8 * 19_200));
    let samples = read(bytes).unwrap();
    assert!(samples.len().abs_diff(1600) <= 1, "{}", samples.len());
    assert!((samples[800] - 0.5).abs() < 0.01, "{}", samples[800]);
}

#[test]
fn a_length_that_is_not_there_is_not_believed() {
    for claimed in [u32::MAX, u32::MAX - 1, 1 << 30] {
        let mut bytes = header(1, 16_000, claimed);
        bytes.extend([0_u8, 64].repeat(3200));
        assert_eq!(read(bytes).unwrap().len(), 3200, "{claimed} bytes announced");
    }
}

/// A Core Audio file of `n_channels`, whose packets are said to have `n_frames`.
fn caf(format: &[u8; 4], n_frames: u32, n_channels: u32, n_bits: u32) -> Vec<u8> {
    let mut bytes = b"caff\0\x01\0\0desc".to_vec();
    bytes.extend(32_u64.to_be_bytes());
    bytes.extend(16_000_f64.to_be_bytes());
    bytes.extend(format);
    bytes.extend([1, 8, n_frames, n_channels, n_bits].map(u32::to_be_bytes).concat());
    bytes.extend(b"data");
    bytes.extend(12_u64.to_be_bytes());
    bytes.extend([0; 12]);
    bytes
}

#[test]
fn packets_of_any_announced_length_take_no_memory() {
    // The decoders would set 32 GiB aside for the first.
    for bytes in [caf(b"lpcm", u32::MAX, 1, 64), caf(b"ima4", u32::MAX, 2, 4), caf(b"lpcm", (1 << 16) + 1, 1, 64)] {
        assert!(matches!(read(bytes), Err(MediaError::Codec { .. })));
    }
    // A flag 1 of big-endian floats: what is within the limit is no fault of its length.
    assert!(!matches!(read(caf(b"lpcm", 1 << 16, 1, 64)), Err(MediaError::Codec { .. })));
}

#[test]
fn all_links_of_a_chained_file_are_heard() {
    let link = |level: f32| {
        let mut encoder = super::super::SoundEncoder::new(super::super::SoundFormat::Opus, 16_000, None).unwrap();
        let tone: Vec<f32> = (0..32_000).map(|at| level * (at as f32 * 0.1).sin()).collect();
        let mut bytes = encoder.push(&tone).unwrap();
        bytes.extend(encoder.finish().unwrap());
        bytes
    };
    let alone = read(link(0.5)).unwrap().len();
    let both = read([link(0.5), link(0.1)].concat()).unwrap();
    assert!(both.len().abs_diff(2 * alone) <= 960, "{} samples, one link has {alone}", both.len());
    let peak = |samples: &[f32]| samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    assert!(peak(&both[1600..alone - 1600]) > 0.4);
    assert!((0.05..0.2).contains(&peak(&both[alone + 1600..])), "the second link is the quiet one");
}

#[test]
fn impossible_rates_are_refused() {
    for rate in [0, 1, u32::MAX] {
        let mut bytes = header(1, rate, 6400);
        bytes.extend([0_u8, 64].repeat(3200));
        assert!(read(bytes).is_err(), "{rate} Hz");
    }
}

#[test]
fn damaged_files_end_and_do_not_panic() {
    let mut encoder = super::super::SoundEncoder::new(super::super::SoundFormat::Opus, 16_000, None).unwrap();
    let mut opus = encoder.push(&[0.1; 32_000]).unwrap();
    opus.extend(encoder.finish().unwrap());
    let wav = wav(&[0.1; 8000], 16_000);
    for original in [opus, wav] {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let mut bytes = original.clone();
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(1..bytes.len()));
            // Whatever comes of it, it comes to an end.
            let _ = read(bytes);
        }
    }
}
