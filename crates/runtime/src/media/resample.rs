//! From one sample rate to another.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

/// Samples that are converted at once, about.
const CHUNK: usize = 4096;

/// Converts a mono stream from one rate to another.
pub struct Resampler {
    /// None: the rates are equal.
    fft: Option<Fft<f32>>,
    /// Input that does not fill a chunk yet.
    waiting: Vec<f32>,
    /// Samples at the start of the output that only make up for the filter's delay.
    n_to_skip: usize,
    n_in: u64,
    n_out: u64,
    ratio: f64,
}

impl Resampler {
    /// From `from` to `to` samples a second, both between 1,000 and 768,000; other rates are taken as the nearest of
    /// these.
    pub fn new(from: u32, to: u32) -> Self {
        let possible = |rate: u32| rate.clamp(1_000, 768_000) as usize;
        let (from, to) = (possible(from), possible(to));
        let fft = (from != to).then(|| {
            Fft::new(from, to, CHUNK, 1, FixedSync::Input).expect("rates in range can be converted; this is a bug")
        });
        let n_to_skip = fft.as_ref().map_or(0, rubato::Resampler::output_delay);
        Self { fft, waiting: Vec::new(), n_to_skip, n_in: 0, n_out: 0, ratio: to as f64 / from as f64 }
    }

    /// Takes samples and returns those that are ready.
    pub fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        if self.fft.is_none() {
            return samples.to_vec();
        }
        self.n_in += samples.len() as u64;
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(samples);
        let (mut output, mut n_taken) = (Vec::new(), 0);
        while let Some(len) = self.chunk_len().filter(|len| waiting.len() - n_taken >= *len) {
            self.convert(&waiting[n_taken..n_taken + len], &mut output);
            n_taken += len;
        }
        // Once for all chunks: what moves up behind each of them would make a long piece cost its square.
        waiting.drain(..n_taken);
        self.waiting = waiting;
        output
    }

    /// Returns the rest.
    pub fn finish(&mut self) -> Vec<f32> {
        let mut output = Vec::new();
        let wanted = (self.n_in as f64 * self.ratio).round() as u64;
        while self.fft.is_some() && self.n_out < wanted {
            let rest = std::mem::take(&mut self.waiting);
            self.convert(&rest, &mut output);
        }
        let excess = self.n_out.saturating_sub(wanted) as usize;
        output.truncate(output.len().saturating_sub(excess));
        output
    }

    /// Samples of the next chunk; absent where nothing is converted.
    fn chunk_len(&self) -> Option<usize> {
        self.fft.as_ref().map(rubato::Resampler::input_frames_next)
    }

    /// Converts a chunk; one that is too short is filled up with silence.
    fn convert(&mut self, chunk: &[f32], output: &mut Vec<f32>) {
        let Some(fft) = &mut self.fft else { return };
        let mut converted = vec![0.0; fft.output_frames_max()];
        let n_room = converted.len();
        let input = InterleavedSlice::new(chunk, 1, chunk.len()).expect("one channel fits any slice");
        let mut room = InterleavedSlice::new_mut(&mut converted, 1, n_room).expect("one channel fits any slice");
        let indexing = Indexing::new().partial_len(chunk.len());
        let (_, n) =
            fft.process_into_buffer(&input, &mut room, Some(&indexing)).expect("buffers have the asked-for size");
        let skipped = self.n_to_skip.min(n);
        self.n_to_skip -= skipped;
        self.n_out += (n - skipped) as u64;
        output.extend_from_slice(&converted[skipped..n]);
    }
}

#[cfg(test)]
mod tests;
