//! Speaks lines: `speak VOICE.onnx OUT.f32 < TEXT`, and prints the time taken, for comparisons with other programs.
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use ingle_candle::speech::piper::Voice;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let started = Instant::now();
    let voice = Voice::load(Path::new(&args[1]), 1)?;
    eprintln!("loaded in {:.2} s", started.elapsed().as_secs_f64());
    let mut out = std::fs::File::create(&args[2])?;
    let started = Instant::now();
    let mut n_samples = 0;
    for line in std::io::stdin().lock().lines() {
        let sound = voice.speak(&line?, None, 1.0, &|| false)?;
        n_samples += sound.len();
        out.write_all(&sound.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let took = started.elapsed().as_secs_f64();
    eprintln!("{took:.2} s for {:.2} s", n_samples as f64 / f64::from(voice.config().audio.sample_rate));
    Ok(())
}
