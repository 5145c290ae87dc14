use super::{Mel, N_FRAMES, SAMPLE_RATE};

/// Two seconds: a tone and a sweep up to 6 kHz.
fn sound() -> Vec<f32> {
    use std::f64::consts::PI;
    let sample = |at: usize| {
        let secs = at as f64 / SAMPLE_RATE as f64;
        (0.5 * (2.0 * PI * 440.0 * secs).sin() + 0.25 * (2.0 * PI * 3000.0 * secs * secs / 2.0).sin()) as f32
    };
    (0..2 * SAMPLE_RATE).map(sample).collect()
}

/// Numbers of faster-whisper 1.2's `FeatureExtractor` for the same sound: (band, frame, value).
#[test]
fn spectrograms_are_those_of_the_reference() {
    let of_80: &[(usize, usize, f32)] = &[
        (0, 0, 0.96293),
        (5, 10, 0.92061),
        (17, 50, -0.50694),
        (40, 100, -0.50694),
        (79, 150, -0.50694),
        (30, 199, -0.08967),
        (20, 201, 0.17258),
        (60, 1000, -0.50694),
    ];
    let of_128: &[(usize, usize, f32)] = &[
        (0, 0, 0.88717),
        (5, 10, 0.21609),
        (17, 50, 1.33749),
        (40, 100, -0.4648),
        (79, 150, -0.4648),
        (30, 199, 0.25518),
        (20, 201, 0.33311),
        (60, 1000, -0.4648),
    ];
    for (n_mels, wanted) in [(80, of_80), (128, of_128)] {
        let found = Mel::new(n_mels, None).spectrogram(&sound());
        assert_eq!(found.len(), N_FRAMES * n_mels);
        for &(band, frame, value) in wanted {
            let found = found[frame * n_mels + band];
            assert!((found - value).abs() < 2e-3, "band {band} of {n_mels}, frame {frame}: {found}, not {value}");
        }
    }
}

#[test]
fn any_length_has_a_spectrogram() {
    for n in [0, 1, 2, 199, 400, super::N_SAMPLES, super::N_SAMPLES + 5] {
        let found = Mel::new(80, None).spectrogram(&vec![0.1; n]);
        assert!(found.iter().all(|value| value.is_finite()), "{n} samples");
    }
}
