//! The log-mel spectrogram Whisper listens to: 25 ms windows every 10 ms, 80 or 128 mel bands.

use std::sync::Arc;

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

/// Samples in a second.
pub const SAMPLE_RATE: usize = 16_000;
/// Samples of one window.
pub const N_FFT: usize = 400;
/// Samples between windows.
pub const HOP: usize = 160;
/// Frames of a spectrogram: 30 s.
pub const N_FRAMES: usize = 3000;
/// Samples of a spectrogram.
pub const N_SAMPLES: usize = N_FRAMES * HOP;
const N_BINS: usize = N_FFT / 2 + 1;

/// Turns sound into spectrograms.
pub struct Mel {
    n_mels: usize,
    /// For each band the first bin it weighs and its weights.
    filters: Vec<(usize, Vec<f32>)>,
    /// `[N_FFT]`, Hann.
    window: Vec<f32>,
    fft: Arc<dyn Fft<f32>>,
}

impl Mel {
    /// With `n_mels` bands; `filters`, `[n_mels, 201]`, replaces the computed ones.
    pub fn new(n_mels: usize, filters: Option<&[f32]>) -> Self {
        let computed;
        let filters = match filters.filter(|filters| filters.len() == n_mels * N_BINS) {
            Some(filters) => filters,
            None => {
                computed = slaney_filters(n_mels);
                &computed[..]
            }
        };
        let window = (0..N_FFT).map(|at| {
            let angle = 2.0 * std::f64::consts::PI * at as f64 / N_FFT as f64;
            (0.5 - 0.5 * angle.cos()) as f32
        });
        Self {
            n_mels,
            filters: filters.chunks(N_BINS).map(sparse).collect(),
            window: window.collect(),
            fft: FftPlanner::new().plan_fft_forward(N_FFT),
        }
    }

    /// The spectrogram `[N_FRAMES, n_mels]` of up to 30 s of sound at 16 kHz; what is missing is silence.
    pub fn spectrogram(&self, samples: &[f32]) -> Vec<f32> {
        let samples = &samples[..samples.len().min(N_SAMPLES)];
        let padded = reflected(samples);
        let mut mel = vec![0.0; N_FRAMES * self.n_mels];
        let mut scratch = vec![Complex32::default(); self.fft.get_inplace_scratch_len()];
        let mut spectrum = vec![Complex32::default(); N_FFT];
        // Two real windows are transformed at once, as real and imaginary part.
        for (pair, frames) in mel.chunks_mut(2 * self.n_mels).enumerate() {
            let first = 2 * pair * HOP;
            for (at, (value, weight)) in spectrum.iter_mut().zip(&self.window).enumerate() {
                *value = Complex32::new(padded[first + at] * weight, padded[first + HOP + at] * weight);
            }
            self.fft.process_with_scratch(&mut spectrum, &mut scratch);
            let (even, odd) = powers(&spectrum);
            let (front, back) = frames.split_at_mut(self.n_mels);
            self.bands(&even, front);
            self.bands(&odd, back);
        }
        normalise(&mut mel);
        mel
    }

    fn bands(&self, power: &[f32; N_BINS], bands: &mut [f32]) {
        for (band, (first, weights)) in bands.iter_mut().zip(&self.filters) {
            let sum: f32 = weights.iter().zip(&power[*first..]).map(|(weight, power)| weight * power).sum();
            *band = sum.max(1e-10).log10();
        }
    }
}

/// Power spectra of the real and the imaginary part of a signal whose transform is `spectrum`.
fn powers(spectrum: &[Complex32]) -> ([f32; N_BINS], [f32; N_BINS]) {
    let pair = |bin: usize| (spectrum[bin], spectrum[(N_FFT - bin) % N_FFT].conj());
    let real = std::array::from_fn(|bin| {
        let (value, mirror) = pair(bin);
        (value + mirror).norm_sqr() / 4.0
    });
    let imaginary = std::array::from_fn(|bin| {
        let (value, mirror) = pair(bin);
        (value - mirror).norm_sqr() / 4.0
    });
    (real, imaginary)
}

/// `samples` with half a window mirrored in front and silence behind.
fn reflected(samples: &[f32]) -> Vec<f32> {
    let half = N_FFT / 2;
    let mut padded = vec![0.0; N_SAMPLES + N_FFT];
    padded[half..half + samples.len()].copy_from_slice(samples);
    for at in 0..half.min(samples.len().saturating_sub(1)) {
        padded[half - 1 - at] = samples[at + 1];
    }
    // Behind a full spectrogram the sound is mirrored as well; a shorter one ends in silence.
    if samples.len() == N_SAMPLES {
        for at in 0..half {
            padded[half + N_SAMPLES + at] = samples[N_SAMPLES - 2 - at];
        }
    }
    padded
}

/// 80 dB below the loudest band at most, moved to about -1 to 1.
fn normalise(mel: &mut [f32]) {
    let loudest = mel.iter().fold(f32::NEG_INFINITY, |loudest, value| loudest.max(*value));
    for value in mel {
        *value = (value.max(loudest - 8.0) + 4.0) / 4.0;
    }
}

fn sparse(filter: &[f32]) -> (usize, Vec<f32>) {
    let first = filter.iter().position(|weight| *weight != 0.0).unwrap_or(0);
    let last = filter.iter().rposition(|weight| *weight != 0.0).map_or(first, |last| last + 1);
    (first, filter[first..last].to_vec())
}

/// Triangles on Slaney's mel scale (linear below 1 kHz, logarithmic above) with equal area, `[n_mels, 201]`: the
/// filters of librosa's defaults, which Whisper was trained with.
fn slaney_filters(n_mels: usize) -> Vec<f32> {
    const HZ_PER_MEL: f64 = 200.0 / 3.0;
    const LOG_FROM_HZ: f64 = 1000.0;
    const LOG_FROM_MEL: f64 = LOG_FROM_HZ / HZ_PER_MEL;
    let log_step = 6.4_f64.ln() / 27.0;
    let hz = |mel: f64| {
        if mel < LOG_FROM_MEL { mel * HZ_PER_MEL } else { LOG_FROM_HZ * (log_step * (mel - LOG_FROM_MEL)).exp() }
    };
    let top_mel = LOG_FROM_MEL + (SAMPLE_RATE as f64 / 2.0 / LOG_FROM_HZ).ln() / log_step;
    let edges: Vec<f64> = (0..n_mels + 2).map(|at| hz(top_mel * at as f64 / (n_mels + 1) as f64)).collect();
    let mut filters = vec![0.0; n_mels * N_BINS];
    for (filter, edge) in filters.chunks_mut(N_BINS).zip(edges.windows(3)) {
        for (bin, weight) in filter.iter_mut().enumerate() {
            let at = bin as f64 * SAMPLE_RATE as f64 / N_FFT as f64;
            let (rise, fall) = ((at - edge[0]) / (edge[1] - edge[0]), (edge[2] - at) / (edge[2] - edge[1]));
            *weight = (rise.min(fall).max(0.0) * 2.0 / (edge[2] - edge[0])) as f32;
        }
    }
    filters
}

#[cfg(test)]
mod tests;
