//! Decodes as fast as the decoder can, with nothing around it: the bar that the engine is measured against.
//!
//! `raw_decode MODEL N_PROMPT N_DECODE THREADS`

mod raw;

use std::error::Error;

use ingle_engine::LoadOptions;
use ingle_llama::LlamaBackend;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, n_prompt, n_decode, threads] = &arguments[..] else {
        return Err("give MODEL N_PROMPT N_DECODE THREADS".into());
    };
    let (n_prompt, n_decode): (usize, usize) = (n_prompt.parse()?, n_decode.parse()?);
    let threads = threads.parse()?;
    let options =
        LoadOptions { name: "raw".into(), path: model.into(), threads: Some(threads), ..LoadOptions::default() };
    let mut loaded = LlamaBackend.load_model(&options, &raw::hardware(threads))?;
    let prompt = raw::prompt(loaded.tokenizer.as_ref(), n_prompt.max(1), 0);
    let run = raw::run(&mut loaded.decoder, &prompt, n_decode)?;
    println!("prefill {:.1} tok/s", prompt.len() as f64 / run.prefill.as_secs_f64());
    println!("decode {:.2} tok/s", n_decode as f64 / run.decode.as_secs_f64());
    Ok(())
}
