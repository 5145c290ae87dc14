//! Decodes as fast as the decoder can, with nothing around it: the bar that the engine is measured against.
//!
//! `raw_decode MODEL N_PROMPT N_DECODE THREADS`

use std::error::Error;
use std::time::Instant;

use ingle_engine::{BatchToken, Decoder, Device, DeviceKind, Hardware, LoadOptions, TokenId, Tokenizer};
use ingle_llama::LlamaBackend;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, n_prompt, n_decode, threads] = &arguments[..] else {
        return Err("give MODEL N_PROMPT N_DECODE THREADS".into());
    };
    let (n_prompt, n_decode): (usize, usize) = (n_prompt.parse()?, n_decode.parse()?);
    let threads = threads.parse()?;
    let options = LoadOptions {
        name: "raw".into(),
        path: model.into(),
        threads: Some(threads),
        ..LoadOptions::default()
    };
    let loaded = LlamaBackend.load_model(&options, &hardware(threads))?;
    let (mut decoder, tokenizer) = (loaded.decoder, loaded.tokenizer);
    let prompt = prompt(tokenizer.as_ref(), n_prompt);
    let started = Instant::now();
    let mut token = prefill(&mut decoder, &prompt)?;
    let prefilled = Instant::now();
    for position in n_prompt..n_prompt + n_decode {
        decoder.decode(&[BatchToken { token, position, seq: 0, wants_row: true }])?;
        token = best(decoder.row(0)?)?;
    }
    let (prefill, decode) = (prefilled - started, prefilled.elapsed());
    println!("prefill {:.1} tok/s", n_prompt as f64 / prefill.as_secs_f64());
    println!("decode {:.2} tok/s", n_decode as f64 / decode.as_secs_f64());
    Ok(())
}

fn hardware(n_cores: usize) -> Hardware {
    let cpu = Device {
        kind: DeviceKind::Cpu,
        index: 0,
        name: String::new(),
        total_bytes: 0,
        free_bytes: 0,
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

/// Ordinary tokens of the middle of the vocabulary, always the same.
fn prompt(tokenizer: &dyn Tokenizer, n_tokens: usize) -> Vec<TokenId> {
    let n_vocab = tokenizer.n_vocab();
    (0..n_tokens).map(|idx| ((1000 + 37 * idx) % (n_vocab / 2)) as TokenId).collect()
}

fn prefill(decoder: &mut impl Decoder, prompt: &[TokenId]) -> Result<TokenId, Box<dyn Error>> {
    let n_batch = decoder.limits().n_batch;
    let entry = |(position, &token): (usize, &TokenId)| BatchToken {
        token,
        position,
        seq: 0,
        wants_row: position + 1 == prompt.len(),
    };
    let batch: Vec<BatchToken> = prompt.iter().enumerate().map(entry).collect();
    let mut last_len = 0;
    for chunk in batch.chunks(n_batch) {
        decoder.decode(chunk)?;
        last_len = chunk.len();
    }
    best(decoder.row(last_len - 1)?)
}

fn best(row: &[f32]) -> Result<TokenId, Box<dyn Error>> {
    let peak = ingle_kernels::argmax(row).map_err(|fault| format!("{fault:?}"))?;
    Ok(peak.index as TokenId)
}
