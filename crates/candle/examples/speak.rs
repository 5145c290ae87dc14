//! Speaks lines: `speak VOICE.onnx OUT.f32 [THREADS] [SPEAKER] < TEXT`, and prints the time taken and Kokoro's
//! symbols, for comparisons with other programs. VOICE is Piper's, with its settings beside it, or Kokoro's, with its voices beside it.
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ingle_candle::speech::kokoro::Kokoro;
use ingle_candle::speech::piper::Voice;

type Failure = Box<dyn std::error::Error>;
/// From a line to its sound.
type Speak = Box<dyn Fn(&str) -> Result<Vec<f32>, Failure>>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let n_threads = args.get(3).map_or(Ok(1), |n| n.parse())?;
    let path = Path::new(&args[1]);
    let started = Instant::now();
    let (speak, rate) = voice(path, n_threads, args.get(4))?;
    eprintln!("loaded in {:.2} s", started.elapsed().as_secs_f64());
    let mut out = std::fs::File::create(&args[2])?;
    let started = Instant::now();
    let mut n_samples = 0;
    for line in std::io::stdin().lock().lines() {
        let sound = speak(&line?)?;
        n_samples += sound.len();
        out.write_all(&sound.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let took = started.elapsed().as_secs_f64();
    eprintln!("{took:.2} s for {:.2} s", n_samples as f64 / f64::from(rate));
    Ok(())
}

fn voice(path: &Path, n_threads: usize, speaker: Option<&String>) -> Result<(Speak, u32), Failure> {
    if PathBuf::from(format!("{}.json", path.display())).is_file() {
        let voice = Voice::load(path, n_threads)?;
        let rate = voice.config().audio.sample_rate;
        return Ok((Box::new(move |line| Ok(voice.speak(line, None, 1.0, &|| false)?)), rate));
    }
    let voice = Kokoro::load(path, n_threads)?;
    let of = |name: &String| voice.styles().iter().position(|style| style.name == *name).ok_or("no such speaker");
    let speaker = speaker.map(of).transpose()?;
    let rate = voice.sample_rate();
    let speak = move |line: &str| {
        eprintln!("{}", voice.symbols(line, speaker)?);
        Ok(voice.speak(line, speaker, 1.0, &|| false)?)
    };
    Ok((Box::new(speak), rate))
}
