//! Writes down a recording: `hear MODEL SAMPLES.f32 [--int8] [--beams N] [--words]`, samples at 16 kHz as raw
//! little-endian f32. Prints the segments and the time taken, for comparisons with other programs.
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ingle_candle::speech::Precision;
use ingle_candle::speech::whisper::{Placement, Whisper};
use ingle_engine::{HearingOptions, HearingWindow};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let precision = if args.iter().any(|arg| arg == "--int8") { Precision::Int8 } else { Precision::F32 };
    let placement = Placement { device: candle_core::Device::Cpu, precision };
    let n_threads: usize = value("--threads").map_or(Ok(1), |n| n.parse())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let n_beams = value("--beams").map_or(Ok(1), |n| n.parse())?;
    let started = Instant::now();
    let whisper = Whisper::load(Path::new(&args[1]), &placement, n_beams)?;
    eprintln!("loaded in {:.2} s", started.elapsed().as_secs_f64());
    let bytes = std::fs::read(&args[2])?;
    let samples: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let options = HearingOptions { word_times: args.iter().any(|arg| arg == "--words"), ..Default::default() };
    let options = Arc::new(options);
    let (started, cpu) = (Instant::now(), cpu_secs());
    let (mut from, mut previous, mut last_speech) = (0, Vec::new(), 0.0);
    while from < samples.len() {
        let to = (from + 480_000).min(samples.len());
        let window = HearingWindow {
            samples: samples[from..to].into(),
            prompt: String::new(),
            previous: previous.clone(),
            last_speech_secs: last_speech - from as f64 / 16_000.0,
            options: Arc::clone(&options),
        };
        let found = pool.install(|| whisper.transcribe(&[window], &|| false))?.remove(0);
        let at = from as f64 / 16_000.0;
        for segment in &found.segments {
            println!("[{:.2} -> {:.2}]{}", at + segment.start_secs, at + segment.end_secs, segment.text);
            for word in &segment.words {
                println!("  {:.2} {:.2} {}", at + word.start_secs, at + word.end_secs, word.text);
            }
        }
        last_speech = found.segments.last().map_or(last_speech, |segment| at + segment.end_secs);
        previous.extend(found.segments.iter().flat_map(|segment| segment.tokens.iter().copied()));
        if !found.is_trusted {
            previous.clear();
        }
        from = found.resume_secs.map_or(to, |secs| from + (secs * 16_000.0) as usize);
    }
    let took = started.elapsed().as_secs_f64();
    eprintln!("{:.2} s for {:.2} s, cpu {:.2}", took, samples.len() as f64 / 16_000.0, cpu_secs() - cpu);
    Ok(())
}

/// Seconds of processor time of this process, where Linux tells; its clock has 100 ticks a second.
fn cpu_secs() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    fields.get(11).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0
}
