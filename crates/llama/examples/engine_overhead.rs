//! What the engine costs over the raw loop: one client's greedy answers against the same decoder without an engine, in
//! turns, on the same weights and as many threads.
//!
//! `engine_overhead MODEL N_PROMPT N_DECODE THREADS PAIRS`

mod raw;

use std::error::Error;

use ingle_engine::sampling::SamplingParams;
use ingle_engine::{Backend, EndOfGeneration, GenerationEvent, GenerationRequest, LoadOptions, TextModel, TokenId};
use ingle_llama::LlamaBackend;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, n_prompt, n_decode, threads, n_pairs] = &arguments[..] else {
        return Err("give MODEL N_PROMPT N_DECODE THREADS PAIRS".into());
    };
    let (n_prompt, n_decode): (usize, usize) = (n_prompt.parse()?, n_decode.parse()?);
    let (threads, n_pairs): (usize, usize) = (threads.parse()?, n_pairs.parse()?);
    let options =
        LoadOptions { name: "pair".into(), path: model.into(), threads: Some(threads), ..LoadOptions::default() };
    let hardware = raw::hardware(threads);
    let mut alone = LlamaBackend.load_model(&options, &hardware)?;
    let engine = LlamaBackend.load(&options, &hardware)?.text.ok_or("not a language model")?;
    let mut ratios = Vec::new();
    for pair in 0..n_pairs {
        let prompt = raw::prompt(alone.tokenizer.as_ref(), n_prompt.max(1), pair);
        let run = raw::run(&mut alone.decoder, &prompt, n_decode)?;
        let raw_rate = n_decode as f64 / run.decode.as_secs_f64();
        let prefill_rate = prompt.len() as f64 / run.prefill.as_secs_f64();
        let engine_rate = answer(&engine, prompt, n_decode)?;
        let ratio = engine_rate / raw_rate;
        println!("raw {raw_rate:.2} (prefill {prefill_rate:.1}), engine {engine_rate:.2} tok/s, ratio {ratio:.4}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let (low, high) = interval(n_pairs);
    println!("median {:.4}, 95 % interval {:.4} to {:.4}", ratios[n_pairs / 2], ratios[low], ratios[high]);
    Ok(())
}

/// Tokens per second from the first token to the last.
fn answer(model: &TextModel, prompt: Vec<TokenId>, n_decode: usize) -> Result<f64, Box<dyn Error>> {
    let request = GenerationRequest {
        prompt,
        sampling: SamplingParams::greedy(),
        max_tokens: Some(n_decode + 1),
        end_of_generation: EndOfGeneration::Ignored,
        ..GenerationRequest::default()
    };
    for event in model.submit(request)? {
        if let GenerationEvent::Done(completion) = event? {
            return Ok(n_decode as f64 / completion.timings.generation.as_secs_f64());
        }
    }
    Err("the answer has no end".into())
}

/// Ranks of the sorted values that enclose the median with 95 % certainty (normal approximation of the binomial).
fn interval(n: usize) -> (usize, usize) {
    let spread = 1.96 * (n as f64).sqrt() / 2.0;
    let middle = n as f64 / 2.0;
    ((middle - spread).floor().max(0.0) as usize, ((middle + spread).ceil() as usize).min(n - 1))
}
