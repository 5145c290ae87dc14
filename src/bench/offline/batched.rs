//! Models that work off whole batches, through the engine: vectors, scores, speech to text, text to speech.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ingle::hardware::EnergyMeter;
use ingle::media::AudioReader;
use ingle::{BatchThread, Cost, Engine, HearingWindow, Sequence, SpokenText, TextEncoder, TokenId};

use super::load::Loaded;
use super::{Bench, Case};
use crate::bench::random::{Random, seed_of};
use crate::bench::report::{Better, Curve, Metric, Row, number};
use crate::bench::stats;

/// How the figures come about, for the report.
pub(super) const METHOD: &str = "Vectors and scores: random tokens; `parallel` texts of `prompt` tokens, special ones \
    included, are one call. Transcripts: the beginning of the recording, at most one window, as often as `parallel` says in \
    one call. Speech: a sentence of `prompt` words. A run is calls one after the other for at least half a second; one run \
    before the others is not counted. ± is half of the 95 % interval of the median; of fewer than 6 runs half of their \
    range.";

/// A run goes on for so long, so that quick models are timed well.
const LEAST: Duration = Duration::from_millis(500);

/// What one run gave.
struct Sample {
    /// Requests answered.
    n_done: usize,
    /// Seconds of sound in or out.
    sound_secs: f64,
    secs: f64,
    call_ms: Vec<f64>,
    joules: Option<f64>,
}

/// What a model is asked for, and what its figures are called.
struct Work<'a> {
    /// Requests, plural.
    unit: &'static str,
    /// Tokens of a request; nothing where they are not counted.
    n_tokens: Option<usize>,
    /// Runs one call with random content; seconds of sound in or out, or `None` when it is time to end.
    call: Box<Call<'a>>,
}

type Call<'a> = dyn FnMut(&Bench<'_>, &mut Random) -> anyhow::Result<Option<f64>> + 'a;

/// Runs one case as often as asked for and adds its figures to the row; `false` when not even one run was finished.
pub(super) fn measure(bench: &mut Bench<'_>, loaded: &Loaded, case: &Case, row: &mut Row) -> anyhow::Result<bool> {
    let mut work = work(&loaded.engine, &loaded.options.name, case, bench.args.audio.as_deref())?;
    let mut samples = Vec::new();
    for idx in 0..=bench.args.repeats {
        if bench.cuts() {
            break;
        }
        bench.progress.on(&format!("{} {} of {}", case.parallel, work.unit, case.prompt));
        let mut random = Random::new(seed_of(&[bench.args.seed, case.prompt as u64, u64::from(idx)]));
        let Some(sample) = run(bench, &mut work, case, &mut random)? else {
            bench.is_cut = true;
            break;
        };
        let rate = number(sample.n_done as f64 / sample.secs);
        let name = &loaded.options.name;
        bench.progress.done(&format!("{name} {} x {}: {rate} {}/s", case.parallel, case.prompt, work.unit));
        if idx > 0 {
            samples.push(sample);
        }
    }
    figures(&work, &samples, row);
    Ok(!samples.is_empty())
}

/// The first thing that the model can do.
fn work<'a>(engine: &'a Engine, name: &str, case: &Case, audio: Option<&Path>) -> anyhow::Result<Work<'a>> {
    let (n_calls, n_prompt) = (case.parallel, case.prompt);
    if let Some(model) = &engine.embed {
        let encoder = &*model.encoder;
        let n_tokens = sequence(encoder, n_prompt, &mut Random::new(0))?.tokens.len();
        let call = move |bench: &Bench<'_>, random: &mut Random| {
            ask(bench, &model.thread, sequences(encoder, (n_calls, n_prompt), random)?, |_| 0.0)
        };
        return Ok(Work { unit: "texts", n_tokens: Some(n_tokens), call: Box::new(call) });
    }
    if let Some(model) = &engine.rerank {
        let encoder = &*model.encoder;
        let n_tokens = sequence(encoder, n_prompt, &mut Random::new(0))?.tokens.len();
        let call = move |bench: &Bench<'_>, random: &mut Random| {
            let mut pairs = sequences(encoder, (n_calls, n_prompt), random)?;
            pairs.iter_mut().for_each(|pair| pair.second_from = pair.tokens.len() / 2);
            ask(bench, &model.thread, pairs, |_| 0.0)
        };
        return Ok(Work { unit: "pairs", n_tokens: Some(n_tokens), call: Box::new(call) });
    }
    if let Some(model) = &engine.transcribe {
        let Some(file) = audio else { bail!("give a recording with --audio FILE: {name} writes down what it hears") };
        let samples: Arc<[f32]> = beginning(file, model.info.window_len)?.into();
        let secs = n_calls as f64 * samples.len() as f64 / ingle::HEARING_RATE as f64;
        let call = move |bench: &Bench<'_>, _: &mut Random| {
            let window = HearingWindow {
                samples: Arc::clone(&samples),
                prompt: String::new(),
                previous: Vec::new(),
                last_speech_secs: 0.0,
                options: Arc::default(),
            };
            let done = ask(bench, &model.thread, vec![window; n_calls], |_| 0.0)?;
            Ok(done.map(|_| secs))
        };
        return Ok(Work { unit: "windows", n_tokens: None, call: Box::new(call) });
    }
    if let Some(model) = &engine.speak {
        let rate = f64::from(model.info.sample_rate);
        let call = move |bench: &Bench<'_>, random: &mut Random| {
            let text = |random: &mut Random| SpokenText { text: random.words(n_prompt), speaker: None, speed: 1.0 };
            let sentences = (0..n_calls).map(|_| text(random)).collect();
            ask(bench, &model.thread, sentences, |sound: &Vec<f32>| sound.len() as f64 / rate)
        };
        return Ok(Work { unit: "sentences", n_tokens: None, call: Box::new(call) });
    }
    bail!("this program has no measurement for what the model {name:?} does")
}

/// One call; the sum of `secs` over its responses, or `None` when it is time to end.
fn ask<Q: Cost + Send + 'static, R: Send + 'static>(
    bench: &Bench<'_>,
    thread: &BatchThread<Q, R>,
    requests: Vec<Q>,
    secs: impl Fn(&R) -> f64,
) -> anyhow::Result<Option<f64>> {
    let answered = bench.wait(thread.submit(requests, None)?).transpose()?;
    Ok(answered.map(|answered| answered.responses.iter().map(secs).sum()))
}

fn sequences(
    encoder: &dyn TextEncoder,
    (n_texts, n_tokens): (usize, usize),
    random: &mut Random,
) -> anyhow::Result<Vec<Sequence>> {
    (0..n_texts).map(|_| sequence(encoder, n_tokens, random)).collect()
}

/// Random tokens with the special ones around them, `n_tokens` together if there is room for both.
fn sequence(encoder: &dyn TextEncoder, n_tokens: usize, random: &mut Random) -> anyhow::Result<Sequence> {
    // Special tokens and single bytes stand at the beginning of most vocabularies.
    let n_vocab = encoder.n_vocab();
    let first = n_vocab / 10;
    let mut of_len = |len: usize| {
        let tokens: Vec<TokenId> = (0..len).map(|_| (first + random.below(n_vocab - first)) as TokenId).collect();
        encoder.encode_tokens(&tokens)
    };
    let n_special = of_len(1)?.sequence.tokens.len() - 1;
    let encoded = of_len(n_tokens.saturating_sub(n_special).max(1))?;
    if encoded.is_cut() {
        bail!("{n_tokens} tokens are more than the {} that the model takes; lower --prompt", encoder.max_tokens());
    }
    Ok(encoded.sequence)
}

/// The first samples of a recording.
fn beginning(file: &Path, n_samples: usize) -> anyhow::Result<Vec<f32>> {
    let opened = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut reader = AudioReader::open(Box::new(opened)).with_context(|| file.display().to_string())?;
    let mut samples = Vec::new();
    while samples.len() < n_samples {
        let Some(piece) = reader.read().with_context(|| file.display().to_string())? else { break };
        samples.extend(piece);
    }
    samples.truncate(n_samples);
    if samples.is_empty() {
        bail!("{} has no sound in it", file.display());
    }
    Ok(samples)
}

/// One run; `None` when it is time to end.
fn run(bench: &Bench<'_>, work: &mut Work<'_>, case: &Case, random: &mut Random) -> anyhow::Result<Option<Sample>> {
    let meter = EnergyMeter::start();
    let mut sample = Sample { n_done: 0, sound_secs: 0.0, secs: 0.0, call_ms: Vec::new(), joules: None };
    let begun = Instant::now();
    while begun.elapsed() < LEAST {
        let called = Instant::now();
        let Some(sound_secs) = (work.call)(bench, random)? else { return Ok(None) };
        sample.sound_secs += sound_secs;
        sample.call_ms.push(1e3 * called.elapsed().as_secs_f64());
        sample.n_done += case.parallel;
    }
    sample.secs = begun.elapsed().as_secs_f64();
    sample.joules = meter.map(|meter| meter.joules());
    Ok(Some(sample))
}

fn figures(work: &Work<'_>, samples: &[Sample], row: &mut Row) {
    let of = |value: &dyn Fn(&Sample) -> Option<f64>| samples.iter().filter_map(value).collect::<Vec<_>>();
    let rate = |sample: &Sample| sample.n_done as f64 / sample.secs;
    let call = |q: f64| of(&|sample| Some(stats::quantile(&sample.call_ms, q)));
    let real_time = of(&|sample| (sample.sound_secs > 0.0).then(|| sample.secs / sample.sound_secs));
    let all = [
        Metric::new(work.unit, "1/s", Better::Higher, of(&|sample| Some(rate(sample)))),
        Metric::new("tokens", "tok/s", Better::Higher, of(&|sample| Some(rate(sample) * work.n_tokens? as f64))),
        Metric::new("real-time factor", "", Better::Lower, real_time),
        Metric::new("call p50", "ms", Better::Lower, call(0.5)),
        Metric::new("call p99", "ms", Better::Lower, call(0.99)).map(Metric::in_files),
        Metric::new("energy", "J", Better::Lower, of(&|sample| Some(sample.joules? / sample.n_done as f64))),
    ];
    row.metrics.extend(all.into_iter().flatten());
    let calls: Vec<f64> = samples.iter().flat_map(|sample| sample.call_ms.iter().copied()).collect();
    row.curves.extend(Curve::of("call", "ms", &calls));
}
