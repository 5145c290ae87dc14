//! What one step costs by what is in it: answers that go on, each with a context, beside a piece of a prompt.
//!
//! `step_cost MODEL THREADS N_ANSWERS CONTEXT PROMPT_BEFORE`

mod raw;

use std::error::Error;
use std::time::Instant;

use ingle_engine::{BatchToken, Decoder, LoadOptions};
use ingle_llama::{LlamaBackend, LlamaDecoder};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, numbers @ ..] = &arguments[..] else { return Err("give MODEL and four numbers".into()) };
    let numbers: Vec<usize> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let [threads, n_answers, context, before] = numbers[..] else { return Err("give MODEL and four numbers".into()) };
    let options =
        LoadOptions { name: "raw".into(), path: model.into(), threads: Some(threads), ..LoadOptions::default() };
    let mut decoder = LlamaBackend.load_model(&options, &raw::hardware(threads))?.decoder;
    for seq in 0..n_answers {
        fill(&mut decoder, seq, 0, context)?;
    }
    fill(&mut decoder, n_answers, 0, before)?;
    for n_prompt in [0, 1, 2, 4, 8, 16, 24, 32, 48, 60, 64, 96, 124, 128, 192, 256, 384, 500] {
        let mut batch: Vec<_> = (0..n_answers).map(|seq| entry(seq, context, true)).collect();
        batch.extend((0..n_prompt).map(|at| entry(n_answers, before + at, at + 1 == n_prompt)));
        if batch.is_empty() {
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            decoder.decode(&batch)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            for seq in 0..n_answers {
                decoder.cut(seq as u32, context)?;
            }
            decoder.cut(n_answers as u32, before)?;
        }
        times.sort_by(f64::total_cmp);
        println!("{n_answers} answers and {n_prompt:3} prompt tokens: {:7.2} ms", times[2]);
    }
    Ok(())
}

fn entry(seq: usize, position: usize, wants_row: bool) -> BatchToken {
    BatchToken { token: 1000 + (position % 5000) as u32, position, seq: seq as u32, wants_row }
}

fn fill(decoder: &mut LlamaDecoder, seq: usize, from: usize, to: usize) -> Result<(), Box<dyn Error>> {
    let batch: Vec<_> = (from..to).map(|position| entry(seq, position, false)).collect();
    for piece in batch.chunks(512) {
        decoder.decode(piece)?;
    }
    Ok(())
}
