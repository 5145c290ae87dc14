//! The raw loop: a decoder, argmax, nothing else.

use std::error::Error;
use std::time::{Duration, Instant};

use ingle_engine::{BatchToken, Decoder, Device, DeviceKind, Hardware, TokenId, Tokenizer};

/// What one run took.
pub struct Run {
    pub prefill: Duration,
    pub decode: Duration,
}

/// Computes `prompt`, then `n_decode` tokens one by one, each the most likely one.
pub fn run(decoder: &mut impl Decoder, prompt: &[TokenId], n_decode: usize) -> Result<Run, Box<dyn Error>> {
    decoder.clear(0);
    let started = Instant::now();
    let mut token = prefill(decoder, prompt)?;
    let prefilled = Instant::now();
    for position in prompt.len()..prompt.len() + n_decode {
        decoder.decode(&[BatchToken { token, position, seq: 0, wants_row: true }])?;
        token = best(decoder.row(0)?)?;
    }
    Ok(Run { prefill: prefilled - started, decode: prefilled.elapsed() })
}

/// A machine of `n_cores` with memory enough, also for prefixes outside the cache.
pub fn hardware(n_cores: usize) -> Hardware {
    let cpu = Device {
        kind: DeviceKind::Cpu,
        index: 0,
        name: String::new(),
        total_bytes: 16 << 30,
        free_bytes: 8 << 30,
        compute_capability: None,
    };
    Hardware {
        devices: vec![cpu],
        n_cores,
        instruction_sets: Vec::new(),
        driver_version: None,
        cuda_version: None,
        notes: Vec::new(),
    }
}

/// Ordinary tokens of the first half of the vocabulary, always the same for the same `salt`.
pub fn prompt(tokenizer: &dyn Tokenizer, n_tokens: usize, salt: usize) -> Vec<TokenId> {
    let n_vocab = tokenizer.n_vocab();
    (0..n_tokens).map(|idx| ((1000 + 101 * salt + 37 * idx) % (n_vocab / 2)) as TokenId).collect()
}

fn prefill(decoder: &mut impl Decoder, prompt: &[TokenId]) -> Result<TokenId, Box<dyn Error>> {
    let n_batch = decoder.limits().n_batch;
    let last = prompt.len() - 1;
    let entry = |(position, &token)| BatchToken { token, position, seq: 0, wants_row: position == last };
    let batch: Vec<BatchToken> = prompt.iter().enumerate().map(entry).collect();
    for chunk in batch.chunks(n_batch) {
        decoder.decode(chunk)?;
    }
    best(decoder.row(last % n_batch)?)
}

fn best(row: &[f32]) -> Result<TokenId, Box<dyn Error>> {
    let peak = ingle_kernels::argmax(row).map_err(|fault| format!("{fault:?}"))?;
    Ok(peak.index as TokenId)
}
